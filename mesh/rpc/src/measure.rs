//! What this workspace's benchmark cannot measure from outside. No part of the public API: it changes without notice.

use std::time::Duration;

/// How long it takes to pick one of so many connected endpoints, on average.
pub fn pick(endpoints: usize, picks: u32) -> Duration {
    crate::client::measure::pick(endpoints, picks)
}
