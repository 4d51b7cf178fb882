//! One endpoint of a destination: its connections, its load, its reputation.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    clock::{Nanos, float, millis},
    config::BalanceConfig,
    discovery::Target,
    load::Load,
    outlier::Reputation,
    pool::{Pool, Shared},
};

/// Where slow start begins: with a tenth of the share.
const RAMP_MIN: f64 = 0.1;

pub(crate) struct Endpoint {
    /// Never reused within a process.
    pub(crate) id: u64,
    pub(crate) pool: Arc<Pool>,
    pub(crate) load: Load,
    pub(crate) reputation: Reputation,
    /// When it became one of several, or came back from an ejection; 0: it was there from the start.
    started_at: AtomicU64,
}

impl Endpoint {
    pub(crate) fn new(id: u64, target: Target, shared: Arc<Shared>, started_at: Nanos) -> Self {
        Self {
            id,
            pool: Pool::new(target, shared),
            load: Load::default(),
            reputation: Reputation::default(),
            started_at: AtomicU64::new(started_at),
        }
    }

    pub(crate) fn address(&self) -> &Arc<str> {
        &self.pool.target().address
    }

    /// Whether it serves as far as is known, or has not been asked yet.
    pub(crate) fn is_sound(&self, now: Nanos) -> bool {
        !self.pool.is_down() && !self.reputation.is_ejected(now)
    }

    /// Whether a call may go there now.
    pub(crate) fn is_usable(&self, now: Nanos) -> bool {
        self.pool.is_live() && !self.reputation.is_ejected(now)
    }

    /// Comparable between endpoints of a destination. `share` is its weight beside the mean one.
    pub(crate) fn cost(&self, now: Nanos, config: &BalanceConfig, share: f64) -> f64 {
        let cost = self.load.cost(now, millis(config.decay_ms), share);
        let started_at = self
            .started_at
            .load(Relaxed)
            .max(self.reputation.returned_at());
        if started_at == 0 {
            return cost;
        }
        let age = now.saturating_sub(started_at);
        let whole = millis(config.slow_start_ms);
        if age >= whole {
            return cost;
        }
        cost / (float(age) / float(whole)).max(RAMP_MIN)
    }
}
