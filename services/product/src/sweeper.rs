//! Comes by from time to time: writes down which holds have expired and forgets what has been kept
//! long enough, a bounded batch at a time, so that it never holds the writer for long.
//!
//! Nothing waits for it: an expired hold can be bought again at once, whether or not it has come by.

use std::{sync::Arc, time::Duration};

use mesh_runtime::Clock;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    config::SweepConfig,
    error::Error,
    store::{Horizon, Store},
};

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Holds written down as expired.
    pub expired: u32,
    /// Rows forgotten.
    pub trimmed: u64,
}

/// One round at a moment: every overdue hold, and everything that is past its time.
pub async fn sweep(store: &dyn Store, config: &SweepConfig, now_us: i64) -> Result<Swept, Error> {
    let mut swept = Swept::default();
    loop {
        let expired = store.expire_overdue(now_us, config.batch_max).await?;
        swept.expired += expired;
        if expired < config.batch_max {
            break;
        }
    }
    let horizon = horizon(config, now_us);
    loop {
        let trimmed = store.trim(&horizon, config.batch_max).await?;
        swept.trimmed += trimmed;
        if trimmed == 0 {
            return Ok(swept);
        }
    }
}

/// Sweeps until `shutdown`.
pub async fn run(
    store: Arc<dyn Store>,
    config: SweepConfig,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let mut ticks = interval(Duration::from_millis(config.interval_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let round = sweep(&*store, &config, clock.now_us());
        match shutdown.run_until_cancelled(round).await {
            None => return,
            Some(Ok(swept)) if swept == Swept::default() => {}
            Some(Ok(swept)) => {
                tracing::debug!(expired = swept.expired, trimmed = swept.trimmed, "swept");
            }
            Some(Err(error)) => tracing::warn!(%error, "not swept"),
        }
    }
}

fn horizon(config: &SweepConfig, now_us: i64) -> Horizon {
    let before = |hours: u32| now_us - i64::from(hours) * 3_600_000_000;
    Horizon {
        answers_us: before(config.answers_hours),
        inbox_us: before(config.inbox_hours),
        changes_us: before(config.changes_hours),
        reservations_us: before(config.reservations_hours),
    }
}
