//! HTTP to a provider: connections that are kept, TLS by the certificates of the system, and what a failure to
//! get an answer says about the command.
//!
//! Deliberately missing: retries and deadlines (the saga owns both, and drops a call that takes too long) and
//! HTTP/2 (a provider's limits are reached long before those of its connections).

use super::ProviderError;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kernel::Invalid;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

/// Idle connections are dropped before the other end does it, which would look like a lost answer.
const IDLE: Duration = Duration::from_secs(10);
/// How many of them are kept.
const IDLE_MAX: usize = 64;
/// The longest answer that is read: a page of a hundred transactions with what they are about.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Calls one provider. Sends a request again only where none of it had left.
pub(super) struct Caller {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Caller {
    /// Of the provider at `url`, which the configuration has under `key`. Plain HTTP only to this machine: the
    /// secret key travels in each request.
    pub(super) fn new(key: &str, url: &str, connect_timeout: Duration) -> Result<Self, Invalid> {
        let parsed: Option<Uri> = url.parse().ok();
        let scheme = parsed.as_ref().and_then(Uri::scheme_str);
        let host = parsed.as_ref().and_then(Uri::host).unwrap_or_default();
        let tls = match scheme {
            Some("https") if !host.is_empty() => true,
            Some("http") if is_loopback(host) => false,
            _ => {
                let reason =
                    format!("must be https://host, or http:// on this machine, not \"{url}\"");
                return Err(Invalid::new(key, reason));
            }
        };
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(connect_timeout));
        http.set_nodelay(true);
        http.enforce_http(false);
        let provider = aws_lc_rs::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let builder = if tls {
            let trusting = builder.with_provider_and_native_roots(provider);
            trusting
                .map_err(|error| Invalid::new(key, format!("no certificates to trust: {error}")))?
        } else {
            let trusting_nobody = ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| Invalid::new(key, error.to_string()))?
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth();
            builder.with_tls_config(trusting_nobody)
        };
        let connector = builder.https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Ok(Self {
            client,
            base: url.trim_end_matches('/').to_owned(),
        })
    }

    /// The URL of a path.
    pub(super) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Sends a request. What could not connect was never sent; of what was sent and not answered, nobody knows.
    pub(super) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, ProviderError> {
        let answer = self.client.request(request).await.map_err(|error| {
            let reason = chain(&error);
            if error.is_connect() {
                ProviderError::Unavailable(reason)
            } else {
                ProviderError::Unknown(reason)
            }
        })?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect();
        let body = body
            .await
            .map_err(|error| ProviderError::Unknown(chain(&*error)))?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || address
            .parse()
            .is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// Asking twice is harmless, so nothing about a question is unknown.
pub(super) fn asked(error: ProviderError) -> ProviderError {
    match error {
        ProviderError::Unknown(reason) => ProviderError::Unavailable(reason),
        other => other,
    }
}

/// An error with its causes: hyper's own texts say little.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let texts: Vec<String> = causes.map(ToString::to_string).collect();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_travels_in_the_clear() {
        let new = |url| Caller::new("stripe.url", url, Duration::from_secs(1)).err();
        for url in [
            "http://127.0.0.1:8420",
            "http://[::1]:1/",
            "http://localhost:1",
        ] {
            assert_eq!(new(url), None, "{url}");
        }
        for url in [
            "http://api.stripe.com",
            "ftp://127.0.0.1",
            "api.stripe.com",
            "",
        ] {
            let error = new(url).expect(url).to_string();
            assert!(
                error.starts_with("stripe.url: must be https://host"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn what_could_not_connect_was_never_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let caller = Caller::new("url", &url, Duration::from_secs(1)).unwrap();
        let request = Request::post(caller.at("/")).body(Full::default()).unwrap();
        let error = caller.send(request).await.err();
        assert!(
            matches!(error, Some(ProviderError::Unavailable(_))),
            "{error:?}"
        );
    }
}
