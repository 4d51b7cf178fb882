//! What time it is, as an argument.
//!
//! Deliberately without sleeping and intervals: those are tokio's, whose time tests can pause. This is
//! the time of day that ends up in databases and events.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::SystemTime,
};

/// Microseconds since the Unix epoch, UTC: of the machine, or as a test sets them. Cheap to clone; the
/// clones of a manual clock are one clock.
#[derive(Clone)]
pub struct Clock {
    source: Source,
}

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self {
            source: Source::System,
        }
    }

    /// A clock that stands at `start_us` until [`Clock::advance`] moves it.
    pub fn manual(start_us: i64) -> Self {
        Self {
            source: Source::Manual(Arc::new(AtomicI64::new(start_us))),
        }
    }

    /// Microseconds since the Unix epoch, UTC.
    pub fn now_us(&self) -> i64 {
        match &self.source {
            Source::System => system_now_us(),
            Source::Manual(now_us) => now_us.load(Ordering::SeqCst),
        }
    }

    /// Moves a manual clock by `us` microseconds, backwards where negative.
    ///
    /// # Panics
    /// On the machine's clock, which nobody moves.
    pub fn advance(&self, us: i64) {
        match &self.source {
            Source::System => panic!("the machine's clock cannot be moved: use Clock::manual"),
            Source::Manual(now_us) => drop(now_us.fetch_add(us, Ordering::SeqCst)),
        }
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::System => f.write_str("Clock::system()"),
            Source::Manual(now_us) => write!(f, "Clock::manual({now_us:?})"),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that the ban points to"
)]
fn system_now_us() -> i64 {
    // A machine set before 1970 or after 292277 reads as those ends instead of failing.
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_moved_and_its_clones_move_along() {
        let clock = Clock::manual(1_000);
        let clone = clock.clone();
        assert_eq!(clone.now_us(), 1_000);
        clock.advance(500);
        clone.advance(-1);
        assert_eq!((clock.now_us(), clone.now_us()), (1_499, 1_499));
    }

    #[test]
    fn the_machines_clock_is_after_this_code_was_written() {
        let written_us = 1_735_689_600_000_000; // 2025-01-01T00:00:00Z
        assert!(Clock::system().now_us() > written_us);
    }

    #[test]
    #[should_panic(expected = "cannot be moved")]
    fn the_machines_clock_is_not_moved() {
        Clock::system().advance(1);
    }
}
