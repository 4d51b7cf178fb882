//! Which endpoints get no calls for a while, because calls there fail: gRFC A50 (success rate beside the
//! others', failure percentage), and a number of failures in a row, which acts at once.
//!
//! An ejection lasts longer each time; who returns starts slowly (see `endpoint.rs`), and the next
//! failures in a row eject it again. Not everybody may be ejected: at most a share of all, and when too
//! few sound endpoints are left (the panic floor) all ejections end.
//!
//! Without a task of its own: the first call that ends after an interval compares the rates.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::{
    balance::Set,
    clock::{Nanos, float, millis},
    config::OutlierConfig,
    endpoint::Endpoint,
    metrics::DestinationMetrics,
};

/// How an attempt ended, as far as it says something of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// The endpoint's fault.
    Failure,
    /// Too slow for its caller: counts in rates, and not as one of a row, because it may be the caller's
    /// fault.
    Late,
}

/// What is known of an endpoint's successes and failures.
#[derive(Debug, Default)]
pub(crate) struct Reputation {
    successes: AtomicU32,
    failures: AtomicU32,
    in_a_row: AtomicU32,
    ejected_until: AtomicU64,
    ejections: AtomicU32,
}

impl Reputation {
    pub(crate) fn is_ejected(&self, now: Nanos) -> bool {
        self.ejected_until.load(Relaxed) > now
    }

    /// When the last ejection ends or ended; 0: there was none.
    pub(crate) fn returned_at(&self) -> Nanos {
        self.ejected_until.load(Relaxed)
    }

    fn eject(&self, now: Nanos, config: &OutlierConfig) -> Nanos {
        let ejections = self.ejections.fetch_add(1, Relaxed) + 1;
        let lasts_ms = config.ejection_ms.saturating_mul(ejections.into());
        let until = now + millis(lasts_ms.min(config.ejection_max_ms));
        self.in_a_row.store(0, Relaxed);
        self.ejected_until.store(until, Relaxed);
        until
    }

    fn pardon(&self, now: Nanos) {
        if self.is_ejected(now) {
            self.ejected_until.store(now, Relaxed);
        }
    }
}

/// Watches over the endpoints of a destination.
pub(crate) struct Outliers {
    config: OutlierConfig,
    metrics: DestinationMetrics,
    next_sweep: AtomicU64,
}

/// Why an endpoint is ejected, as the metric's label has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    ConsecutiveFailures,
    SuccessRate,
    FailurePercentage,
}

impl Method {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SuccessRate => "success_rate",
            Self::FailurePercentage => "failure_percentage",
        }
    }
}

impl Outliers {
    pub(crate) fn new(config: OutlierConfig, metrics: DestinationMetrics, now: Nanos) -> Self {
        Self {
            next_sweep: AtomicU64::new(now + millis(config.interval_ms)),
            config,
            metrics,
        }
    }

    /// Counts what became of an attempt.
    pub(crate) fn record(&self, set: &Set, endpoint: &Endpoint, outcome: Outcome, now: Nanos) {
        let reputation = &endpoint.reputation;
        match outcome {
            Outcome::Success => {
                reputation.successes.fetch_add(1, Relaxed);
                if reputation.in_a_row.load(Relaxed) > 0 {
                    reputation.in_a_row.store(0, Relaxed);
                }
            }
            Outcome::Failure => {
                reputation.failures.fetch_add(1, Relaxed);
                // What began before an ejection has been judged by it.
                let in_a_row = if reputation.is_ejected(now) {
                    0
                } else {
                    reputation.in_a_row.fetch_add(1, Relaxed) + 1
                };
                // Where it was not ejected the first time, it may be after as many again.
                let limit = self.config.consecutive_failures;
                if in_a_row > 0 && in_a_row.is_multiple_of(limit) {
                    self.eject(set, endpoint, Method::ConsecutiveFailures, now);
                }
            }
            Outcome::Late => {
                reputation.failures.fetch_add(1, Relaxed);
            }
        }
        let due = self.next_sweep.load(Relaxed);
        let next = now + millis(self.config.interval_ms);
        if now >= due
            && self
                .next_sweep
                .compare_exchange(due, next, Relaxed, Relaxed)
                .is_ok()
        {
            self.sweep(set, now);
        }
    }

    /// Compares what the interval has brought.
    fn sweep(&self, set: &Set, now: Nanos) {
        let config = &self.config;
        let endpoints: Vec<_> = set
            .members()
            .iter()
            .map(|member| &*member.endpoint)
            .collect();
        let counted: Vec<_> = endpoints
            .iter()
            .map(|endpoint| {
                let Reputation {
                    successes,
                    failures,
                    ejections,
                    ..
                } = &endpoint.reputation;
                if !endpoint.reputation.is_ejected(now) {
                    // Each quiet interval takes back one ejection's worth of the next one's length.
                    let less = |n: u32| n.checked_sub(1);
                    let _ = ejections.fetch_update(Relaxed, Relaxed, less);
                }
                (
                    *endpoint,
                    successes.swap(0, Relaxed),
                    failures.swap(0, Relaxed),
                )
            })
            .filter(|(endpoint, ..)| !endpoint.reputation.is_ejected(now))
            .collect();
        for endpoint in worst_by_rate(&counted, config) {
            self.eject(set, endpoint, Method::SuccessRate, now);
        }
        for endpoint in worst_by_percentage(&counted, config) {
            if !endpoint.reputation.is_ejected(now) {
                self.eject(set, endpoint, Method::FailurePercentage, now);
            }
        }
    }

    fn eject(&self, set: &Set, endpoint: &Endpoint, method: Method, now: Nanos) {
        let members = set.members();
        let percent = |count: usize| count * 100 / members.len().max(1);
        let ejected = |endpoint: &Endpoint| endpoint.reputation.is_ejected(now);
        let others = || {
            let all = members.iter().map(|member| &*member.endpoint);
            all.filter(|other| other.id != endpoint.id)
        };
        if ejected(endpoint) {
            return;
        }
        let ejected = others().filter(|other| ejected(other)).count();
        let sound = others().filter(|other| other.is_sound(now)).count();
        let address = &**endpoint.address();
        if members.len() < 2
            || (ejected > 0 && percent(ejected + 1) > self.config.ejected_max_percent as usize)
        {
            self.metrics.unenforced(method, "max_ejection_overflow");
            tracing::debug!(endpoint = address, reason = method.as_str(), "not ejected");
        } else if sound == 0 || percent(sound) < self.config.panic_percent as usize {
            self.metrics.unenforced(method, "panic");
            tracing::warn!(
                endpoint = address,
                sound,
                "too few sound endpoints are left: all are used"
            );
            others().for_each(|other| other.reputation.pardon(now));
        } else {
            let until = endpoint.reputation.eject(now, &self.config);
            self.metrics.ejected(method);
            tracing::warn!(
                endpoint = address,
                reason = method.as_str(),
                ms = (until - now) / millis(1),
                "ejected"
            );
        }
    }
}

type Counted<'e> = (&'e Endpoint, u32, u32);

/// Those whose success rate is far below the mean of those with enough calls.
fn worst_by_rate<'e>(counted: &[Counted<'e>], config: &OutlierConfig) -> Vec<&'e Endpoint> {
    let rates: Vec<_> = counted
        .iter()
        .filter(|(_, ok, failed)| ok + failed >= config.success_calls_min.max(1))
        .map(|(endpoint, ok, failed)| (*endpoint, f64::from(*ok) / f64::from(ok + failed)))
        .collect();
    if config.success_stdev_thousandths == 0 || rates.len() < config.success_hosts_min as usize {
        return Vec::new();
    }
    let mean =
        |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / float(rates.len() as u64);
    let average = mean(&mut rates.iter().map(|(_, rate)| *rate));
    let variance = mean(&mut rates.iter().map(|(_, rate)| (rate - average).powi(2)));
    let factor = f64::from(config.success_stdev_thousandths) / 1000.0;
    let threshold = average - factor * variance.sqrt();
    let worst = rates.iter().filter(|(_, rate)| *rate < threshold);
    worst.map(|(endpoint, _)| *endpoint).collect()
}

/// Those where almost every call fails.
fn worst_by_percentage<'e>(counted: &[Counted<'e>], config: &OutlierConfig) -> Vec<&'e Endpoint> {
    let enough: Vec<_> = counted
        .iter()
        .filter(|(_, ok, failed)| ok + failed >= config.failure_calls_min.max(1))
        .collect();
    if config.failure_percent == 0 || enough.len() < config.failure_hosts_min as usize {
        return Vec::new();
    }
    let fails = |ok: u32, failed: u32| {
        u64::from(failed) * 100 >= u64::from(config.failure_percent) * u64::from(ok + failed)
    };
    let worst = enough.iter().filter(|(_, ok, failed)| fails(*ok, *failed));
    worst.map(|(endpoint, ..)| *endpoint).collect()
}

#[cfg(test)]
mod tests;
