//! The accept loop and the end of a server.
//!
//! Own loop over hyper's HTTP/2, because tonic's has no drain bound, no limit on connections, and ends
//! calls in flight with UNKNOWN when it rotates connections.
//!
//! Deliberately without TLS, connection rotation and HTTP/1: they come with identity and the edge.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
use tonic::{Status, body::Body, codegen::StdError as BoxError, transport::server::Connected as _};
use tower::ServiceExt as _;

use super::{ServerStack, greeting::Greeting};
use crate::Config;

/// How long to pause after `accept` has failed for lack of something (files, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the last frames may take to leave after everything was told to end.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The end of a server, in three steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    /// No new calls; streams without a deadline end.
    pub(crate) begun: CancellationToken,
    /// Every call ends.
    pub(crate) cut: CancellationToken,
    /// Connections close, whatever is still on them.
    closed: CancellationToken,
    /// Connections and the calls on them.
    tasks: TaskTracker,
}

impl Drain {
    /// Closes every connection when the server's future is dropped before it has drained: no call may
    /// outlive its server.
    pub(crate) fn close_on_drop(&self) -> DropGuard {
        self.closed.clone().drop_guard()
    }

    /// Lets calls in flight go on for at most `bound`.
    pub(crate) async fn run(&self, bound: Duration) {
        self.tasks.close();
        self.begun.cancel();
        if timeout(bound, self.tasks.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(
            tasks = self.tasks.len(),
            "calls in flight at the drain's bound are cut off"
        );
        self.cut.cancel();
        if timeout(FLUSH_TIMEOUT, self.tasks.wait()).await.is_ok() {
            return;
        }
        self.closed.cancel();
        if timeout(FLUSH_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::error!(
                tasks = self.tasks.len(),
                "handlers block the runtime and are left behind"
            );
        }
    }
}

/// Runs the calls of a connection where [`Drain`] can wait for them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Accepts connections until `shutdown`.
pub(crate) async fn serve(
    listener: TcpListener,
    stack: ServerStack,
    config: &Config,
    drain: &Drain,
    shutdown: &CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(config.server.connections_max));
    let http2 = builder(config, drain);
    let patience = Duration::from_millis(config.server.handshake_timeout_ms);
    let next = async || {
        // The slot first: what cannot be served waits in the kernel's backlog.
        let slot = slots
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        (slot, listener.accept().await)
    };
    loop {
        let (slot, accepted) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = next() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                accept_failed(&error).await;
                continue;
            }
        };
        let connection = connection(
            stream,
            http2.clone(),
            stack.clone(),
            drain.clone(),
            patience,
        );
        drain.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error = %error, "connection ended");
            }
            drop(slot);
        });
    }
}

/// Only a lack of something ours (files, memory) is worth a pause; a peer that hung up is not.
async fn accept_failed(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    ) {
        tracing::debug!(%error, "peer hung up before it was accepted");
    } else {
        tracing::error!(%error, "cannot accept connections");
        sleep(ACCEPT_PAUSE).await;
    }
}

fn builder(config: &Config, drain: &Drain) -> http2::Builder<Tracked> {
    let mut http2 = http2::Builder::new(Tracked(drain.tasks.clone()));
    http2
        .timer(TokioTimer::new())
        .max_concurrent_streams(config.server.streams_max)
        .max_header_list_size(config.header_bytes_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
        .keep_alive_interval(config.keepalive_interval())
        .keep_alive_timeout(config.keepalive_timeout());
    http2
}

async fn connection(
    stream: TcpStream,
    http2: http2::Builder<Tracked>,
    stack: ServerStack,
    drain: Drain,
    patience: Duration,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let peer = stream.connect_info();
    let serve = service_fn(move |request: Request<Incoming>| {
        let stack = stack.clone();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone()); // tonic's `Request::remote_addr`
        async move {
            Ok::<_, Infallible>(
                stack
                    .oneshot(request)
                    .await
                    .unwrap_or_else(Status::into_http),
            )
        }
    });
    let (stream, greeted) = Greeting::new(stream);
    let serving = http2.serve_connection(TokioIo::new(stream), serve);
    tokio::pin!(serving);
    let mut greeting = std::pin::pin!(timeout(patience, greeted.cancelled()));
    let (mut waiting, mut leaving) = (true, false);
    loop {
        tokio::select! {
            ended = &mut serving => return Ok(ended?),
            greeted = &mut greeting, if waiting => match greeted {
                Ok(()) => waiting = false,
                Err(_) => return Err("nothing that looks like HTTP/2 was said in time".into()),
            },
            () = drain.begun.cancelled(), if !leaving => {
                leaving = true;
                serving.as_mut().graceful_shutdown();
            }
            () = drain.closed.cancelled() => return Err("cut off at the drain's bound".into()),
        }
    }
}
