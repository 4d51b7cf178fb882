//! The end of a server, and how the calls of a connection learn that they have to end before their time.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::life::Why;

/// How long the last frames may take to leave after everything was told to end.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// The end of a server, step by step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    /// No new calls.
    pub(crate) begun: CancellationToken,
    /// Streams without a deadline end.
    pub(crate) grace_over: CancellationToken,
    /// Every call ends.
    pub(crate) cut: CancellationToken,
    /// Connections close, whatever is still on them.
    pub(crate) closed: CancellationToken,
    /// Connections and the calls on them.
    pub(crate) tasks: TaskTracker,
}

impl Drain {
    /// Closes every connection when the server's future is dropped before it has drained: no call may
    /// outlive its server.
    pub(crate) fn close_on_drop(&self) -> DropGuard {
        self.closed.clone().drop_guard()
    }

    /// Lets calls in flight go on for at most `bound`, streams without a deadline for at most `stream_grace`.
    pub(crate) async fn run(&self, stream_grace: Duration, bound: Duration) {
        self.tasks.close();
        self.begun.cancel();
        let ended = async {
            if timeout(stream_grace, self.tasks.wait()).await.is_err() {
                self.grace_over.cancel();
                self.tasks.wait().await;
            }
        };
        if timeout(bound, ended).await.is_ok() {
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

/// When the calls of one connection have to end: with the server, or with the connection. A request
/// extension. Its tokens are the connection's own, so that calls of different connections share no lock; cloning them
/// takes one, cloning this does not.
#[derive(Clone, Debug)]
pub(crate) struct Closing(Arc<Tokens>);

#[derive(Debug)]
struct Tokens {
    begun: CancellationToken,
    grace_over: CancellationToken,
    cut: CancellationToken,
    why: OnceLock<Why>,
}

impl Closing {
    /// Of a new connection.
    pub(crate) fn new(drain: &Drain) -> Self {
        Self(Arc::new(Tokens {
            begun: drain.begun.child_token(),
            grace_over: drain.grace_over.child_token(),
            cut: drain.cut.child_token(),
            why: OnceLock::new(),
        }))
    }

    /// The server goes away.
    pub(crate) async fn begun(&self) {
        self.0.begun.cancelled().await;
    }

    /// Ends every call of the connection.
    pub(crate) fn cut(&self, why: Why) {
        let _ = self.0.why.set(why); // The first reason is the one.
        self.0.cut.cancel();
    }

    /// Resolves when a call has to end, and says why. A stream that never ends by itself would hold up every shutdown
    /// to its bound, so one without a deadline has a grace of its own.
    pub(crate) async fn closed(&self, has_deadline: bool) -> Why {
        tokio::select! {
            biased;
            () = self.0.cut.cancelled() => {}
            () = self.0.grace_over.cancelled(), if !has_deadline => {}
        }
        self.why()
    }

    /// Whether that has come, and why.
    pub(crate) fn has_closed(&self, has_deadline: bool) -> Option<Why> {
        let closed =
            self.0.cut.is_cancelled() || (!has_deadline && self.0.grace_over.is_cancelled());
        closed.then(|| self.why())
    }

    fn why(&self) -> Why {
        self.0.why.get().copied().unwrap_or(Why::Drain)
    }
}
