//! Time as a number, so that it fits into an atomic.
//!
//! tokio's clock underneath: paused in tests.

use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds since the clock was made; 0 is never a time of something that has happened.
pub(crate) type Nanos = u64;

/// One per destination. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            epoch: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Nanos {
        nanos(self.epoch.elapsed()).saturating_add(1)
    }
}

/// Saturates after 584 years.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A time or a count as a number to reckon with.
#[expect(
    clippy::cast_precision_loss,
    reason = "52 bits are exact for 52 days of nanoseconds, and near enough for the rest"
)]
pub(crate) fn float(number: u64) -> f64 {
    number as f64
}

/// The inverse of [`float`], rounded down; negative: 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates"
)]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

/// Milliseconds as a configuration has them.
pub(crate) const fn millis(ms: u64) -> Nanos {
    ms.saturating_mul(1_000_000)
}
