//! Goes on with payments that nobody carries out: after a crash, after a pause, when an outcome is
//! to be looked up, when something runs out. Any number of replicas may run: the lease decides.

use crate::config::ServiceConfig;
use crate::error::Error;
use crate::saga::Saga;
use crate::store::{Retention, Store};
use kernel::PaymentId;
use mesh::{CallContext, Principal};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

const HOUR_US: i64 = 3_600_000_000;

/// The worker.
pub struct Worker {
    store: Arc<dyn Store>,
    saga: Saga,
    config: ServiceConfig,
    running: Arc<Mutex<BTreeSet<PaymentId>>>,
}

impl Worker {
    /// Over these parts.
    pub fn new(store: Arc<dyn Store>, saga: Saga, config: ServiceConfig) -> Self {
        Self {
            store,
            saga,
            config,
            running: Arc::default(),
        }
    }

    /// Works until `shutdown`, then waits for the payments under way.
    pub async fn run(&self, shutdown: CancellationToken) {
        let tasks = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(self.config.worker_tasks_max.max(1)));
        let mut poll = interval(Duration::from_millis(self.config.worker_poll_ms.max(1)));
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sweep_every = Duration::from_secs(self.config.sweep_every_s.max(1));
        let mut swept = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = poll.tick() => {}
            }
            if let Err(error) = self.start_due(&tasks, &slots).await {
                warn!(%error, "payments that are due wait");
            }
            if swept.elapsed() >= sweep_every {
                swept = Instant::now();
                if let Err(error) = self.sweep().await {
                    warn!(%error, "old rows were not swept");
                }
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Goes on with everything that is due now, one after the other; says how many payments.
    pub async fn run_once(&self) -> Result<usize, Error> {
        let due = self.store.due(self.saga.now_us(), 1_000).await?;
        for payment in &due {
            let context = CallContext::root(Principal::anonymous());
            context.scope(self.saga.resume(*payment)).await?;
        }
        Ok(due.len())
    }

    async fn start_due(&self, tasks: &TaskTracker, slots: &Arc<Semaphore>) -> Result<(), Error> {
        let free = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX);
        if free == 0 {
            return Ok(());
        }
        for payment in self.store.due(self.saga.now_us(), free).await? {
            let Some(under_way) = UnderWay::begin(&self.running, payment) else {
                continue;
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                break;
            };
            let saga = self.saga.clone();
            let context = CallContext::root(Principal::anonymous());
            tasks.spawn(context.scope(async move {
                if let Err(error) = saga.resume(payment).await {
                    warn!(payment.id = %payment, %error, "payment waits");
                }
                drop((under_way, slot));
            }));
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<u64, Error> {
        let now_us = self.saga.now_us();
        let before = |hours: u32| now_us - i64::from(hours) * HOUR_US;
        self.store
            .sweep(Retention {
                answers_before_us: before(self.config.answers_keep_h.max(24)),
                changes_before_us: before(self.config.changes_keep_h),
                webhooks_before_us: before(self.config.webhooks_keep_h),
                windows_before_us: before(1), // A replica's clock may lag behind.
                rows_max: self.config.sweep_rows_max,
            })
            .await
    }
}

/// A payment that this worker goes on with, until this is dropped, be it by a panic.
struct UnderWay {
    running: Arc<Mutex<BTreeSet<PaymentId>>>,
    payment: PaymentId,
}

impl UnderWay {
    /// Nothing where it is under way already.
    fn begin(running: &Arc<Mutex<BTreeSet<PaymentId>>>, payment: PaymentId) -> Option<Self> {
        let running = running.clone();
        let begun = lock(&running).insert(payment);
        begun.then_some(Self { running, payment })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.running).remove(&self.payment);
    }
}

fn lock(set: &Mutex<BTreeSet<PaymentId>>) -> std::sync::MutexGuard<'_, BTreeSet<PaymentId>> {
    set.lock().unwrap_or_else(PoisonError::into_inner) // A set of ids is whole at any time.
}
