//! The edge's configuration: every limit, with its unit and default.

use std::{net::SocketAddr, path::PathBuf};

use http::HeaderName;
use mesh_runtime::telemetry::TelemetryConfig;
use serde::{Deserialize, Serialize};

/// Configuration of the edge.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect. Default: 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Where probes and metrics are served; keep it inside. Default: 127.0.0.1:9080.
    pub admin_listen: SocketAddr,
    /// Serve without a key file on an address that others can reach: everybody is then anonymous and may
    /// do everything. Default: false.
    pub insecure: bool,
    /// API keys.
    pub keys: KeysConfig,
    /// What one request may take.
    pub limits: LimitsConfig,
    /// Headers of requests with a raw body (webhooks, uploads) that reach the service untouched, as gRPC
    /// metadata of the same name. Default: `webhook-id`, `webhook-timestamp`, `webhook-signature`
    /// (standardwebhooks.com), `stripe-signature`, `simulator-signature`.
    pub forwarded_headers: Vec<String>,
    /// What the documentation says about the API as a whole.
    pub api: ApiConfig,
    /// The mesh: where the services are.
    pub mesh: mesh::Config,
    /// The log.
    pub telemetry: TelemetryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 9080)),
            insecure: false,
            keys: KeysConfig::default(),
            limits: LimitsConfig::default(),
            forwarded_headers: [
                "webhook-id",
                "webhook-timestamp",
                "webhook-signature",
                "stripe-signature",
                "simulator-signature",
            ]
            .map(str::to_owned)
            .to_vec(),
            api: ApiConfig::default(),
            mesh: mesh::Config::default(),
            telemetry: TelemetryConfig::default(),
        }
    }
}

/// API keys.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfig {
    /// The file of hashed keys, as `meshctl keys new` writes it. Default: none; then every client is
    /// anonymous with all scopes, and the edge listens on loopback only unless `insecure` is set.
    pub file: Option<PathBuf>,
    /// How often the file is looked at for changes, in milliseconds. Default: 1000.
    pub reload_interval_ms: u64,
}

impl Default for KeysConfig {
    fn default() -> Self {
        Self {
            file: None,
            reload_interval_ms: 1_000,
        }
    }
}

/// What one request may take, and how many there may be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections at a time; further ones wait in the kernel's backlog. Default: 4096.
    pub connections_max: usize,
    /// Requests being answered at a time, streams not counted; further ones are refused with 503.
    /// Default: 1024.
    pub in_flight_max: usize,
    /// Streams (server-sent events, WebSockets, downloads) at a time; further ones are refused with 503.
    /// Default: 1024.
    pub streams_max: usize,
    /// Headers of one request, in bytes. Default: 32768.
    pub header_bytes_max: usize,
    /// Headers of one request, by number. Default: 100.
    pub headers_max: usize,
    /// How long a client may take to send its headers, in milliseconds. Default: 10000.
    pub header_timeout_ms: u64,
    /// A JSON body, in bytes. Default: 1048576.
    pub body_bytes_max: usize,
    /// Nesting of arrays and objects in a JSON body. Default: 32.
    pub depth_max: usize,
    /// A raw body that is one message (a webhook), in bytes. Default: 262144.
    pub raw_body_bytes_max: usize,
    /// Bodies of all requests that are held at a time, streamed ones not counted, in bytes: a request counts with the
    /// length that it names, one that names none with the longest that it may have, until it is there. Requests that need no key
    /// (webhooks) get at most half of it. Further ones are refused with 503. Well below the memory that the process may
    /// take. Default: 67108864.
    pub held_body_bytes_max: u64,
    /// A raw body that is streamed to the service (an upload), in bytes. Default: 268435456.
    pub upload_bytes_max: u64,
    /// How much of a body that is refused is read all the same, so that its client comes to reading the answer, in
    /// bytes. Default: 67108864.
    pub discard_bytes_max: u64,
    /// How long a client may take to send a body, or between two pieces of an upload, in milliseconds.
    /// Default: 30000.
    pub body_timeout_ms: u64,
    /// How often an idle event stream or WebSocket is kept alive, in milliseconds. Default: 15000.
    pub keepalive_interval_ms: u64,
    /// How long a health check of a destination may take, in milliseconds. Default: 2000.
    pub health_timeout_ms: u64,
    /// How long requests are still answered after shutdown was asked for and `/healthz` has turned 503, in
    /// milliseconds: as long as those who send requests need to learn of it. HTTP/1.1 connections that are used
    /// meanwhile are closed after their answer. On Kubernetes 5000. Default: 0.
    pub drain_wait_ms: u64,
    /// How long requests in flight may go on after that, in milliseconds.
    /// Default: 10000.
    pub drain_timeout_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            in_flight_max: 1024,
            streams_max: 1024,
            header_bytes_max: 32 << 10,
            headers_max: 100,
            header_timeout_ms: 10_000,
            body_bytes_max: 1 << 20,
            depth_max: 32,
            raw_body_bytes_max: 256 << 10,
            held_body_bytes_max: 64 << 20,
            upload_bytes_max: 256 << 20,
            discard_bytes_max: 64 << 20,
            body_timeout_ms: 30_000,
            keepalive_interval_ms: 15_000,
            health_timeout_ms: 2_000,
            drain_wait_ms: 0,
            drain_timeout_ms: 10_000,
        }
    }
}

/// What the documentation says about the API as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Its name. Default: `commerce-mesh`.
    pub title: String,
    /// What it is, in Markdown.
    pub description: String,
    /// The version of the API. Default: the version of this program.
    pub version: String,
    /// The URLs it is served at, for the documentation. Default: `/`, wherever the document came from.
    pub servers: Vec<String>,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            title: "commerce-mesh".to_owned(),
            description:
                "A REST API over gRPC services, described by their own contracts. JSON is \
                proto3 JSON: lowerCamelCase names, 64-bit integers as text, enums by name. Unknown \
                fields and query parameters are refused by name."
                    .to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            servers: vec!["/".to_owned()],
        }
    }
}

/// A key of the configuration with a value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {reason}")]
pub struct ConfigError {
    /// The key, `section.key`.
    pub key: String,
    /// What is wrong with its value.
    pub reason: String,
}

impl Config {
    /// Refuses limits of zero and headers that must not be forwarded, by the key's name.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let positive = [
            ("keys.reload_interval_ms", self.keys.reload_interval_ms),
            ("limits.connections_max", limits.connections_max as u64),
            ("limits.in_flight_max", limits.in_flight_max as u64),
            ("limits.streams_max", limits.streams_max as u64),
            ("limits.headers_max", limits.headers_max as u64),
            ("limits.header_timeout_ms", limits.header_timeout_ms),
            ("limits.body_bytes_max", limits.body_bytes_max as u64),
            ("limits.depth_max", limits.depth_max as u64),
            (
                "limits.raw_body_bytes_max",
                limits.raw_body_bytes_max as u64,
            ),
            ("limits.upload_bytes_max", limits.upload_bytes_max),
            ("limits.body_timeout_ms", limits.body_timeout_ms),
            ("limits.keepalive_interval_ms", limits.keepalive_interval_ms),
            ("limits.health_timeout_ms", limits.health_timeout_ms),
        ];
        let error = |key: &str, reason: String| ConfigError {
            key: key.to_owned(),
            reason,
        };
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(error(key, "must not be 0".to_owned()));
        }
        let longest = limits.body_bytes_max.max(limits.raw_body_bytes_max) as u64;
        if limits.held_body_bytes_max / 2 < longest {
            let reason = format!("must be at least twice the longest body, {longest} bytes");
            return Err(error("limits.held_body_bytes_max", reason));
        }
        if !(8_192..=1 << 20).contains(&limits.header_bytes_max) {
            let reason = "must be between 8192 and 1048576".to_owned();
            return Err(error("limits.header_bytes_max", reason));
        }
        for name in &self.forwarded_headers {
            check_forwarded(name).map_err(|why| {
                error(
                    "forwarded_headers",
                    format!("must not contain {name:?}: {why}"),
                )
            })?;
        }
        Ok(())
    }
}

/// Headers that carry meaning for gRPC, the mesh or the edge itself cannot be taken over from clients.
fn check_forwarded(name: &str) -> Result<(), &'static str> {
    const RESERVED: [&str; 13] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "te",
        "traceparent",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-api-key",
        "x-request-id",
    ];
    HeaderName::from_lowercase(name.as_bytes()).map_err(|_| "not a lower-case header name")?;
    let reserved =
        RESERVED.contains(&name) || name.starts_with("grpc-") || name.starts_with("mesh-");
    if reserved || name.ends_with("-bin") {
        Err("it has a meaning of its own")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn limits_of_zero_and_reserved_headers_are_refused_by_name() {
        let mut config = Config::default();
        config.limits.depth_max = 0;
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "limits.depth_max must not be 0");
        for name in [
            "mesh-principal",
            "grpc-timeout",
            "authorization",
            "X-Upper",
            "a b",
            "x-bin",
        ] {
            let config = Config {
                forwarded_headers: vec![name.to_owned()],
                ..Config::default()
            };
            let error = config.validate().unwrap_err().to_string();
            assert!(
                error.starts_with("forwarded_headers must not contain"),
                "{error}"
            );
        }
        let mut config = Config::default();
        config.limits.header_bytes_max = 1;
        assert!(config.validate().is_err());
    }
}
