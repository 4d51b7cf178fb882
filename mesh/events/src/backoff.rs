//! How long to wait before the next attempt: exponential, capped, with jitter, so that those who
//! failed together do not come back together ("Exponential Backoff And Jitter", AWS Architecture Blog).

use std::time::Duration;

/// Doubles from `min_ms` to `max_ms`, then takes off up to `jitter` of it at random.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The wait after the first failure, in milliseconds.
    pub min_ms: u64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
    /// The part of each wait that is random: 0 always waits the whole, 1 anything down to nothing.
    pub jitter: f64,
}

impl Backoff {
    /// The wait after this many failures in a row; one or none is the first.
    pub fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(63);
        let wait_ms = self.min_ms.saturating_mul(1 << doublings).min(self.max_ms);
        let kept = 1.0 - self.jitter.clamp(0.0, 1.0) * rand::random::<f64>();
        Duration::from_millis(wait_ms).mul_f64(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let backoff = Backoff {
            min_ms: 100,
            max_ms: 1_000,
            jitter: 0.0,
        };
        let waits: Vec<_> = [0, 1, 2, 3, 4, 5, 1_000]
            .map(|n| backoff.after(n).as_millis())
            .into();
        assert_eq!(waits, [100, 100, 200, 400, 800, 1_000, 1_000]);
    }

    #[test]
    fn jitter_only_shortens() {
        let backoff = Backoff {
            min_ms: 100,
            max_ms: 100,
            jitter: 0.5,
        };
        let waits: Vec<_> = (0..200).map(|_| backoff.after(1)).collect();
        assert!(waits.iter().all(|w| (50..=100).contains(&w.as_millis())));
        assert!(
            waits.iter().any(|w| w.as_millis() < 90),
            "two hundred waits and none shortened"
        );
    }
}
