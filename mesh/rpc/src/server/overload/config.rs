//! Configuration of the overload control.

use serde::{Deserialize, Serialize};

/// How the server protects itself against more calls than it can bear. Health and reflection are never
/// refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OverloadConfig {
    /// Whether calls are refused at all. Default: true.
    pub enabled: bool,
    /// How many calls may be in flight before anything is known of the load. Default: 256.
    pub limit_initial: usize,
    /// The limit never falls below this, however slow the calls are. Default: 32.
    pub limit_min: usize,
    /// The limit never rises above this. Default: 4096.
    pub limit_max: usize,
    /// Up to how much of its latency without load a call may take before the limit falls, in percent.
    /// Default: 150.
    pub tolerance_percent: u32,
    /// How many calls may wait for a place; beyond, the least critical one is refused. 0: none waits.
    /// Default: 1024.
    pub waiting_max: usize,
    /// How long a call may wait for a place, in milliseconds; sheddable ones wait for half a second at most, and for one
    /// mean latency only once the queue has not been empty for so long. Default: 2000.
    pub wait_ms: u64,
}

impl Default for OverloadConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            limit_initial: 256,
            limit_min: 32,
            limit_max: 4_096,
            tolerance_percent: 150,
            waiting_max: 1_024,
            wait_ms: 2_000,
        }
    }
}

impl OverloadConfig {
    /// The first key, with the reason, whose value cannot work.
    pub(crate) fn refusal(&self) -> Option<(&'static str, &'static str)> {
        if self.limit_min == 0 {
            return Some(("server.overload.limit_min", "must not be 0"));
        }
        if self.limit_max < self.limit_min {
            let reason = "must not be below server.overload.limit_min";
            return Some(("server.overload.limit_max", reason));
        }
        if !(self.limit_min..=self.limit_max).contains(&self.limit_initial) {
            let reason = "must lie between server.overload.limit_min and server.overload.limit_max";
            return Some(("server.overload.limit_initial", reason));
        }
        if !(110..=1_000).contains(&self.tolerance_percent) {
            let reason = "must be between 110 and 1000";
            return Some(("server.overload.tolerance_percent", reason));
        }
        None
    }
}
