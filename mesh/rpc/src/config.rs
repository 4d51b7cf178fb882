//! The mesh's configuration: every limit, with its unit and default.
//!
//! Deliberately without anything a contract says: deadlines, criticality and idempotency of a method
//! stand in its `.proto`.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    ClientConfig, ConfigError, FaultsConfig, OverloadConfig, RateLimitsConfig,
    client::{parse_destination, read_destination},
};

/// Configuration of both stacks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where each destination listens, by name: one or several `http://host:port` separated by commas,
    /// each with `;zone=NAME` and `;weight=1..1000` where wanted; `dns://host:port`, each address of which
    /// is an endpoint; `srv://_grpc._tcp.name`, the SRV records of which say hosts, ports and weights (the whole name:
    /// no search domain is added), in a program that is built with the cargo feature `srv` of commerce-mesh; or `file:///path` of a file with one endpoint per
    /// line. Default: none. A call to a name that is missing here is UNAVAILABLE and says so.
    ///
    /// `https://` instead of `http://` speaks TLS, which `identity.mode` has to allow; in mode `strict`
    /// all do. The server has to be of the own trust domain, or, with one or several
    /// `;id=spiffe://shop.example/product` (or `/jobs/*` for all below), one of those; on a `dns://` or `srv://`
    /// destination an id also says that it speaks TLS.
    pub destinations: BTreeMap<String, String>,
    /// How the calls of a destination are shared between versions of it: the names of other destinations,
    /// each with its weight. A call stays with its version, retries and hedges included. Default: none.
    pub splits: BTreeMap<String, BTreeMap<String, u32>>,
    /// The longest a call may take whose contract states no deadline, in milliseconds. Default: 10000.
    pub deadline_default_ms: u64,
    /// The longest message, sent or received, in bytes. Default: 4194304, which is also tonic's own
    /// limit for what its generated types receive: raising this one needs
    /// `max_decoding_message_size` on those as well.
    pub message_bytes_max: usize,
    /// The longest list of headers of a request or response, in bytes. Default: 32768.
    pub header_bytes_max: u32,
    /// How often an otherwise silent connection with calls in flight is probed, in milliseconds.
    /// Default: 20000.
    pub keepalive_interval_ms: u64,
    /// How long a probe may stay unanswered before the connection counts as dead, in milliseconds.
    /// Default: 5000.
    pub keepalive_timeout_ms: u64,
    /// HTTP/2 flow control: how much one stream may have in flight, in bytes. Default: 1048576.
    pub stream_window_bytes: u32,
    /// HTTP/2 flow control: how much one connection may have in flight, in bytes. Default: 4194304.
    pub connection_window_bytes: u32,
    /// The client stack.
    pub client: ClientConfig,
    /// The server stack.
    pub server: ServerConfig,
    /// Mutual TLS and authorisation. Default: off.
    pub identity: mesh_identity::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            destinations: BTreeMap::new(),
            splits: BTreeMap::new(),
            deadline_default_ms: 10_000,
            message_bytes_max: 4 << 20,
            header_bytes_max: 32 << 10,
            keepalive_interval_ms: 20_000,
            keepalive_timeout_ms: 5_000,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 4 << 20,
            client: ClientConfig::default(),
            server: ServerConfig::default(),
            identity: mesh_identity::Config::default(),
        }
    }
}

/// Configuration of the server stack.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// How many connections are served at a time; further ones wait in the kernel's backlog.
    /// Default: 4096.
    pub connections_max: usize,
    /// How many calls one connection may have in flight. Default: 1024.
    pub streams_max: u32,
    /// How long a new connection may take to say that it speaks HTTP/2, in milliseconds. Default: 5000.
    pub handshake_timeout_ms: u64,
    /// How old a connection may become, in milliseconds, give or take a tenth; then its peer is told to
    /// open another (GOAWAY), so that clients spread over servers that are new. 0: no limit.
    /// Default: 1800000.
    pub connection_age_max_ms: u64,
    /// How long calls in flight may go on after that, in milliseconds; what is left then ends with
    /// UNAVAILABLE. Default: 300000.
    pub connection_age_grace_ms: u64,
    /// How long a connection may be without calls before its peer is told that it goes away, in
    /// milliseconds. 0: no limit. Default: 600000.
    pub connection_idle_max_ms: u64,
    /// How often readiness is checked for whoever asks for this server's health, in milliseconds.
    /// Default: 1000.
    pub readiness_interval_ms: u64,
    /// How long one check of readiness may take before it counts as failed, in milliseconds, whoever asks.
    /// Default: 2000.
    pub readiness_timeout_ms: u64,
    /// How long calls are still taken after shutdown was asked for and health has turned NOT_SERVING, in
    /// milliseconds: as long as those who send calls need to learn of it. On Kubernetes, where endpoints are
    /// removed while the process is already stopping, 5000. Default: 0.
    pub drain_wait_ms: u64,
    /// How long calls in flight may go on after that, in milliseconds; what is left then ends with
    /// UNAVAILABLE. Default: 10000.
    pub drain_timeout_ms: u64,
    /// How long streams without a deadline may go on of that, in milliseconds: a watch would hold up every
    /// shutdown to its bound. Default: 1000.
    pub stream_grace_ms: u64,
    /// Refusing what the server cannot bear.
    pub overload: OverloadConfig,
    /// How often callers may call.
    pub rate_limits: RateLimitsConfig,
    /// Faults on purpose.
    pub faults: FaultsConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            streams_max: 1024,
            handshake_timeout_ms: 5_000,
            connection_age_max_ms: 1_800_000,
            connection_age_grace_ms: 300_000,
            connection_idle_max_ms: 600_000,
            readiness_interval_ms: 1_000,
            readiness_timeout_ms: 2_000,
            drain_wait_ms: 0,
            drain_timeout_ms: 10_000,
            stream_grace_ms: 1_000,
            overload: OverloadConfig::default(),
            rate_limits: RateLimitsConfig::default(),
            faults: FaultsConfig::default(),
        }
    }
}

impl ServerConfig {
    pub(crate) fn readiness_interval(&self) -> Duration {
        Duration::from_millis(self.readiness_interval_ms)
    }

    /// How long one check of readiness may take; the admin endpoint's checks go by it too.
    pub fn readiness_timeout(&self) -> Duration {
        Duration::from_millis(self.readiness_timeout_ms)
    }

    pub(crate) fn drain_wait(&self) -> Duration {
        Duration::from_millis(self.drain_wait_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }

    pub(crate) fn stream_grace(&self) -> Duration {
        Duration::from_millis(self.stream_grace_ms)
    }

    fn validate_rules(&self) -> Result<(), ConfigError> {
        let refused = [
            ("rate_limits", self.rate_limits.refusal()),
            ("faults", self.faults.refusal()),
        ];
        let refused = refused
            .into_iter()
            .find_map(|(section, refusal)| Some((section, refusal?)));
        refused.map_or(Ok(()), |(section, (key, reason))| {
            Err(ConfigError::new(format!("server.{section}.{key}"), reason))
        })
    }
}

impl Config {
    /// Every default, and these destinations: names, and where each listens ([`Config::destinations`]).
    pub fn calling<N: Into<String>, A: Into<String>>(
        destinations: impl IntoIterator<Item = (N, A)>,
    ) -> Self {
        let destinations = destinations.into_iter();
        Self {
            destinations: destinations
                .map(|(name, address)| (name.into(), address.into()))
                .collect(),
            ..Self::default()
        }
    }

    /// Checks the configuration and what it names: the identity's files and the policy are read and judged as
    /// [`Mesh::start`](crate::Mesh::start) does, and files of endpoints are read. Nobody is called: no name is looked up,
    /// nothing is connected, no Workload API is asked.
    pub async fn check(&self) -> Result<(), ConfigError> {
        self.validate()?;
        self.identity
            .check()
            .await
            .map_err(|error| ConfigError::new(format!("identity.{}", error.key), error.reason))?;
        for (name, address) in &self.destinations {
            read_destination(address)
                .await
                .map_err(|reason| ConfigError::new(format!("destinations.{name}"), reason))?;
        }
        Ok(())
    }

    /// Refuses limits of zero, which would let nothing through, by the key's name.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let limits = [
            ("deadline_default_ms", self.deadline_default_ms),
            ("message_bytes_max", self.message_bytes_max as u64),
            ("header_bytes_max", self.header_bytes_max.into()),
            ("keepalive_interval_ms", self.keepalive_interval_ms),
            ("keepalive_timeout_ms", self.keepalive_timeout_ms),
            ("server.connections_max", self.server.connections_max as u64),
            ("server.streams_max", self.server.streams_max.into()),
            (
                "server.handshake_timeout_ms",
                self.server.handshake_timeout_ms,
            ),
            (
                "server.readiness_interval_ms",
                self.server.readiness_interval_ms,
            ),
            (
                "server.readiness_timeout_ms",
                self.server.readiness_timeout_ms,
            ),
        ];
        let mut limits = limits.into_iter().chain(self.client.limits());
        if let Some((key, _)) = limits.find(|(_, value)| *value == 0) {
            return Err(ConfigError::new(key, "must not be 0"));
        }
        let refused = self.client.out_of_range();
        if let Some((key, reason)) = refused.or_else(|| self.server.overload.refusal()) {
            return Err(ConfigError::new(key, reason));
        }
        self.server.validate_rules()?;
        // Below 65535 bytes hyper's windows would shrink under the protocol's own default; above 2^31-1
        // the protocol has no number for them.
        for (key, bytes) in [
            ("stream_window_bytes", self.stream_window_bytes),
            ("connection_window_bytes", self.connection_window_bytes),
        ] {
            if !(65_535..=0x7fff_ffff).contains(&bytes) {
                let reason = "must be between 65535 and 2147483647";
                return Err(ConfigError::new(key, reason));
            }
        }
        let reason = "speaks TLS, and mesh.identity.mode is off";
        self.validate_destinations(self.identity.mode, reason)?;
        self.identity
            .validate()
            .map_err(|error| ConfigError::new(format!("identity.{}", error.key), error.reason))?;
        self.validate_splits()
    }

    /// `tls_refusal`: what is said of TLS in mode `off`.
    pub(crate) fn validate_destinations(
        &self,
        mode: mesh_identity::Mode,
        tls_refusal: &str,
    ) -> Result<(), ConfigError> {
        for (name, address) in &self.destinations {
            let refuse = |reason: &str| ConfigError::new(format!("destinations.{name}"), reason);
            let source = parse_destination(address).map_err(refuse)?;
            if source.wants_tls() && mode == mesh_identity::Mode::Off {
                return Err(refuse(tls_refusal));
            }
        }
        Ok(())
    }

    fn validate_splits(&self) -> Result<(), ConfigError> {
        for (name, versions) in &self.splits {
            let unknown = versions
                .keys()
                .find(|version| !self.destinations.contains_key(*version));
            let weights: u64 = versions.values().map(|weight| u64::from(*weight)).sum();
            let (key, reason) = if let Some(version) = unknown {
                let key = format!("splits.{name}.{version}");
                (key, "must be one of mesh.destinations")
            } else if weights == 0 {
                (format!("splits.{name}"), "must have a weight above 0")
            } else {
                continue;
            };
            return Err(ConfigError::new(key, reason));
        }
        Ok(())
    }

    /// Whether calls of the destination have somewhere to go.
    pub(crate) fn knows(&self, destination: &str) -> bool {
        self.destinations.contains_key(destination) || self.splits.contains_key(destination)
    }

    pub(crate) fn deadline_default(&self) -> Duration {
        Duration::from_millis(self.deadline_default_ms)
    }

    pub(crate) fn keepalive_interval(&self) -> Duration {
        Duration::from_millis(self.keepalive_interval_ms)
    }

    pub(crate) fn keepalive_timeout(&self) -> Duration {
        Duration::from_millis(self.keepalive_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Config::default().validate().unwrap();
    }

    #[test]
    fn a_limit_of_zero_is_refused_by_name() {
        let config = Config {
            message_bytes_max: 0,
            ..Config::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "mesh.message_bytes_max must not be 0");
    }

    #[test]
    fn a_window_the_protocol_cannot_express_is_refused_by_name() {
        let config = Config {
            stream_window_bytes: u32::MAX,
            ..Config::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(
            error.starts_with("mesh.stream_window_bytes must be between"),
            "{error}"
        );
    }

    #[test]
    fn a_limit_of_the_client_is_refused_by_its_whole_key() {
        let mut config = Config::default();
        config.client.pool.connections_max = 0;
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "mesh.client.pool.connections_max must not be 0");
        let mut config = Config::default();
        config.client.hedge.percentile = f64::NAN;
        let error = config.validate().unwrap_err().to_string();
        assert!(
            error.starts_with("mesh.client.hedge.percentile must be"),
            "{error}"
        );
    }

    #[test]
    fn a_bad_destination_is_refused_by_its_key() {
        let config = Config {
            destinations: BTreeMap::from([("product".to_owned(), "ftp://product:1".to_owned())]),
            ..Config::default()
        };
        let error = config.validate().unwrap_err().to_string();
        assert!(
            error.starts_with("mesh.destinations.product must start with http://"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_check_reads_what_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("product");
        let named = format!("file://{}", file.display());
        let config = Config::calling([("product", named.as_str())]);
        config.validate().unwrap();
        let error = config.check().await.unwrap_err();
        assert_eq!(error.key, "destinations.product");
        assert!(error.reason.contains("No such file"), "{error}");
        std::fs::write(&file, "http://127.0.0.1:1\nftp://product").unwrap();
        let error = config.check().await.unwrap_err();
        assert!(error.reason.contains("line 2 must start with"), "{error}");
        std::fs::write(&file, "http://127.0.0.1:1").unwrap();
        config.check().await.unwrap();

        let mut config = Config::default();
        let missing = folder.path().join("missing.pem");
        config.identity.mode = mesh_identity::Mode::Strict;
        config.identity.files = Some(mesh_identity::FilesConfig {
            certificate: missing.clone(),
            key: missing.clone(),
            bundle: missing,
            ..mesh_identity::FilesConfig::default()
        });
        let error = config.check().await.unwrap_err();
        assert!(error.key.starts_with("identity.files."), "{error}");
        assert!(error.reason.starts_with("cannot be read: "), "{error}");
    }
}
