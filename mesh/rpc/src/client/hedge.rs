//! When a slow read is sent a second time: after a percentile of the method's own latency, which is
//! learned as the calls go ("The Tail at Scale", Dean and Barroso 2013: hedged requests).
//!
//! The estimate is a histogram of logarithmic buckets (an eighth wide), halved now and then, so that it
//! follows the last few thousand calls; it costs one atomic addition per call.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::clock::{Nanos, float, nanos, whole};

/// Buckets per doubling.
const STEPS: usize = 8;
/// From 2^14 ns (16 us) over 22 doublings to 2^36 ns (69 s).
const FIRST: u32 = 14;
const DOUBLINGS: usize = 22;
const BUCKETS: usize = STEPS * DOUBLINGS;
/// How often the percentile is computed anew, in calls.
const RENEWED_AFTER: u32 = 64;
/// At this many calls all counts are halved.
const HALVED_AT: u32 = 8192;

/// The latencies of a method's last few thousand calls.
#[derive(Debug)]
pub(crate) struct Latencies {
    buckets: [AtomicU32; BUCKETS],
    calls: AtomicU32,
    /// Nanoseconds; 0: not known yet.
    percentile: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU32::new(0)),
            calls: AtomicU32::new(0),
            percentile: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    /// A call was answered after `latency`.
    pub(crate) fn record(&self, latency: Duration, percentile: f64, calls_min: u32) {
        self.buckets[bucket(nanos(latency))].fetch_add(1, Relaxed);
        let calls = self.calls.fetch_add(1, Relaxed) + 1;
        if calls >= calls_min && (calls == calls_min || calls.is_multiple_of(RENEWED_AFTER)) {
            self.renew(percentile);
        }
        if calls >= HALVED_AT {
            self.halve();
        }
    }

    /// The percentile that calls were last compared with; `None`: too few so far.
    pub(crate) fn percentile(&self) -> Option<Duration> {
        match self.percentile.load(Relaxed) {
            0 => None,
            known => Some(Duration::from_nanos(known)),
        }
    }

    fn renew(&self, percentile: f64) {
        let counts: Vec<u64> = self
            .buckets
            .iter()
            .map(|bucket| bucket.load(Relaxed).into())
            .collect();
        let all: u64 = counts.iter().sum();
        let below = whole((float(all) * percentile / 100.0).ceil());
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            seen >= below
        });
        if let Some(reached) = reached {
            self.percentile.store(upper(reached), Relaxed);
        }
    }

    fn halve(&self) {
        self.calls.store(HALVED_AT / 2, Relaxed);
        for bucket in &self.buckets {
            bucket.store(bucket.load(Relaxed) / 2, Relaxed);
        }
    }
}

fn bucket(latency: Nanos) -> usize {
    let latency = latency.max(1 << FIRST);
    let doubling = latency.ilog2();
    let within = usize::try_from((latency >> (doubling - 3)) & 7).unwrap_or(0);
    (((doubling - FIRST) as usize) * STEPS + within).min(BUCKETS - 1)
}

/// The end of a bucket.
fn upper(bucket: usize) -> Nanos {
    let doubling = FIRST as usize + bucket / STEPS;
    let within = bucket % STEPS + 1;
    (1 << doubling) + ((within as u64) << (doubling - 3))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn every_latency_lies_below_the_end_of_its_bucket() {
        for latency in [1, 20_000, 999_999, 1_000_000, 1 << 35, (1 << 36) - 1] {
            let end = upper(bucket(latency));
            assert!(latency < end, "{latency} {end}");
            assert!(
                latency < 1 << FIRST || end <= latency + latency / 7,
                "{latency} {end}"
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_percentile_is_met_within_an_eighth() {
        let seed = 7;
        let mut random = StdRng::seed_from_u64(seed);
        let latencies = Latencies::default();
        for _ in 0..5_000 {
            // 1 to 101 ms, evenly: the 99th percentile is 100 ms.
            let latency = Duration::from_micros(random.random_range(1_000..101_000));
            latencies.record(latency, 99.0, 200);
        }
        let estimate = latencies.percentile().unwrap().as_secs_f64() * 1000.0;
        assert!(
            (99.0..114.0).contains(&estimate),
            "seed {seed}: {estimate} ms"
        );
    }

    #[test]
    fn it_follows_a_change() {
        let latencies = Latencies::default();
        for _ in 0..8_000 {
            latencies.record(Duration::from_millis(100), 99.0, 200);
        }
        for _ in 0..60_000 {
            latencies.record(Duration::from_millis(1), 99.0, 200);
        }
        assert!(latencies.percentile().unwrap() < Duration::from_millis(2));
    }

    #[test]
    fn nothing_is_known_of_a_few_calls() {
        let latencies = Latencies::default();
        for _ in 0..199 {
            latencies.record(Duration::from_millis(1), 99.0, 200);
        }
        assert_eq!(latencies.percentile(), None);
        latencies.record(Duration::from_millis(1), 99.0, 200);
        assert!(latencies.percentile().is_some());
    }
}
