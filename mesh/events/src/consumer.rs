//! Takes deliveries, hands them to a handler, and decides what becomes of them: acknowledged, tried
//! again later, or a dead letter.
//!
//! Deliberately without an inbox: the handler inserts the message id in the transaction of its
//! effect, because only there the two are one.

#[cfg(test)]
mod tests;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use mesh::{CallContext, Principal};
use serde::{Deserialize, Serialize};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug, error, field::Empty, info_span, warn};

use crate::{
    Backoff, BoxError, Bus, BusError, DeadLetter, DeadLetters, Deliveries, Delivery, Event,
    Metrics, Now, Subscription,
};

/// `messaging.system` of spans: which bus carries an event is nobody's business here.
pub(crate) const SYSTEM: &str = "commerce-mesh-events";
/// What becomes of a delivery: the handler has had its effect, it is to try again, it is put aside.
const APPLIED: &str = "applied";
const RETRIED: &str = "retried";
const DEAD_LETTER: &str = "dead_letter";

/// The limits of a [`Consumer`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsumerConfig {
    /// Events handled at the same time, and deliveries taken from the bus but not settled.
    pub concurrency_max: usize,
    /// Attempts before an event becomes a dead letter.
    pub attempts_max: u32,
    /// The wait after the first failed attempt in milliseconds; each further one doubles it.
    pub backoff_min_ms: u64,
    /// The longest wait between two attempts in milliseconds.
    pub backoff_max_ms: u64,
    /// The random part of a wait, from 0 (none) to 1.
    pub backoff_jitter: f64,
    /// How long a handler may take in milliseconds; then the attempt counts as failed.
    pub timeout_ms: u64,
    /// How long handlers may go on after shutdown began, in milliseconds; then they are dropped and
    /// their events are delivered again.
    pub drain_ms: u64,
}

impl Default for ConsumerConfig {
    fn default() -> ConsumerConfig {
        ConsumerConfig {
            concurrency_max: 8,
            attempts_max: 12, // About four minutes: an outage of the database is not poison.
            backoff_min_ms: 100,
            backoff_max_ms: 60_000,
            backoff_jitter: 0.5,
            timeout_ms: 30_000,
            drain_ms: 10_000,
        }
    }
}

/// Applies events.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Applies one event. Inserts the message id into the inbox in the transaction of the effect, and
    /// returns `Ok` after the commit, or when the inbox had it already. It runs in a `CallContext`
    /// that continues the trace of the event, on behalf of the consumer.
    async fn handle(&self, event: &Event) -> Result<(), HandlerError>;
}

/// Why an event was not applied.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// It never can be: the body does not parse, or it contradicts what is known. A dead letter at
    /// once.
    #[error("the event can not be applied: {0}")]
    Poison(String),
    /// It may go better later. A dead letter only after `attempts_max` attempts.
    #[error("the event could not be applied now")]
    Transient(#[source] BoxError),
}

impl HandlerError {
    /// Wraps a cause that may pass; made for `map_err`.
    pub fn transient(cause: impl Into<BoxError>) -> HandlerError {
        HandlerError::Transient(cause.into())
    }
}

/// One consumer of a service: a queue of its own and a handler. Any number of replicas may run.
pub struct Consumer {
    /// Names the queue, the inbox rows and the metrics; stays the same over restarts: `product`.
    pub name: String,
    /// The kinds of event it wants, spelled exactly.
    pub kinds: Vec<String>,
    /// Where they come from.
    pub bus: Arc<dyn Bus>,
    /// What applies them.
    pub handler: Arc<dyn Handler>,
    /// Where those go that can not be applied.
    pub dead_letters: Arc<dyn DeadLetters>,
    /// Limits.
    pub config: ConsumerConfig,
    /// The time at which an event becomes a dead letter.
    pub now: Now,
    /// What is counted.
    pub metrics: Metrics,
}

impl Consumer {
    /// Consumes until `shutdown`, then lets running handlers finish for `drain_ms`. Subscribes again
    /// whenever the bus loses the subscription.
    pub async fn run(self, shutdown: CancellationToken) {
        // A counter that only comes with its first dead letter has never risen in the eyes of Prometheus.
        for outcome in [APPLIED, RETRIED, DEAD_LETTER] {
            let labels = [self.name.as_str(), outcome];
            self.metrics.consumer_handled.with_label_values(&labels);
        }
        let consumer = Arc::new(self);
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            let Some(subscribed) = shutdown
                .run_until_cancelled(consumer.bus.subscribe(consumer.subscription()))
                .await
            else {
                return;
            };
            let lost = match subscribed {
                Ok(deliveries) => {
                    consumer
                        .clone()
                        .consume(deliveries, &shutdown, &mut failures)
                        .await
                }
                Err(error) => Some(error),
            };
            if let Some(error) = lost {
                failures += 1;
                match &error {
                    BusError::Quiet => {
                        failures = 0;
                        continue;
                    }
                    // Nothing comes until somebody mends the queue or the configuration.
                    BusError::Invalid(_) => {
                        error!(consumer = %consumer.name, %error, "subscription refused");
                    }
                    BusError::Lost(_) => {
                        warn!(consumer = %consumer.name, %error, failures, "not subscribed");
                    }
                }
                shutdown
                    .run_until_cancelled(sleep(consumer.backoff().after(failures)))
                    .await;
            }
        }
    }

    fn subscription(&self) -> Subscription {
        Subscription {
            consumer: self.name.clone(),
            kinds: self.kinds.clone(),
            prefetch: self.config.concurrency_max,
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff {
            min_ms: self.config.backoff_min_ms,
            max_ms: self.config.backoff_max_ms,
            jitter: self.config.backoff_jitter,
        }
    }

    /// Runs one subscription; `None`: shutdown. Handlers are done or dropped when it returns, while
    /// the subscription still lives, so that they can settle.
    async fn consume(
        self: Arc<Self>,
        mut deliveries: Box<dyn Deliveries>,
        shutdown: &CancellationToken,
        failures: &mut u32,
    ) -> Option<BusError> {
        let mut running = JoinSet::new();
        let lost = loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break None,
                Some(_) = running.join_next(), if !running.is_empty() => {}
                next = deliveries.next(), if running.len() < self.config.concurrency_max => match next {
                    Ok(delivery) => {
                        *failures = 0;
                        running.spawn(self.clone().process(delivery));
                    }
                    Err(error) => break Some(error),
                },
            }
        };
        let drain = async { while running.join_next().await.is_some() {} };
        if timeout(Duration::from_millis(self.config.drain_ms), drain)
            .await
            .is_err()
        {
            warn!(consumer = %self.name, handlers = running.len(), "dropped at shutdown");
        }
        running.shutdown().await;
        lost
    }

    async fn process(self: Arc<Self>, delivery: Delivery) {
        let principal = Principal::new(self.name.as_str(), Vec::<String>::new());
        let traceparent = delivery.event.traceparent.as_deref().unwrap_or_default();
        let context = CallContext::from_traceparent(traceparent, principal);
        // The same trace, and a link to the span that the event came from: that one may have ended long ago.
        let exported = mesh::span!(
            context,
            "consumer",
            otel.name = %format_args!("process {}", delivery.event.kind),
            otel.link = traceparent,
            otel.status_code = Empty,
            messaging.system = SYSTEM,
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.destination.name = %delivery.event.kind,
            messaging.consumer.group.name = %self.name,
            messaging.message.id = %delivery.event.message_id,
            mesh.attempt = delivery.attempt,
        );
        let span = exported.in_scope(|| {
            info_span!(
                "event",
                consumer = %self.name,
                kind = %delivery.event.kind,
                message.id = %delivery.event.message_id,
                attempt = delivery.attempt,
                trace_id = context.trace_id(),
                link = traceparent,
            )
        });
        // Where the log leaves its span out, what the handler opens belongs to the exported one.
        let span = if span.is_disabled() {
            exported.clone()
        } else {
            span
        };
        let in_flight = self
            .metrics
            .consumer_in_flight
            .with_label_values(&[&self.name]);
        let _in_flight = InFlight::enter(in_flight);
        let outcome = self.settle(delivery, context).instrument(span).await;
        if outcome != APPLIED {
            exported.record("otel.status_code", "ERROR");
        }
    }

    /// Says what became of it, as the metric's label has it.
    async fn settle(&self, delivery: Delivery, context: CallContext) -> &'static str {
        let attempt = delivery.attempt;
        let (outcome, settled) = match self.handle(&delivery.event, context).await {
            Ok(()) => (APPLIED, delivery.ack().await),
            Err(HandlerError::Transient(cause)) if attempt < self.config.attempts_max => {
                let after = self.backoff().after(attempt);
                warn!(
                    cause = chain(&*cause),
                    ?after,
                    "event not applied, trying again"
                );
                (RETRIED, delivery.retry(after).await)
            }
            Err(HandlerError::Transient(cause)) => self.bury(delivery, chain(&*cause)).await,
            Err(HandlerError::Poison(reason)) => self.bury(delivery, reason).await,
        };
        self.metrics
            .consumer_handled
            .with_label_values(&[self.name.as_str(), outcome])
            .inc();
        if let Err(error) = settled {
            debug!(%error, "not settled, the bus delivers the event again");
        }
        outcome
    }

    async fn handle(&self, event: &Event, context: CallContext) -> Result<(), HandlerError> {
        let handled = context.scope(self.handler.handle(event));
        let started = Instant::now();
        let limit = Duration::from_millis(self.config.timeout_ms);
        let result = timeout(limit, AssertUnwindSafe(handled).catch_unwind()).await;
        let seconds = self
            .metrics
            .consumer_seconds
            .with_label_values(&[&self.name]);
        seconds.observe(started.elapsed().as_secs_f64());
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(HandlerError::transient(panic_message(&*panic))),
            Err(_) => Err(HandlerError::transient(format!(
                "handler took longer than {limit:?}"
            ))),
        }
    }

    /// Records a dead letter, and only then takes the event out of its queue.
    async fn bury(
        &self,
        delivery: Delivery,
        reason: String,
    ) -> (&'static str, Result<(), BusError>) {
        let letter = DeadLetter {
            consumer: self.name.clone(),
            event: delivery.event.clone(),
            reason: reason.clone(),
            attempts: delivery.attempt,
            dead_at_us: (self.now)(),
        };
        if let Err(cause) = self.dead_letters.record(letter).await {
            error!(
                cause = chain(&*cause),
                reason, "dead letter not recorded, trying again"
            );
            let after = self.backoff().after(delivery.attempt);
            return (RETRIED, delivery.retry(after).await);
        }
        error!(reason, "event became a dead letter");
        (DEAD_LETTER, delivery.dead_letter(&reason).await)
    }
}

/// Counts one for as long as it lives, also when its task is dropped.
struct InFlight(prometheus::IntGauge);

impl InFlight {
    fn enter(gauge: prometheus::IntGauge) -> InFlight {
        gauge.inc();
        InFlight(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let message = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!(
        "handler panicked: {}",
        message.unwrap_or_else(|| "no message".into())
    )
}

/// An error with its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
