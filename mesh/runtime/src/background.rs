//! What a service does beside serving and cannot do without, such as publishing its events.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::shutdown::{self, NotDrained};

/// Tasks that run as long as their service does.
///
/// One that ends before it was asked to, by a panic too, cancels the service's shutdown. A service that went on without it
/// would look healthy while events or payments wait for ever; one that ends is started anew by whoever supervises it, and
/// goes on from what is stored (crash-only software: Candea and Fox, HotOS 2003).
#[derive(Debug)]
pub struct Background {
    tasks: TaskTracker,
    stop: CancellationToken,
    shutdown: CancellationToken,
    early: Arc<OnceLock<&'static str>>,
}

/// A task ended before it was asked to.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{task} ended although nobody asked it to")]
pub struct EndedEarly {
    /// Which.
    pub task: &'static str,
}

impl Background {
    /// None yet. They are asked to stop by `stop`, and one that does not wait for that cancels `shutdown`.
    pub fn new(stop: CancellationToken, shutdown: &CancellationToken) -> Self {
        Self {
            tasks: TaskTracker::new(),
            stop,
            shutdown: shutdown.clone(),
            early: Arc::default(),
        }
    }

    /// Starts a task; it is to end when its token is cancelled. `name` is for people.
    pub fn spawn<F>(&self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let running = run(self.stop.clone());
        let watched = Watched {
            name,
            stop: self.stop.clone(),
            shutdown: self.shutdown.clone(),
            early: self.early.clone(),
        };
        self.tasks.spawn(async move {
            let _watched = watched;
            running.await;
        });
    }

    /// Asks all tasks to stop and waits until they have, at most `bound`.
    pub async fn stop(&self, bound: Duration) -> Result<(), NotDrained> {
        self.stop.cancel();
        shutdown::drain(&self.tasks, bound).await
    }

    /// Whether each waited until it was asked to stop. To be called after [`Background::stop`].
    pub fn outcome(&self) -> Result<(), EndedEarly> {
        self.early
            .get()
            .map_or(Ok(()), |&task| Err(EndedEarly { task }))
    }
}

impl Drop for Background {
    /// Without an owner they stop by themselves.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Goes with a task, and sees how it ends.
struct Watched {
    name: &'static str,
    stop: CancellationToken,
    shutdown: CancellationToken,
    early: Arc<OnceLock<&'static str>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if thread::panicking() || !self.stop.is_cancelled() {
            tracing::error!(
                task = self.name,
                "ended although nobody asked it to: the service stops"
            );
            let _ = self.early.set(self.name); // The first is the cause.
            self.shutdown.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(1);

    fn background() -> (Background, CancellationToken) {
        let shutdown = CancellationToken::new();
        (
            Background::new(CancellationToken::new(), &shutdown),
            shutdown,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_end_when_asked() {
        let (background, shutdown) = background();
        background.spawn("relay", |stop| async move { stop.cancelled().await });
        assert_eq!(background.stop(BOUND).await, Ok(()));
        assert_eq!(background.outcome(), Ok(()));
        assert!(!shutdown.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_by_itself_ends_the_service() {
        for panics in [false, true] {
            let (background, shutdown) = background();
            background.spawn("consumer", |stop| async move { stop.cancelled().await });
            background.spawn("relay", move |_| async move { assert!(!panics, "as told") });
            shutdown.cancelled().await;
            assert_eq!(background.stop(BOUND).await, Ok(()));
            assert_eq!(background.outcome(), Err(EndedEarly { task: "relay" }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_while_stopping_is_no_orderly_end() {
        let (background, _) = background();
        background.spawn("relay", |stop| async move {
            stop.cancelled().await;
            panic!("as told")
        });
        assert_eq!(background.stop(BOUND).await, Ok(()));
        assert_eq!(background.outcome(), Err(EndedEarly { task: "relay" }));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_stop_is_counted() {
        let (background, _) = background();
        background.spawn("relay", |_| std::future::pending());
        let error = background.stop(BOUND).await.unwrap_err();
        assert_eq!((error.tasks, error.bound_ms), (1, 1_000));
        assert_eq!(background.outcome(), Ok(()));
    }

    #[tokio::test]
    async fn without_an_owner_they_stop() {
        let (background, shutdown) = background();
        let (ended, seen) = tokio::sync::oneshot::channel();
        background.spawn("relay", |stop| async move {
            stop.cancelled().await;
            let _ = ended.send(());
        });
        drop(background);
        seen.await.unwrap();
        assert!(!shutdown.is_cancelled());
    }
}
