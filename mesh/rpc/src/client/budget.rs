//! How many retries and hedges a destination's callers may add: a share of the calls of the last seconds
//! and a small free rate. After Finagle's `RetryBudget`: without it, retries turn an overload into an
//! outage (gRFC A6 throttles for the same reason).
//!
//! Time is cut into slots; what a slot earned or spent is forgotten when it is older than the TTL.

use std::sync::atomic::{
    AtomicI64, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};

use super::{
    clock::{Nanos, millis},
    config::RetryConfig,
};

const SLOTS: usize = 10;
/// What one retry costs; a call earns `budget_percent` of it.
const RETRY: i64 = 100;

#[derive(Debug)]
pub(crate) struct Budget {
    slots: [Slot; SLOTS],
    slot_length: Nanos,
    earned_per_call: i64,
    /// What is free within a TTL.
    reserve: i64,
}

#[derive(Debug, Default)]
struct Slot {
    number: AtomicU64,
    balance: AtomicI64,
}

impl Budget {
    pub(crate) fn new(config: &RetryConfig) -> Self {
        let free = u64::from(config.budget_min_per_s).saturating_mul(config.budget_ttl_ms) / 1000;
        Self {
            slots: Default::default(),
            slot_length: (millis(config.budget_ttl_ms) / SLOTS as u64).max(1),
            earned_per_call: config.budget_percent.into(),
            reserve: i64::try_from(free)
                .unwrap_or(i64::MAX / RETRY)
                .saturating_mul(RETRY),
        }
    }

    /// A call is made.
    pub(crate) fn earn(&self, now: Nanos) {
        self.slot(now)
            .balance
            .fetch_add(self.earned_per_call, Relaxed);
    }

    /// Whether one more attempt may be made; if so, it is paid for. Under contention it may be one too
    /// many per thread.
    pub(crate) fn spend(&self, now: Nanos) -> bool {
        if self.balance(now) < RETRY {
            return false;
        }
        self.slot(now).balance.fetch_sub(RETRY, Relaxed);
        true
    }

    /// How many retries could be made now.
    pub(crate) fn retries_left(&self, now: Nanos) -> u64 {
        u64::try_from(self.balance(now) / RETRY).unwrap_or(0)
    }

    fn balance(&self, now: Nanos) -> i64 {
        let number = self.number(now);
        let live = |slot: &&Slot| number - slot.number.load(Relaxed).min(number) < SLOTS as u64;
        let earned: i64 = self
            .slots
            .iter()
            .filter(live)
            .map(|slot| slot.balance.load(Relaxed))
            .sum();
        earned.saturating_add(self.reserve)
    }

    fn number(&self, now: Nanos) -> u64 {
        // From SLOTS on, so that a fresh slot is never taken for one of now.
        now / self.slot_length + SLOTS as u64
    }

    fn slot(&self, now: Nanos) -> &Slot {
        let number = self.number(now);
        let slot = &self.slots[usize::try_from(number % SLOTS as u64).unwrap_or(0)];
        let held = slot.number.load(Relaxed);
        if held < number
            && slot
                .number
                .compare_exchange(held, number, AcqRel, Relaxed)
                .is_ok()
        {
            slot.balance.store(0, Relaxed);
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(percent: u32, min_per_s: u32) -> Budget {
        Budget::new(&RetryConfig {
            budget_percent: percent,
            budget_min_per_s: min_per_s,
            budget_ttl_ms: 10_000,
            ..RetryConfig::default()
        })
    }

    fn spend_all(budget: &Budget, now: Nanos) -> usize {
        (0..100_000).take_while(|_| budget.spend(now)).count()
    }

    #[test]
    fn a_share_of_the_calls_and_a_free_rate_can_be_spent() {
        let budget = budget(20, 3);
        for _ in 0..1000 {
            budget.earn(millis(5));
        }
        assert_eq!(budget.retries_left(millis(5)), 230);
        assert_eq!(spend_all(&budget, millis(5)), 200 + 30);
        assert!(!budget.spend(millis(5)));
    }

    #[test]
    fn what_was_earned_is_forgotten() {
        let budget = budget(100, 0);
        for _ in 0..50 {
            budget.earn(millis(500));
        }
        assert_eq!(budget.retries_left(millis(9_900)), 50);
        assert_eq!(budget.retries_left(millis(10_500)), 0);
    }

    #[test]
    fn what_was_spent_is_forgotten_too() {
        let budget = budget(0, 2);
        assert_eq!(spend_all(&budget, millis(100)), 20);
        assert!(!budget.spend(millis(9_000)));
        assert_eq!(spend_all(&budget, millis(10_100)), 20);
    }

    #[test]
    fn a_year_later_it_works_the_same() {
        let budget = budget(20, 0);
        let year = millis(365 * 24 * 3_600_000);
        for _ in 0..10 {
            budget.earn(year);
        }
        assert_eq!(spend_all(&budget, year), 2);
    }
}
