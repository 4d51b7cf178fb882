//! The admin endpoint: `/livez`, `/readyz`, `/metrics` over HTTP/1.1, for kubelets, Prometheus and people; and the
//! [`Pages`] of whoever has more to show.
//!
//! Deliberately without TLS, authentication and anything that changes state: it listens where only the
//! machine or the cluster reaches it.

mod readiness;

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use readiness::{CheckReport, Readiness, Report};

use crate::open_metrics;

/// How many connections are served at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long answers in flight may take to leave after shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to pause after `accept` has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, BoxError>;
type AnswerFn = Arc<dyn Fn(&Uri) -> Option<Response<Body>> + Send + Sync>;

/// What is shown beside probes and metrics, such as `mesh::Mesh::inspect`. Cheap to clone.
#[derive(Clone, Default)]
pub struct Pages {
    answer: Option<AnswerFn>,
}

impl Pages {
    /// Nothing more.
    pub fn none() -> Self {
        Self::default()
    }

    /// Answers GET for what `/livez`, `/readyz` and `/metrics` are not; `None`: there is no such page. Must not block;
    /// a body may go on for as long as its reader stays, or until the shutdown.
    pub fn new<B>(answer: impl Fn(&Uri) -> Option<Response<B>> + Send + Sync + 'static) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let answer = move |uri: &Uri| {
            let boxed = |body: B| body.map_err(Into::into).boxed_unsync();
            Some(answer(uri)?.map(boxed))
        };
        Self {
            answer: Some(Arc::new(answer)),
        }
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

/// What the endpoint shows.
#[derive(Clone)]
struct Shown {
    registry: Registry,
    readiness: Readiness,
    pages: Pages,
}

/// Serves the admin endpoint until `shutdown`. Give it a token that is cancelled after the drain, so
/// that probes are answered (`/readyz` with 503) while it lasts.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    pages: Pages,
    shutdown: CancellationToken,
) {
    let shown = Shown {
        registry,
        readiness,
        pages,
    };
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = async {
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin endpoint cannot accept");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let connection = connection(stream, shown.clone(), shutdown.clone());
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    // What is left after the bound is a client that does not read its answer.
    let _ = crate::shutdown::drain(&connections, DRAIN_TIMEOUT).await;
}

async fn connection(stream: TcpStream, shown: Shown, shutdown: CancellationToken) {
    let serve = service_fn(move |request: Request<Incoming>| {
        let shown = shown.clone();
        async move { Ok::<_, Infallible>(shown.answer(&request).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), serve);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            timeout(DRAIN_TIMEOUT, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Shown {
    async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let (method, path) = (request.method(), request.uri().path());
        let own = matches!(path, "/livez" | "/readyz" | "/metrics");
        if method != Method::GET && method != Method::HEAD {
            let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
            refused
                .headers_mut()
                .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        if !own {
            let answer = self.pages.answer.as_ref();
            let page = answer.and_then(|answer| answer(request.uri()));
            let page = page.unwrap_or_else(|| {
                let hint = "see /livez, /readyz, /metrics, and /mesh/ where there is a mesh\n";
                respond(StatusCode::NOT_FOUND, TEXT, hint)
            });
            // A stream has nobody who reads it after HEAD.
            return match *method {
                Method::HEAD => page.map(|_| Empty::new().map_err(Into::into).boxed_unsync()),
                _ => page,
            };
        }
        match path {
            "/livez" => respond(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" => {
                let report = self.readiness.report().await;
                let status = if report.ready {
                    StatusCode::OK
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                let json =
                    serde_json::to_vec(&report).expect("a report is plain strings and flags");
                respond(status, "application/json", json)
            }
            _ => metrics(&self.registry, request.headers()),
        }
    }
}

fn metrics(registry: &Registry, headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let families = registry.gather();
    if open_metrics::is_accepted(accept) {
        let text = open_metrics::encode(&families);
        return respond(StatusCode::OK, open_metrics::CONTENT_TYPE, text);
    }
    match open_metrics::encode_plain(families) {
        Ok(text) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, text),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            respond(status, TEXT, "metrics cannot be written\n")
        }
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let body = Full::new(body.into()).map_err(Into::into).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    struct Admin {
        address: SocketAddr,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    }

    async fn admin(registry: Registry, readiness: Readiness) -> Admin {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        let pages = Pages::new(|uri: &Uri| {
            let page = format!("{} by {:?}", uri.path(), uri.query());
            (uri.path() == "/shown").then(|| Response::new(Full::new(Bytes::from(page))))
        });
        let serving = serve(listener, registry, readiness, pages, shutdown.clone());
        tasks.spawn(serving);
        Admin {
            address,
            shutdown,
            tasks,
        }
    }

    impl Admin {
        async fn ask(&self, method: &str, path: &str) -> String {
            self.ask_for(method, path, "*/*").await
        }

        async fn ask_for(&self, method: &str, path: &str, accept: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        }
    }

    #[tokio::test]
    async fn live_ready_and_metrics_are_served_and_nothing_else() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("sold_total", "Sold.").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc_by(3);
        let admin = admin(registry, Readiness::new()).await;

        assert!(admin.ask("GET", "/livez").await.starts_with("HTTP/1.1 200"));
        let ready = admin.ask("GET", "/readyz").await;
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        assert!(ready.ends_with(r#"{"ready":true,"checks":[]}"#), "{ready}");
        let metrics = admin.ask("GET", "/metrics").await;
        assert!(
            metrics.contains("sold_total 3") && !metrics.contains("# EOF"),
            "{metrics}"
        );
        let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        let metrics = admin.ask_for("GET", "/metrics", accept).await;
        assert!(metrics.contains("content-type: application/openmetrics-text; version=1.0.0"));
        assert!(metrics.ends_with("sold_total 3.0\n# EOF\n"), "{metrics}");
        assert!(admin.ask("GET", "/").await.starts_with("HTTP/1.1 404"));
        let refused = admin.ask("POST", "/livez").await;
        assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD"));
    }

    #[tokio::test]
    async fn pages_are_shown_where_nothing_else_is() {
        let admin = admin(Registry::new(), Readiness::new()).await;
        let shown = admin.ask("GET", "/shown?a=b").await;
        assert!(shown.starts_with("HTTP/1.1 200") && shown.ends_with("/shown by Some(\"a=b\")"));
        let head = admin.ask("HEAD", "/shown").await;
        assert!(
            head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        assert!(
            admin
                .ask("GET", "/hidden")
                .await
                .starts_with("HTTP/1.1 404")
        );
        assert!(
            admin
                .ask("POST", "/shown")
                .await
                .starts_with("HTTP/1.1 405")
        );
    }

    #[tokio::test]
    async fn a_failing_check_is_named_with_its_reason() {
        let readiness = Readiness::new();
        readiness.check("store", || async { Ok(()) });
        readiness.check("broker", || async { Err("connection refused".to_owned()) });
        let admin = admin(Registry::new(), readiness).await;
        let answer = admin.ask("GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap();
        let expected = serde_json::json!({"ready": false, "checks": [
            {"name": "store", "ready": true},
            {"name": "broker", "ready": false, "reason": "connection refused"},
        ]});
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(body).unwrap(),
            expected
        );
    }

    #[tokio::test]
    async fn a_stopping_process_is_live_but_not_ready() {
        let readiness = Readiness::new();
        let admin = admin(Registry::new(), readiness.clone()).await;
        readiness.stop();
        assert!(admin.ask("GET", "/livez").await.starts_with("HTTP/1.1 200"));
        let answer = admin.ask("GET", "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("shutting down"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn it_ends_with_its_token_even_while_a_client_stays_connected() {
        let admin = admin(Registry::new(), Readiness::new()).await;
        let mut idle = TcpStream::connect(admin.address).await.unwrap();
        admin.shutdown.cancel();
        crate::shutdown::drain(&admin.tasks, Duration::from_secs(5))
            .await
            .unwrap();
        assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    }
}
