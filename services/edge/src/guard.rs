//! What protects an edge without keys: it listens where only this machine reaches it, and web pages of
//! other origins, which a browser on this machine would carry here, are refused.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, StatusCode, Uri, header};
use tonic::Code;

use crate::{config::Config, error::Refusal};

/// Refuses an address that others can reach for an edge without keys, unless `insecure` says otherwise.
/// [`crate::run`] asks this of its listener; a program may ask it before it opens anything.
pub fn check_exposure(config: &Config, address: SocketAddr) -> anyhow::Result<()> {
    if config.keys.file.is_some() || config.insecure || address.ip().is_loopback() {
        return Ok(());
    }
    anyhow::bail!(
        "refusing to serve {address} without API keys: set keys.file (meshctl keys new makes one), \
         listen on 127.0.0.1, or say --insecure"
    )
}

/// Without keys, the name that the client used has to be one of this machine's own (a foreign name that
/// resolves to it is DNS rebinding), and a page that sends requests has to come from here.
pub(crate) fn check_origin(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |message: &str| {
        let http = StatusCode::FORBIDDEN;
        Err(Refusal::new(
            http,
            Code::PermissionDenied,
            "FOREIGN_ORIGIN",
            message,
        ))
    };
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &http::HeaderValue| value.to_str().ok())
    };
    let host = uri
        .authority()
        .map(http::uri::Authority::as_str)
        .or_else(|| text(header::HOST));
    let Some(host) = host else {
        return refuse("the Host header is missing");
    };
    if !is_local(host) {
        return refuse(
            "without API keys only localhost is served; the Host header names another host",
        );
    }
    match text(header::ORIGIN) {
        Some(origin) if origin.split_once("://").map(|(_, host)| host) != Some(host) => {
            refuse("without API keys web pages of other origins are refused")
        }
        _ => Ok(()),
    }
}

fn is_local(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else {
        return false;
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_served_with_keys_or_when_told_so() {
        let (here, there) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        let mut config = Config::default();
        assert!(check_exposure(&config, here).is_ok());
        assert!(check_exposure(&config, "[::1]:1".parse().unwrap()).is_ok());
        assert!(
            check_exposure(&config, there)
                .unwrap_err()
                .to_string()
                .contains("--insecure")
        );
        config.insecure = true;
        assert!(check_exposure(&config, there).is_ok());
        config = Config::default();
        config.keys.file = Some("keys.toml".into());
        assert!(check_exposure(&config, there).is_ok());
    }

    #[test]
    fn foreign_hosts_and_origins_are_refused() {
        for (host, origin, fine) in [
            (Some("127.0.0.1:8080"), None, true),
            (Some("localhost:8080"), None, true),
            (Some("LOCALHOST"), None, true),
            (Some("[::1]:8080"), None, true),
            (Some("127.0.0.1:8080"), Some("http://127.0.0.1:8080"), true),
            (Some("127.0.0.1:8080"), Some("http://127.0.0.1:9090"), false),
            (Some("127.0.0.1:8080"), Some("https://evil.example"), false),
            (Some("127.0.0.1:8080"), Some("null"), false),
            (Some("evil.example:8080"), None, false),
            (Some("localhost.evil.example"), None, false),
            (Some("evil@127.0.0.1"), None, true),
            (Some("192.168.0.1"), None, false),
            (Some(""), None, false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(host.map(|v| (header::HOST, v.parse().unwrap())));
            headers.extend(origin.map(|v| (header::ORIGIN, v.parse().unwrap())));
            let outcome = check_origin(&Uri::from_static("/v1/x"), &headers);
            assert_eq!(outcome.is_ok(), fine, "{host:?} {origin:?}");
        }
    }
}
