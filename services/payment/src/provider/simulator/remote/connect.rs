//! The HTTP client of both directions: commands to the simulator, webhooks from it.

use bytes::Bytes;
use http::Uri;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kernel::Invalid;
use std::time::Duration;

/// Idle connections are dropped before the other end does it, which would look like a lost answer.
const IDLE: Duration = Duration::from_secs(10);
/// How many of them are kept.
const IDLE_MAX: usize = 64;

/// Keeps its connections; sends a request again only where none of it had left.
pub(super) type HttpClient = Client<HttpConnector, Full<Bytes>>;

pub(super) fn http_client(connect_timeout: Duration) -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(IDLE_MAX)
        .build(connector)
}

/// Reads a URL that the client can reach; `key` is where it is configured.
pub(super) fn http_url(key: &str, url: &str) -> Result<Uri, Invalid> {
    let read: Option<Uri> = url.parse().ok();
    read.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
        .ok_or_else(|| Invalid::new(key, format!("must be http://host:port, not \"{url}\"")))
}
