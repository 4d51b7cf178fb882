//! Connections: HTTP/1.1 and HTTP/2 on one port, each with limits in time and size; and the drain.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    middleware,
    routing::get,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    api, app::App, config::LimitsConfig, error::Refusal, health, linger::lingering, pages,
};

/// The first bytes of a connection that speaks HTTP/2 (RFC 9113, section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long until a client that is in the middle of them is looked at again.
const PEEK_PAUSE: Duration = Duration::from_millis(5);
/// How long to pause after `accept` has failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Requests at a time on one HTTP/2 connection.
const H2_STREAMS_MAX: u32 = 256;
/// The buffer of one HTTP/1 connection never shrinks below this.
const H1_BUFFER_BYTES_MIN: usize = 8192;

/// Everything that answers: the pages, and the API behind every other path.
fn routes(app: &Arc<App>) -> Router {
    Router::new()
        .route("/", get(pages::landing))
        .route("/healthz", get(health::handle))
        .route("/openapi.json", get(pages::openapi))
        .route("/docs", get(pages::docs))
        .route("/docs/", get(pages::docs))
        .route("/docs/{*file}", get(pages::docs_file))
        .method_not_allowed_fallback(pages::method_not_allowed)
        .fallback(api::handle)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(
            Arc::clone(app),
            api::envelope,
        ))
        .layer(middleware::map_request_with_state(
            Arc::clone(app),
            lingering_body,
        ))
        .with_state(Arc::clone(app))
}

async fn lingering_body(State(app): State<Arc<App>>, request: Request) -> Request {
    request.map(|body| lingering(body, &app.config.limits))
}

/// A bug in one request is not the end of its connection, nor a text for its client.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that the layer asks for"
)]
fn panicked(payload: Box<dyn std::any::Any + Send>) -> http::Response<Body> {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic");
    Refusal::internal(&text).response("")
}

/// Serves until the shutdown and a little longer, until those who send requests have learned of it; then lets what is
/// in flight finish within the configured time.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>) {
    let limits = &app.config.limits;
    let (graceful, connections) = (GracefulShutdown::new(), TaskTracker::new());
    let leaving = async {
        app.stopping.cancelled().await;
        sleep(Duration::from_millis(limits.drain_wait_ms)).await;
        app.draining.cancel();
    };
    tokio::join!(take_in(listener, &app, &graceful, &connections), leaving);
    connections.close();
    app.sockets.close();
    let drained = async {
        graceful.shutdown().await;
        connections.wait().await;
        app.sockets.wait().await;
    };
    if timeout(Duration::from_millis(limits.drain_timeout_ms), drained)
        .await
        .is_err()
    {
        let (connections, sockets) = (connections.len(), app.sockets.len());
        tracing::warn!(
            connections,
            sockets,
            "drain timed out; cutting off what is left"
        );
    }
}

/// Serves every connection that comes until the drain begins.
async fn take_in(
    listener: TcpListener,
    app: &Arc<App>,
    graceful: &GracefulShutdown,
    connections: &TaskTracker,
) {
    let limits = &app.config.limits;
    let builder = Arc::new(builder(limits));
    let slots = Arc::new(Semaphore::new(limits.connections_max));
    let routes = routes(app);
    let between = Duration::from_millis(limits.keepalive_interval_ms);
    let keepalive = TcpKeepalive::new()
        .with_time(between)
        .with_interval(between);
    while let Some((socket, slot)) = accept(&listener, &slots, &app.draining, &keepalive).await {
        let service = TowerToHyperService::new(routes.clone());
        let first_byte = Duration::from_millis(limits.header_timeout_ms);
        let (builder, watcher) = (Arc::clone(&builder), graceful.watcher());
        let stopping = app.draining.clone();
        connections.spawn(mesh::carry(async move {
            let _slot: OwnedSemaphorePermit = slot;
            let peeking = stopping.run_until_cancelled(timeout(first_byte, version_known(&socket)));
            if !matches!(peeking.await, Some(Ok(Ok(())))) {
                return;
            }
            let connection = builder
                .serve_connection_with_upgrades(TokioIo::new(socket), service)
                .into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(error, "connection ended early");
            }
        }));
    }
}

/// Waits until a client has said which HTTP it speaks: no timer of hyper's runs before.
async fn version_known(socket: &TcpStream) -> std::io::Result<()> {
    let mut bytes = [0; H2_PREFACE.len()];
    loop {
        let said = socket.peek(&mut bytes).await?;
        if said == 0 || said == H2_PREFACE.len() || bytes[..said] != H2_PREFACE[..said] {
            return Ok(());
        }
        sleep(PEEK_PAUSE).await; // What was peeked is there still, and would be seen at once.
    }
}

fn builder(limits: &LimitsConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_headers(limits.headers_max)
        .max_buf_size(limits.header_bytes_max.max(H1_BUFFER_BYTES_MIN));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(Duration::from_millis(limits.keepalive_interval_ms)));
    builder
}

/// The next connection and the slot it takes; `None` once the edge drains.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    draining: &CancellationToken,
    keepalive: &TcpKeepalive,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let accepting = async {
        let slot = Arc::clone(slots)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    // An answer is one write: waiting to fill a packet only delays it.
                    if let Err(error) = socket.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY cannot be set");
                    }
                    // A client that is gone without a word is noticed, also where nothing is to be sent.
                    if let Err(error) = SockRef::from(&socket).set_tcp_keepalive(keepalive) {
                        tracing::debug!(%error, "TCP keepalive cannot be set");
                    }
                    return (socket, slot);
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    draining.run_until_cancelled(accepting).await
}
