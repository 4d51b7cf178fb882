//! Moves events from an outbox to a bus, and forgets only those that the bus has confirmed.
//!
//! It publishes in windows, several at a time, so that one slow consumer does not hold up the rest.
//! Any number of relays may share an outbox: each event is leased to one of them, and a lease that
//! ran out costs a duplicate, never a loss. Deliberately without order between events.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use mesh::{CallContext, Principal};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Level, Span, debug, field::Empty, warn};
use uuid::Uuid;

use crate::{
    Backoff, Bus, Event, Metrics, Now, Outbox, OutboxError, PublishError, consumer::SYSTEM,
};

/// How much longer a lease lasts than a publish may take: time to record its outcome.
const LEASE_MARGIN_MS: u64 = 5_000;

/// The limits of a [`Relay`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Events published together.
    pub window_max: usize,
    /// Windows on their way at the same time.
    pub windows_max: usize,
    /// How often the outbox is looked at without being woken, in milliseconds: the safety net.
    pub poll_ms: u64,
    /// How long it is left alone after a look that found less than a window, in milliseconds. Under load many events
    /// share a look, where each would have its own.
    pub pace_ms: u64,
    /// How long the bus may take to answer for a window, in milliseconds. Leases outlast it.
    pub publish_timeout_ms: u64,
    /// When an event is published again that the bus refused or did not confirm, in milliseconds.
    pub retry_ms: u64,
    /// When an event is published again that no consumer's queue takes, in milliseconds: at first. After that it waits
    /// as long as it has been waiting.
    pub unroutable_retry_ms: u64,
    /// The longest such wait, in milliseconds: how long events may take to move on once a queue is bound.
    pub unroutable_retry_ms_max: u64,
    /// The first pause after the bus or the outbox was unavailable, in milliseconds; each further one
    /// doubles it.
    pub backoff_min_ms: u64,
    /// The longest such pause in milliseconds.
    pub backoff_max_ms: u64,
    /// The random part of such a pause, from 0 (none) to 1.
    pub backoff_jitter: f64,
    /// How often the lag is measured, in milliseconds.
    pub lag_ms: u64,
    /// How long windows may go on after shutdown began, in milliseconds.
    pub drain_ms: u64,
}

impl Default for RelayConfig {
    fn default() -> RelayConfig {
        RelayConfig {
            window_max: 256,
            windows_max: 4,
            poll_ms: 200,
            pace_ms: 10,
            publish_timeout_ms: 10_000,
            retry_ms: 500,
            unroutable_retry_ms: 1_000,
            unroutable_retry_ms_max: 30_000,
            backoff_min_ms: 100,
            backoff_max_ms: 10_000,
            backoff_jitter: 0.5,
            lag_ms: 1_000,
            drain_ms: 5_000,
        }
    }
}

/// Publishes what an outbox holds.
pub struct Relay {
    /// Names the outbox in logs and metrics: `payment`.
    pub name: String,
    /// Where events wait.
    pub outbox: Arc<dyn Outbox>,
    /// Where they go.
    pub bus: Arc<dyn Bus>,
    /// Limits.
    pub config: RelayConfig,
    /// The time that leases are counted in.
    pub now: Now,
    /// Notified after each commit that may have appended an event.
    pub wake: Arc<Notify>,
    /// What is counted.
    pub metrics: Metrics,
}

/// What became of a window.
#[derive(Debug, Default)]
struct Outcome {
    confirmed: Vec<Uuid>,
    /// With the time when each occurred, in microseconds.
    unroutable: Vec<(Uuid, i64)>,
    refused: Vec<Uuid>,
    unavailable: Vec<Uuid>,
}

impl Relay {
    /// Publishes until `shutdown`, then waits up to `drain_ms` for what is on its way.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut windows = FuturesUnordered::new();
        let mut failures = 0;
        let mut paused_until = Instant::now();
        let pace = Duration::from_millis(self.config.pace_ms);
        let mut measure = interval(Duration::from_millis(self.config.lag_ms.max(1)));
        measure.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let paused = Instant::now() < paused_until;
            while !paused && windows.len() < self.config.windows_max {
                match self.lease().await {
                    Ok(events) if events.is_empty() => break,
                    Ok(events) => {
                        let all = events.len() < self.config.window_max;
                        windows.push(self.publish(events));
                        if all {
                            paused_until = Instant::now() + pace;
                            break;
                        }
                    }
                    Err(error) => {
                        failures += 1;
                        paused_until = Instant::now() + self.backoff().after(failures);
                        self.complain(&error);
                        break;
                    }
                }
            }
            let full = windows.len() >= self.config.windows_max;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = measure.tick() => self.measure().await,
                Some(outcome) = windows.next(), if !windows.is_empty() => {
                    failures = if self.record(outcome, failures + 1).await { 0 } else { failures + 1 };
                    paused_until = match failures {
                        0 => paused_until,
                        _ => Instant::now() + self.backoff().after(failures),
                    };
                }
                () = sleep_until(paused_until), if paused => {}
                () = self.wake.notified(), if !paused && !full => {}
                () = sleep(Duration::from_millis(self.config.poll_ms)), if !paused && !full => {}
            }
        }
        let drain = async {
            while let Some(outcome) = windows.next().await {
                self.record(outcome, 1).await;
            }
        };
        if timeout(Duration::from_millis(self.config.drain_ms), drain)
            .await
            .is_err()
        {
            debug!(outbox = %self.name, windows = windows.len(), "unconfirmed at shutdown");
        }
    }

    async fn lease(&self) -> Result<Vec<Event>, OutboxError> {
        let lease_us = us(self.config.publish_timeout_ms + LEASE_MARGIN_MS);
        self.outbox
            .lease(self.config.window_max, lease_us, (self.now)())
            .await
    }

    async fn publish(&self, events: Vec<Event>) -> Outcome {
        let limit = Duration::from_millis(self.config.publish_timeout_ms);
        let spans = sending(&events);
        let results = timeout(limit, self.bus.publish(&events))
            .await
            .unwrap_or_default();
        let mut results = results.into_iter();
        let mut outcome = Outcome::default();
        for (at, event) in events.iter().enumerate() {
            // An event that the bus gave no answer for is not published.
            let result = results.next().unwrap_or_else(|| {
                Err(PublishError::Unavailable(format!(
                    "no answer within {limit:?}"
                )))
            });
            let id = event.message_id;
            match &result {
                Ok(()) => outcome.confirmed.push(id),
                Err(PublishError::Unroutable) => {
                    outcome.unroutable.push((id, event.occurred_at_us));
                }
                Err(PublishError::Refused(_) | PublishError::Unconfirmed(_)) => {
                    outcome.refused.push(id);
                }
                Err(PublishError::Unavailable(_)) => outcome.unavailable.push(id),
            }
            if let Err(error) = result {
                if let Some(span) = spans.get(at) {
                    span.record("otel.status_code", "ERROR");
                }
                let labels = [self.name.as_str(), error.reason()];
                self.metrics.outbox_failed.with_label_values(&labels).inc();
                debug!(outbox = %self.name, kind = %event.kind, message.id = %event.message_id, %error,
                    "not published");
            }
        }
        outcome
    }

    /// Writes down what became of a window; false when the bus or the outbox is not available and
    /// the relay should pause. `failures` counts the window in, should it fail.
    async fn record(&self, outcome: Outcome, failures: u32) -> bool {
        let Outcome {
            confirmed,
            unroutable,
            refused,
            unavailable,
        } = outcome;
        let mut available = unavailable.is_empty() || !confirmed.is_empty();
        if !confirmed.is_empty() {
            match self.outbox.published(&confirmed).await {
                Ok(()) => {
                    let published = self
                        .metrics
                        .outbox_published
                        .with_label_values(&[&self.name]);
                    published.inc_by(confirmed.len() as u64);
                }
                Err(error) => {
                    // The leases run out and the events are published once more.
                    self.complain(&error);
                    available = false;
                }
            }
        }
        if !unroutable.is_empty() {
            warn!(outbox = %self.name, events = unroutable.len(), "no queue takes these events");
        }
        if !unavailable.is_empty() {
            warn!(outbox = %self.name, events = unavailable.len(), failures, "bus unavailable");
        }
        let pause_ms =
            u64::try_from(self.backoff().after(failures).as_millis()).unwrap_or(u64::MAX);
        for (wait_ms, ids) in self.unroutable_waits(&unroutable) {
            self.defer(&ids, wait_ms).await;
        }
        self.defer(&refused, self.config.retry_ms).await;
        self.defer(&unavailable, pause_ms).await;
        available
    }

    /// Events that no queue takes, by how long they wait: the first wait, doubled while they are older than that. So
    /// they are few statements, and a queue that nobody binds costs less and less.
    fn unroutable_waits(&self, unroutable: &[(Uuid, i64)]) -> BTreeMap<u64, Vec<Uuid>> {
        let now_us = (self.now)();
        let longest_ms = self.config.unroutable_retry_ms_max;
        let mut waits: BTreeMap<u64, Vec<Uuid>> = BTreeMap::new();
        for (id, occurred_at_us) in unroutable {
            let mut wait_ms = self.config.unroutable_retry_ms.clamp(1, longest_ms.max(1));
            while wait_ms < longest_ms && us(2 * wait_ms) <= now_us - occurred_at_us {
                wait_ms *= 2;
            }
            waits.entry(wait_ms.min(longest_ms)).or_default().push(*id);
        }
        waits
    }

    async fn defer(&self, ids: &[Uuid], after_ms: u64) {
        if ids.is_empty() {
            return;
        }
        if let Err(error) = self.outbox.defer(ids, (self.now)() + us(after_ms)).await {
            self.complain(&error); // The leases run out instead.
        }
    }

    async fn measure(&self) {
        match self.outbox.lag((self.now)()).await {
            Ok(lag) => {
                let pending = i64::try_from(lag.pending).unwrap_or(i64::MAX);
                let seconds = Duration::from_micros(lag.oldest_age_us.max(0).unsigned_abs());
                self.metrics
                    .outbox_pending
                    .with_label_values(&[&self.name])
                    .set(pending);
                self.metrics
                    .outbox_oldest_age_seconds
                    .with_label_values(&[&self.name])
                    .set(seconds.as_secs_f64());
            }
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&self, error: &OutboxError) {
        warn!(outbox = %self.name, %error, cause = %error.source, "outbox unavailable");
    }

    fn backoff(&self) -> Backoff {
        Backoff {
            min_ms: self.config.backoff_min_ms,
            max_ms: self.config.backoff_max_ms,
            jitter: self.config.backoff_jitter,
        }
    }
}

/// A span for each event, in the trace of the call that caused it; none where nobody exports them.
fn sending(events: &[Event]) -> Vec<Span> {
    if !tracing::span_enabled!(target: "mesh::span", Level::DEBUG) {
        return Vec::new();
    }
    let span = |event: &Event| {
        let traceparent = event.traceparent.as_deref().unwrap_or_default();
        let context = CallContext::from_traceparent(traceparent, Principal::anonymous());
        mesh::span!(
            context,
            "producer",
            otel.name = %format_args!("send {}", event.kind),
            otel.status_code = Empty,
            messaging.system = SYSTEM,
            messaging.operation.name = "send",
            messaging.operation.type = "send",
            messaging.destination.name = %event.kind,
            messaging.message.id = %event.message_id,
        )
    };
    events.iter().map(span).collect()
}

fn us(ms: u64) -> i64 {
    i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX)
}
