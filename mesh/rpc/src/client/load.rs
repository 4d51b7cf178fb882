//! How busy an endpoint is: its latency, as a peak-sensitive moving average, times its calls in flight.
//!
//! The average follows a rise at once and a fall slowly (Finagle's "Peak EWMA"); it also fades while no
//! call is made, so that an endpoint that was slow is tried again. A failure counts as a slow answer:
//! failing fast must not look attractive.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::clock::{Nanos, float};

/// What an endpoint costs that has calls in flight and has never answered one.
const UNKNOWN: f64 = 1e9;
/// Below this, latencies count as the same and only the calls in flight matter.
const LATENCY_MIN: f64 = 1_000.0;
/// The least and the most that a failure counts for: 10 ms and 2 s.
const PENALTY_MIN: f64 = 1e7;
const PENALTY_MAX: f64 = 2e9;

/// The load of one endpoint. Updates of the average may overwrite each other: one sample more or less
/// changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Load {
    in_flight: AtomicU32,
    /// Nanoseconds, as bits of an `f64`; 0: nothing is known.
    average: AtomicU64,
    measured_at: AtomicU64,
}

impl Load {
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Nanoseconds; 0: nothing is known.
    pub(crate) fn latency(&self, now: Nanos, decay: Nanos) -> f64 {
        f64::from_bits(self.average.load(Relaxed)) * self.fade(now, decay)
    }

    /// Comparable between endpoints. `share` is the endpoint's weight beside the mean one.
    pub(crate) fn cost(&self, now: Nanos, decay: Nanos, share: f64) -> f64 {
        let in_flight = f64::from(self.in_flight()) / share;
        let latency = self.latency(now, decay);
        if latency == 0.0 && in_flight > 0.0 {
            return UNKNOWN * in_flight;
        }
        latency.max(LATENCY_MIN) * (in_flight + 1.0)
    }

    /// An answer came after `latency`.
    pub(crate) fn answered(&self, latency: Nanos, now: Nanos, decay: Nanos) {
        let (sample, average) = (float(latency), f64::from_bits(self.average.load(Relaxed)));
        let average = if sample > average {
            sample
        } else {
            let weight = self.fade(now, decay);
            average * weight + sample * (1.0 - weight)
        };
        self.store(average.max(1.0), now);
    }

    /// The call failed after `latency`.
    pub(crate) fn failed(&self, latency: Nanos, now: Nanos, decay: Nanos) {
        let average = self.latency(now, decay);
        let penalty = (2.0 * average).clamp(PENALTY_MIN, PENALTY_MAX);
        self.store(penalty.max(average).max(float(latency)), now);
    }

    /// Nobody waited for the answer any longer: it would have taken at least this long.
    pub(crate) fn abandoned(&self, latency: Nanos, now: Nanos, decay: Nanos) {
        if float(latency) > self.latency(now, decay) {
            self.store(float(latency), now);
        }
    }

    fn store(&self, average: f64, now: Nanos) {
        self.average.store(average.to_bits(), Relaxed);
        self.measured_at.store(now, Relaxed);
    }

    fn fade(&self, now: Nanos, decay: Nanos) -> f64 {
        let age = now.saturating_sub(self.measured_at.load(Relaxed));
        (-float(age) / float(decay)).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::clock::millis;

    const DECAY: Nanos = millis(10_000);
    const MS: f64 = 1e6;

    #[test]
    fn a_rise_counts_at_once_and_a_fall_slowly() {
        let load = Load::default();
        load.answered(millis(1), millis(1), DECAY);
        load.answered(millis(50), millis(2), DECAY);
        assert!((load.latency(millis(2), DECAY) / MS - 50.0).abs() < 0.1);
        load.answered(millis(1), millis(3), DECAY);
        assert!(load.latency(millis(3), DECAY) > 49.0 * MS);
        let mut now = millis(3);
        for _ in 0..30_000 {
            now += millis(1);
            load.answered(millis(1), now, DECAY);
        }
        let latency = load.latency(now, DECAY) / MS;
        assert!(
            (1.0..4.0).contains(&latency),
            "after three decays: {latency}"
        );
    }

    #[test]
    fn what_was_slow_is_forgotten_without_calls() {
        let load = Load::default();
        load.answered(millis(1000), 1, DECAY);
        assert!(load.latency(millis(100_000), DECAY) < 0.1 * MS);
    }

    #[test]
    fn cost_grows_with_calls_in_flight_and_an_unknown_endpoint_gets_one_call() {
        let (known, fresh) = (Load::default(), Load::default());
        known.answered(millis(5), 1, DECAY);
        let idle = known.cost(1, DECAY, 1.0);
        known.begin();
        assert!((known.cost(1, DECAY, 1.0) - 2.0 * idle).abs() < 1.0);
        assert!(fresh.cost(1, DECAY, 1.0) < idle, "it is tried");
        fresh.begin();
        assert!(
            fresh.cost(1, DECAY, 1.0) > known.cost(1, DECAY, 1.0),
            "with one call"
        );
    }

    #[test]
    fn failing_fast_is_not_attractive() {
        let load = Load::default();
        load.answered(millis(5), 1, DECAY);
        let before = load.cost(1, DECAY, 1.0);
        load.failed(1, 2, DECAY);
        assert!(load.cost(2, DECAY, 1.0) >= 1.9 * before);
        for _ in 0..20 {
            load.failed(1, 2, DECAY);
        }
        assert!(load.latency(2, DECAY) <= PENALTY_MAX, "bounded");
    }
}
