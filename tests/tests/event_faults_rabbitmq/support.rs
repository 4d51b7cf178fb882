//! What these tests share: how much is asked for, when to kill, a flow of events, and a watch over its progress.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use mesh_events::Event;
use tests::events::{
    KIND,
    stage::{Consume, Rows, Stage, Worker},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

/// The program that is killed.
pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_event-worker");

/// How long nothing at all may happen: an outage, and the lease of a relay that died in it.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Events committed at once.
const BATCH: usize = 250;
/// Events that may be on their way before more are committed; those that no queue takes do not count.
const BACKLOG_MAX: i64 = 2_000;

/// A number from the environment: the long form asks for more.
#[expect(
    clippy::disallowed_methods,
    reason = "how long a test runs is no configuration"
)]
pub(crate) fn asked(name: &str, short: i64) -> i64 {
    match std::env::var(name) {
        Ok(number) => number.parse().expect("a whole number"),
        Err(_) => short,
    }
}

/// When to kill so many times on the way to `end`: at even distances.
pub(crate) struct Marks(VecDeque<i64>);

impl Marks {
    pub(crate) fn new(times: i64, end: i64) -> Marks {
        Marks((1..=times).map(|n| end * n / (times + 1)).collect())
    }

    /// Whether the next one is reached. Says so once.
    pub(crate) fn reached(&mut self, at: i64) -> bool {
        let reached = self.0.front().is_some_and(|mark| *mark <= at);
        if reached {
            self.0.pop_front();
        }
        reached
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// Fails a test in which nothing happens any more.
pub(crate) struct Watch {
    seen: i64,
    since: Instant,
}

impl Watch {
    pub(crate) fn new() -> Watch {
        Watch {
            seen: i64::MIN,
            since: Instant::now(),
        }
    }

    /// Notes how far things are; to be called before looking again.
    pub(crate) async fn at(&mut self, at: i64) {
        assert!(!self.is_stuck(at), "stuck at {at}");
        sleep(LOOK_INTERVAL).await;
    }

    fn is_stuck(&mut self, at: i64) -> bool {
        if at != self.seen {
            (self.seen, self.since) = (at, Instant::now());
        }
        self.since.elapsed() >= PATIENCE
    }
}

/// Events that are committed in the background, not faster than they have their effects, and counted.
pub(crate) struct Flow {
    committed: Arc<AtomicI64>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Flow {
    /// Pauses after each batch, so that the machine has time for what else is to be seen.
    pub(crate) fn start(
        stage: Arc<Stage>,
        events: impl Iterator<Item = Event> + Send + 'static,
        pause: Duration,
    ) -> Flow {
        let (committed, stop) = (Arc::new(AtomicI64::new(0)), CancellationToken::new());
        let (counting, stopped) = (committed.clone(), stop.clone());
        let task = mesh::spawn(async move {
            let (mut events, mut routable) = (events.peekable(), 0);
            while events.peek().is_some() && !stopped.is_cancelled() {
                if routable - stage.effects().await.unwrap() > BACKLOG_MAX {
                    sleep(LOOK_INTERVAL).await;
                    continue;
                }
                let batch: Vec<_> = events.by_ref().take(BATCH).collect();
                stage.append(&batch).await.unwrap();
                sleep(pause).await;
                for event in &batch {
                    counting.fetch_add(1, Ordering::Relaxed);
                    routable += i64::from(event.kind == KIND);
                }
            }
        });
        Flow {
            committed,
            stop,
            task,
        }
    }

    /// Events so far.
    pub(crate) fn committed(&self) -> i64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Commits no more. How many it were.
    pub(crate) async fn stop(self) -> i64 {
        self.stop.cancel();
        self.task.await.unwrap();
        self.committed.load(Ordering::Relaxed)
    }
}

/// Waits until every event has had an effect.
pub(crate) async fn all_applied(stage: &Stage, events: i64) {
    let mut watch = Watch::new();
    loop {
        let effects = stage.effects().await.unwrap();
        if effects >= events {
            return;
        }
        if watch.is_stuck(effects) {
            let pending = stage.pending(KIND).await.unwrap();
            panic!("stuck at {effects} of {events} events, {pending} in the outbox");
        }
        watch.at(effects).await;
    }
}

/// Waits until nothing is left for a consumer, and stops it.
pub(crate) async fn drain(stage: &Stage, consume: Consume<'_>, mut worker: Worker) {
    let mut watch = Watch::new();
    loop {
        loop {
            let ready = stage.lag(consume.name).await.unwrap().ready;
            if ready == 0 {
                break;
            }
            watch.at(i64::from(ready)).await;
        }
        worker.stop().await;
        let lag = stage.lag(consume.name).await.unwrap();
        if lag.ready + lag.waiting == 0 {
            assert_eq!(lag.dead, 0);
            return;
        }
        worker = stage.consumer(consume).unwrap(); // What it had not settled, or what waited.
    }
}

/// Prints what became of events, and fails if one is lost, doubled or dead.
pub(crate) async fn audit(stage: &Stage, consumer: &str, events: i64, started: Instant) {
    let Rows {
        applied,
        doubled,
        repeated,
    } = stage.rows().await.unwrap();
    let lag = stage.lag(consumer).await.unwrap();
    let rate = events * 1_000 / i64::try_from(started.elapsed().as_millis()).unwrap();
    println!(
        "{events} events in {:.1?}, {rate}/s, outages included: {} lost, {doubled} doubled, {} dead, \
         {repeated} delivered again",
        started.elapsed(),
        events - applied,
        lag.dead,
    );
    assert_eq!((applied, doubled), (events, 0));
    assert_eq!((lag.ready, lag.waiting, lag.dead), (0, 0, 0));
}
