//! The connections of the protocol, with limits in number and time; and the drain.

use super::calls::Calls;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many connections are served at a time; further ones wait in the kernel's backlog.
const CONNECTIONS_MAX: usize = 1024;
/// How long a caller may take to send a request's headers, and how long an idle connection is kept.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers in flight may take to leave after shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// How long to pause after `accept` has failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown`, then lets what is in flight finish; what is silent ends at once.
pub async fn serve(listener: TcpListener, calls: Calls, shutdown: CancellationToken) {
    let calls = Arc::new(calls);
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let connections = TaskTracker::new();
    let accepting = |slots: Arc<Semaphore>| accept(&listener, slots);
    while let Some((stream, slot)) = shutdown.run_until_cancelled(accepting(slots.clone())).await {
        let (calls, stopping) = (calls.clone(), shutdown.clone());
        let service = service_fn(move |request| {
            let (calls, stopping) = (calls.clone(), stopping.clone());
            async move { calls.answer(request, &stopping).await }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let watched = graceful.watch(connection);
        connections.spawn(async move {
            let _slot: OwnedSemaphorePermit = slot;
            if let Err(error) = watched.await {
                tracing::debug!(%error, "connection ended early");
            }
        });
    }
    drop(listener);
    let drained = async {
        graceful.shutdown().await;
        connections.close();
        connections.wait().await;
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        let connections = connections.len();
        tracing::warn!(connections, "drain timed out; cutting off what is left");
    }
}

/// The next connection, and the slot it takes.
async fn accept(
    listener: &TcpListener,
    slots: Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = slots.acquire_owned().await;
    let slot = slot.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is one write: waiting to fill a packet only delays it.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY cannot be set");
                }
                return (stream, slot);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
