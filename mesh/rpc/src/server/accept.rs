//! The accept loop. Own, because tonic's has no limit on connections.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

use super::connection::Terms;

/// How long to pause after `accept` has failed for lack of something (files, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until `shutdown`, at most `connections_max` at a time.
pub(crate) async fn serve(
    listener: TcpListener,
    terms: Arc<Terms>,
    connections_max: usize,
    shutdown: &CancellationToken,
) {
    let metrics = &terms.metrics;
    let slots = Arc::new(Semaphore::new(connections_max));
    let next = async || {
        // The slot first: what cannot be served waits in the kernel's backlog.
        if slots.available_permits() == 0 {
            metrics.full.inc();
        }
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
        metrics.accepted.inc();
        let serving = terms.clone();
        terms.drain.tasks.spawn(async move {
            if let Err(error) = serving.serve(stream).await {
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
