//! Four hops under one deadline: when it passes, or the caller goes away, nobody works on whom nobody waits for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use mesh::{CallContext, Config, Principal};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tonic::Code;

use crate::support::{PATIENCE, Served, TestService, count, one, percentile, serve};

const HOPS: usize = 4;
const DEADLINE: Duration = Duration::from_millis(200);
const CONCURRENT: usize = 10;
/// How much later than a bare timer a hop may stop.
const OVERRUN_MAX: Duration = Duration::from_millis(5);
/// How long after a cancellation a handler may work on.
const STOPPED_WITHIN: Duration = Duration::from_millis(10);

/// A handler at work. Dropped, it tells who has stopped, and when.
struct Working(usize, mpsc::UnboundedSender<(usize, Instant)>);

impl Drop for Working {
    fn drop(&mut self) {
        // A test that no longer listens has seen what it wanted.
        let _ = self.1.send((self.0, Instant::now()));
    }
}

struct Chain {
    /// From the front to the back, which never answers.
    servers: Vec<Served>,
    stopped: mpsc::UnboundedReceiver<(usize, Instant)>,
    /// How many calls are at the back.
    arrived: Arc<AtomicUsize>,
    /// How much work that was detached at the second hop goes on, until it is let go.
    detached: Arc<AtomicUsize>,
    let_go: watch::Sender<bool>,
}

impl Chain {
    async fn begin() -> Self {
        let (stopping, stopped) = mpsc::unbounded_channel();
        let (arrived, detached) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let let_go = watch::Sender::new(false);
        let mut servers: Vec<Served> = Vec::new();
        for hop in (0..HOPS).rev() {
            let next = servers.last().map(Served::client);
            let (stopping, arrived) = (stopping.clone(), arrived.clone());
            let (detached, let_go) = (detached.clone(), let_go.clone());
            let service = TestService::new(move |method, _| {
                let (next, working) = (next.clone(), Working(hop, stopping.clone()));
                let arrived = arrived.clone();
                if hop == 1 {
                    detach(detached.clone(), let_go.subscribe());
                }
                async move {
                    let _working = working;
                    if let Some(next) = next {
                        return next.unary(&method, "").await.map(one);
                    }
                    arrived.fetch_add(1, SeqCst);
                    std::future::pending().await
                }
            });
            servers.push(serve(Config::default(), service).await);
        }
        servers.reverse();
        Self {
            servers,
            stopped,
            arrived,
            detached,
            let_go,
        }
    }

    /// When so many calls have stopped at each hop. Nobody is waited for who goes on.
    async fn stopped(&mut self, calls: usize) -> Vec<Vec<Instant>> {
        let mut at = vec![Vec::new(); HOPS];
        while at.iter().any(|at| at.len() < calls) {
            let (hop, when) = timeout(PATIENCE, self.stopped.recv())
                .await
                .expect("a handler works on")
                .expect("the servers live");
            at[hop].push(when);
        }
        at
    }

    async fn arrived(&self, calls: usize) {
        let arriving = async {
            while self.arrived.load(SeqCst) < calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(PATIENCE, arriving).await.expect("the calls arrive");
    }
}

/// Work that nobody's going away ends.
fn detach(count: Arc<AtomicUsize>, mut let_go: watch::Receiver<bool>) {
    count.fetch_add(1, SeqCst);
    let work = mesh::detach(async move {
        // The sender lives as long as the test.
        let _ = let_go.wait_for(|let_go| *let_go).await;
        count.fetch_sub(1, SeqCst);
    });
    #[expect(clippy::disallowed_methods, reason = "detach has said what is carried")]
    drop(tokio::spawn(work));
}

/// How long after its moment each hop has stopped, and timers beside them have fired that wait for the same moment: what
/// those are late by is the machine's.
struct Late {
    hops: Vec<Vec<Duration>>,
    timers: Vec<Duration>,
}

impl Late {
    fn new() -> Self {
        Self {
            hops: vec![Vec::new(); HOPS],
            timers: Vec::new(),
        }
    }

    fn add(&mut self, moment: Instant, stopped: Vec<Vec<Instant>>, fired: Vec<Instant>) {
        let late = |at: Instant| at.saturating_duration_since(moment);
        for (hop, at) in self.hops.iter_mut().zip(stopped) {
            hop.extend(at.into_iter().map(late));
        }
        self.timers.extend(fired.into_iter().map(late));
    }

    /// Prints all of it. On a machine of one's own (`MESH_TEST_RATES=1`) no hop may be later than the timers by more than
    /// this at the 99th percentile.
    fn judge(mut self, what: &str, overrun_max: Duration) {
        let bare = percentile(&mut self.timers, 99);
        let median = percentile(&mut self.timers, 50);
        println!("bare timers fire {median:?} after {what} (p50), {bare:?} (p99)");
        for (hop, late) in (1..).zip(&mut self.hops) {
            let (p50, p99) = (percentile(late, 50), percentile(late, 99));
            let overrun = p99.saturating_sub(bare);
            println!(
                "hop {hop} stops {p50:?} after {what} (p50), {p99:?} (p99), {overrun:?} of it ours"
            );
            assert!(
                count("MESH_TEST_RATES", 0) == 0 || overrun <= overrun_max,
                "hop {hop} stops {overrun:?} later than a timer"
            );
        }
    }
}

/// When each of as many timers as there are calls fires.
fn timers(moment: Instant) -> JoinSet<Instant> {
    let mut timers = JoinSet::new();
    for _ in 0..CONCURRENT {
        timers.spawn(async move {
            tokio::time::sleep_until(moment.into()).await;
            Instant::now()
        });
    }
    timers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_deadline_of_four_hops_nobody_works_on() {
    let rounds = count("MESH_TEST_HOPS", 3);
    let mut chain = Chain::begin().await;
    let client = chain.servers[0].client();
    let mut late = Late::new();
    for _ in 0..rounds {
        let deadline = Instant::now() + DEADLINE;
        let timers = timers(deadline);
        let calls = (0..CONCURRENT).map(|_| {
            let context = CallContext::root(Principal::anonymous());
            let context = context.with_deadline(Some(deadline.into()));
            context.scope(client.unary("Post", ""))
        });
        for outcome in join_all(calls).await {
            let status = outcome.unwrap_err();
            assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        }
        // A call that a busy machine has kept from the last hop ends where it is.
        let arrived = chain.arrived.swap(0, SeqCst);
        let stopped = chain.stopped(arrived).await;
        late.add(deadline, stopped, timers.join_all().await);
    }
    late.judge("the deadline", OVERRUN_MAX);
    drop(client);
    assert!(chain.detached.load(SeqCst) > 0, "what was detached goes on");
    chain.let_go.send(true).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_cancellation_nobody_works_on_but_what_was_detached() {
    let mut chain = Chain::begin().await;
    let client = chain.servers[0].client();
    let calling = (0..CONCURRENT).map(|_| {
        let client = client.clone();
        mesh::spawn(async move { client.unary("Post", "").await })
    });
    let calling: Vec<_> = calling.collect();
    chain.arrived(CONCURRENT).await;
    let cancelled = Instant::now();
    let timers = timers(cancelled);
    for call in calling {
        call.abort();
    }
    let stopped = chain.stopped(CONCURRENT).await;
    let mut late = Late::new();
    late.add(cancelled, stopped, timers.join_all().await);
    late.judge("the cancellation", STOPPED_WITHIN);
    assert_eq!(chain.detached.load(SeqCst), CONCURRENT);
    chain.let_go.send(true).unwrap();
    let ended = async {
        while chain.detached.load(SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("and ends by itself");
}
