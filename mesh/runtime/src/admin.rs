//! The admin endpoint: `/livez`, `/readyz`, `/metrics` over HTTP/1.1, for kubelets, Prometheus and people.
//!
//! Deliberately without TLS, authentication and anything that changes state: it listens where only the
//! machine or the cluster reaches it.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder as _, Registry, TextEncoder};
use serde::Serialize;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How many connections are served at a time.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send a request's headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one readiness check may take before it counts as failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long answers in flight may take to leave after shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to pause after `accept` has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type CheckFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type CheckFn = Arc<dyn Fn() -> CheckFuture + Send + Sync>;

#[derive(Clone)]
struct Check {
    name: String,
    ask: CheckFn,
    required: bool,
}

/// The named checks that decide whether this process should get traffic. Cheap to clone; the clones
/// share their checks. Without any it is ready.
#[derive(Clone, Default)]
pub struct Readiness {
    checks: Arc<RwLock<Vec<Check>>>,
    stopping: CancellationToken,
}

/// What the checks said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether every required check passed.
    pub ready: bool,
    /// Each check, in the order of registration.
    pub checks: Vec<CheckReport>,
}

/// What one check said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub ready: bool,
    /// Whether traffic goes elsewhere when it does not; shown where it does not matter.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub required: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Readiness {
    /// Ready, until checks say otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that runs with every question, concurrently with the others and for at most two
    /// seconds. Its error is shown to whoever can reach the admin endpoint.
    pub fn check<F>(&self, name: impl Into<String>, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name.into(), Arc::new(move || Box::pin(check())), true);
    }

    /// Adds a check that is shown and decides nothing: of what the process can do without for a while.
    pub fn warning<F>(&self, name: impl Into<String>, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name.into(), Arc::new(move || Box::pin(check())), false);
    }

    fn add(&self, name: String, ask: CheckFn, required: bool) {
        // A list of checks is whole even if a thread panicked while it held the lock.
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.push(Check {
            name,
            ask,
            required,
        });
    }

    /// From now on not ready, so that traffic goes elsewhere while the process drains.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Asks every check.
    pub async fn report(&self) -> Report {
        let checks = self
            .checks
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut reports = join_all(checks.into_iter().map(|check| async move {
            let outcome = timeout(CHECK_TIMEOUT, (check.ask)())
                .await
                .unwrap_or_else(|_| Err(format!("no answer within {CHECK_TIMEOUT:?}")));
            CheckReport {
                name: check.name,
                ready: outcome.is_ok(),
                required: check.required,
                reason: outcome.err(),
            }
        }))
        .await;
        if self.stopping.is_cancelled() {
            let reason = Some("shutting down".to_owned());
            reports.push(CheckReport {
                name: "shutdown".to_owned(),
                ready: false,
                required: true,
                reason,
            });
        }
        Report {
            ready: reports
                .iter()
                .all(|report| report.ready || !report.required),
            checks: reports,
        }
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness").finish_non_exhaustive()
    }
}

/// Serves the admin endpoint until `shutdown`. Give it a token that is cancelled after the drain, so
/// that probes are answered (`/readyz` with 503) while it lasts.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
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
        let connection = connection(
            stream,
            registry.clone(),
            readiness.clone(),
            shutdown.clone(),
        );
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
    // What is left after the bound is a client that does not read its answer.
    let _ = crate::shutdown::drain(&connections, DRAIN_TIMEOUT).await;
}

async fn connection(
    stream: TcpStream,
    registry: Registry,
    readiness: Readiness,
    shutdown: CancellationToken,
) {
    let serve = service_fn(move |request: Request<Incoming>| {
        let (registry, readiness) = (registry.clone(), readiness.clone());
        async move {
            Ok::<_, Infallible>(
                answer(
                    request.method(),
                    request.uri().path(),
                    &registry,
                    &readiness,
                )
                .await,
            )
        }
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

async fn answer(
    method: &Method,
    path: &str,
    registry: &Registry,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return respond(
            StatusCode::NOT_FOUND,
            TEXT,
            "see /livez, /readyz, /metrics\n",
        );
    }
    if method != Method::GET && method != Method::HEAD {
        let mut refused = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n");
        refused
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match path {
        "/livez" => respond(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => {
            let report = readiness.report().await;
            let status = if report.ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            let json = serde_json::to_vec(&report).expect("a report is plain strings and flags");
            respond(status, "application/json", json)
        }
        _ => {
            let mut text = Vec::new();
            match TextEncoder::new().encode(&registry.gather(), &mut text) {
                Ok(()) => respond(StatusCode::OK, prometheus::TEXT_FORMAT, text),
                Err(error) => {
                    tracing::error!(%error, "metrics cannot be written");
                    respond(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        TEXT,
                        "metrics cannot be written\n",
                    )
                }
            }
        }
    }
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
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
        tasks.spawn(serve(listener, registry, readiness, shutdown.clone()));
        Admin {
            address,
            shutdown,
            tasks,
        }
    }

    impl Admin {
        async fn ask(&self, method: &str, path: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
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
        assert!(metrics.contains("sold_total 3"), "{metrics}");
        assert!(admin.ask("GET", "/").await.starts_with("HTTP/1.1 404"));
        let refused = admin.ask("POST", "/livez").await;
        assert!(refused.starts_with("HTTP/1.1 405") && refused.contains("allow: GET, HEAD"));
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
    async fn a_failing_warning_is_shown_and_decides_nothing() {
        let readiness = Readiness::new();
        readiness.warning("broker", || async { Err("connection refused".to_owned()) });
        let report = readiness.report().await;
        let shown = serde_json::json!({"ready": true, "checks": [
            {"name": "broker", "ready": false, "required": false, "reason": "connection refused"},
        ]});
        assert_eq!(serde_json::to_value(report).unwrap(), shown);
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_counts_as_failed() {
        let readiness = Readiness::new();
        readiness.check("store", std::future::pending::<Result<(), String>>);
        let report = readiness.report().await;
        assert!(!report.ready);
        assert_eq!(
            report.checks[0].reason.as_deref(),
            Some("no answer within 2s")
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
