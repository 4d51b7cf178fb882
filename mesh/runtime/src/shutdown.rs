//! From a signal to a stop within a bound.
//!
//! Deliberately without an order of shutting down: each service's `run` knows its own.

use std::{io, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The exit code after a second signal: what a shell reports for an interrupted program.
const INTERRUPTED: i32 = 130;

/// A token that SIGINT (Ctrl-C) or SIGTERM cancels. The second signal ends the process at once with code
/// 130, whatever it is doing. To be called once, in `main`, inside the runtime.
pub fn on_signal() -> io::Result<CancellationToken> {
    let both = stream::select(
        arrivals("SIGINT", signal(SignalKind::interrupt())?),
        arrivals("SIGTERM", signal(SignalKind::terminate())?),
    );
    let shutdown = CancellationToken::new();
    let watching = watch(both, shutdown.clone(), |code| std::process::exit(code));
    #[expect(
        clippy::disallowed_methods,
        reason = "belongs to the process, not to a call"
    )]
    drop(tokio::spawn(watching)); // Never joined: it must outlive whatever hangs.
    Ok(shutdown)
}

fn arrivals(
    name: &'static str,
    signal: tokio::signal::unix::Signal,
) -> impl Stream<Item = &'static str> + Send + Unpin {
    Box::pin(stream::unfold(signal, move |mut signal| async move {
        signal.recv().await.map(|()| (name, signal))
    }))
}

async fn watch(
    mut signals: impl Stream<Item = &'static str> + Unpin,
    shutdown: CancellationToken,
    exit: impl FnOnce(i32),
) {
    if let Some(signal) = signals.next().await {
        tracing::info!(signal, "shutting down; once more ends at once");
        shutdown.cancel();
    }
    if let Some(signal) = signals.next().await {
        tracing::warn!(signal, "ending at once");
        exit(INTERRUPTED);
    }
}

/// Some tasks did not end in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{tasks} tasks did not end within {bound_ms} ms")]
pub struct NotDrained {
    /// How many.
    pub tasks: usize,
    /// How long they had, in milliseconds.
    pub bound_ms: u64,
}

/// Closes the tracker and waits until its tasks have ended, at most `bound`.
pub async fn drain(tracker: &TaskTracker, bound: Duration) -> Result<(), NotDrained> {
    tracker.close();
    timeout(bound, tracker.wait())
        .await
        .map_err(|_| NotDrained {
            tasks: tracker.len(),
            bound_ms: u64::try_from(bound.as_millis()).unwrap_or(u64::MAX),
        })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    };

    use tokio::time::{Instant, sleep};

    use super::*;

    async fn exit_code_after(signals: &'static [&'static str]) -> (bool, i32) {
        let (shutdown, code) = (CancellationToken::new(), Arc::new(AtomicI32::new(0)));
        let exit = code.clone();
        watch(
            stream::iter(signals.iter().copied()),
            shutdown.clone(),
            move |code| {
                exit.store(code, Ordering::SeqCst);
            },
        )
        .await;
        (shutdown.is_cancelled(), code.load(Ordering::SeqCst))
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_ends() {
        assert_eq!(exit_code_after(&[]).await, (false, 0));
        assert_eq!(exit_code_after(&["SIGTERM"]).await, (true, 0));
        assert_eq!(exit_code_after(&["SIGTERM", "SIGINT"]).await, (true, 130));
    }

    #[tokio::test]
    async fn a_signal_to_this_process_cancels_the_token() {
        let shutdown = on_signal().unwrap();
        let process = std::process::id().to_string();
        let kill = tokio::process::Command::new("kill")
            .args(["-TERM", &process])
            .status();
        assert!(kill.await.unwrap().success());
        timeout(Duration::from_secs(10), shutdown.cancelled())
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn draining_waits_for_the_last_task_and_no_longer() {
        let (tracker, started) = (TaskTracker::new(), Instant::now());
        tracker.spawn(sleep(Duration::from_millis(30)));
        assert_eq!(drain(&tracker, Duration::from_secs(1)).await, Ok(()));
        assert_eq!(started.elapsed().as_millis(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn draining_gives_up_at_its_bound_and_says_how_many_are_left() {
        let tracker = TaskTracker::new();
        tracker.spawn(std::future::pending::<()>());
        tracker.spawn(sleep(Duration::from_millis(30)));
        let error = drain(&tracker, Duration::from_millis(50))
            .await
            .unwrap_err();
        assert_eq!(
            error,
            NotDrained {
                tasks: 1,
                bound_ms: 50
            }
        );
    }
}
