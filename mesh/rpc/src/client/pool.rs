//! The connections to one endpoint: made when they are needed, more of them under contention, fewer
//! when they are idle.
//!
//! A second connection pays because the calls on one share a lock and a task, and costs because what two have to say
//! leaves in smaller pieces, and a task that the kernel puts off has a queue of its own. Measured with 64 calls at a
//! time, three carry hardly more than one, and their latest hundredth takes three times as long; with 256 there is no
//! difference (docs/performance.md). So the first connection is filled up to `calls_per_connection`, or to three quarters
//! of the streams that the peer allows, so that the next one is there before it is full; what is above goes to the least
//! busy one while another is being opened, and waits where all streams are taken. The later ones fall idle first and are
//! closed.
//!
//! A connection that is lost while it is in use is replaced at once; one that cannot be had, or breaks before
//! its first answer, is tried again with exponential backoff and jitter, when a call asks for it. A peer that
//! goes away in good order has not failed, whether or not it has answered before.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{sync::Notify, time::timeout};
use tokio_util::task::TaskTracker;

use super::{
    clock::{Clock, Nanos, nanos},
    connect::Connect,
    connection::{self, Connection, Driver, End, Lease},
    discovery::Target,
    metrics::DestinationMetrics,
    retry::jitter,
};
use crate::live::Live;

/// What the endpoints of a destination have in common.
pub(crate) struct Shared {
    pub(crate) live: Live,
    pub(crate) clock: Clock,
    pub(crate) connector: Arc<dyn Connect>,
    pub(crate) metrics: DestinationMetrics,
    /// An endpoint can be used, or cannot any more.
    pub(crate) changed: Notify,
    /// A connection was lost, or could not be had: the endpoints may have moved.
    pub(crate) lost: Arc<Notify>,
    /// The tasks of the connections.
    pub(crate) tasks: TaskTracker,
}

pub(crate) struct Pool {
    target: Target,
    shared: Arc<Shared>,
    connections: ArcSwap<Vec<Arc<Connection>>>,
    live: AtomicUsize,
    dialing: AtomicBool,
    failures: AtomicU32,
    retry_at: AtomicU64,
    trouble: Mutex<Option<Arc<str>>>,
}

/// What a call finds.
pub(crate) enum Found {
    Lease(Lease),
    /// Every connection has as many calls waiting as may.
    Full,
    /// None has room, and one more is being opened.
    None,
}

impl Pool {
    pub(crate) fn new(target: Target, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            target,
            shared,
            connections: ArcSwap::default(),
            live: AtomicUsize::new(0),
            dialing: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            retry_at: AtomicU64::new(0),
            trouble: Mutex::default(),
        })
    }

    /// As if it had a connection, or had lost it: for tests and measurements.
    pub(crate) fn pretend(&self, live: bool) {
        self.live.store(usize::from(live), Release);
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Acquire) > 0
    }

    /// Whether there is no connection because there could be none.
    pub(crate) fn is_down(&self) -> bool {
        !self.is_live() && self.failures.load(Relaxed) > 0
    }

    pub(crate) fn is_dialing(&self) -> bool {
        self.dialing.load(Relaxed)
    }

    pub(crate) fn connections(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// Why the last attempt to connect failed; nothing once one has succeeded.
    pub(crate) fn trouble(&self) -> Option<Arc<str>> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<Arc<str>>) {
        let held = self.trouble.lock();
        *held.unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// When another attempt to connect may be made; in the past: now.
    pub(crate) fn retry_at(&self) -> Nanos {
        self.retry_at.load(Relaxed)
    }

    /// A place on a connection.
    pub(crate) fn lease(self: &Arc<Self>) -> Found {
        let config = self.shared.live.load();
        let connections = self.connections.load();
        let mut least: Option<(&Arc<Connection>, usize)> = None;
        for connection in connections.iter().filter(|connection| connection.is_open()) {
            let (calls, streams_max) = (connection.in_flight(), connection.streams_max());
            let enough = streams_max - streams_max / 4;
            if calls < config.client.pool.calls_per_connection.min(enough) {
                return Found::Lease(connection.lease());
            }
            let waiting = calls.saturating_sub(streams_max);
            if waiting < config.client.waiting_max && least.is_none_or(|(_, fewest)| calls < fewest)
            {
                least = Some((connection, calls));
            }
        }
        if connections.is_empty() {
            return Found::None;
        }
        if connections.len() < config.client.pool.connections_max {
            self.dial();
        }
        match least {
            // A stream of the next connection comes sooner than one of a full one.
            Some((connection, calls)) if calls >= connection.streams_max() && self.is_dialing() => {
                Found::None
            }
            Some((connection, _)) => Found::Lease(connection.lease()),
            None if connections.iter().any(|connection| connection.is_open()) => Found::Full,
            None => Found::None,
        }
    }

    /// Opens another connection, unless one is being opened or the last attempt failed just now.
    pub(crate) fn dial(self: &Arc<Self>) {
        if self.retry_at() <= self.shared.clock.now() {
            self.dial_now();
        }
    }

    /// The same, however short ago the last attempt failed.
    pub(crate) fn dial_now(self: &Arc<Self>) {
        if self.dialing.swap(true, AcqRel) {
            return;
        }
        let (pool, shared, target) = (
            Arc::downgrade(self),
            self.shared.clone(),
            self.target.clone(),
        );
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            let patience = Duration::from_millis(shared.live.load().client.connect_timeout_ms);
            let opened = match timeout(patience, open(&shared, &target)).await {
                Ok(opened) => opened,
                Err(_) => Err(format!("no connection within {} ms", patience.as_millis())),
            };
            match opened {
                Ok((connection, driver)) => keep(pool, shared, connection, driver).await,
                Err(trouble) => {
                    if let Some(pool) = pool.upgrade() {
                        shared.metrics.connects_failed.inc();
                        pool.back_off(&trouble);
                        pool.dialing.store(false, Release);
                        shared.lost.notify_one();
                        shared.changed.notify_waiters();
                    }
                }
            }
        });
    }

    fn back_off(&self, trouble: &str) {
        let failures = self.failures.fetch_add(1, Relaxed);
        let live = self.shared.live.load();
        let config = &live.client.pool;
        let pause = jitter(
            failures + 1,
            config.backoff_ms,
            config.backoff_max_ms,
            rand::random(),
        );
        tracing::debug!(
            endpoint = &*self.target.address,
            trouble,
            ?pause,
            "cannot connect"
        );
        self.set_trouble(Some(Arc::from(trouble)));
        self.retry_at
            .store(self.shared.clock.now() + nanos(pause), Relaxed);
    }

    fn admit(&self, connection: Arc<Connection>) {
        self.connections.rcu(|held| {
            let mut connections = Vec::clone(held);
            connections.push(connection.clone());
            connections
        });
        self.set_trouble(None);
        self.live.fetch_add(1, Release);
        self.dialing.store(false, Release);
        self.shared.metrics.connects_succeeded.inc();
        self.shared.metrics.connections.inc();
        self.shared.changed.notify_waiters();
    }

    fn remove(self: &Arc<Self>, connection: &Arc<Connection>, end: End) {
        connection.retire();
        self.connections.rcu(|held| {
            let others = held.iter().filter(|other| !Arc::ptr_eq(other, connection));
            others.cloned().collect::<Vec<_>>()
        });
        self.live.fetch_sub(1, Release);
        if connection.has_answered() {
            self.failures.store(0, Relaxed);
        }
        if end == End::Stale {
            self.dial();
        }
        if matches!(end, End::Left | End::Lost) {
            self.shared.metrics.disconnects.inc();
            self.shared.lost.notify_one();
            if connection.has_answered() {
                self.dial(); // In use: whoever calls next need not wait for it.
            } else if end == End::Lost {
                self.back_off("the connection ended before its first answer");
            }
        }
        self.shared.changed.notify_waiters();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for connection in self.connections.load().iter() {
            connection.retire();
        }
    }
}

async fn open(shared: &Shared, target: &Target) -> Result<(Arc<Connection>, Driver), String> {
    let opened = shared.connector.connect(target).await;
    let opened = opened.map_err(|error| error.to_string())?;
    connection::open(opened, &shared.live.whole())
        .await
        .map_err(|error| error.to_string())
}

/// The life of a connection.
async fn keep(
    pool: Weak<Pool>,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
    mut driver: Driver,
) {
    let Some(held) = pool.upgrade() else { return };
    held.admit(connection.clone());
    drop(held);
    let end = driver.run(&connection).await;
    if let Some(pool) = pool.upgrade() {
        pool.remove(&connection, end);
    }
    driver.drain(&connection).await;
    shared.metrics.connections.dec();
}
