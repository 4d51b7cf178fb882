//! The seam between the relays and consumers on one side and what carries events on the other:
//! in memory now, RabbitMQ where processes are apart. Deliberately no order, no replay, no topics
//! beyond exact kinds.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::Event;

/// Carries events to the queue of every consumer that subscribed to their kind.
#[async_trait]
pub trait Bus: Send + Sync {
    /// Publishes a window of events and waits until the fate of each is known. Result `n` belongs to
    /// event `n`; `Ok` means that the event can no longer be lost by this publisher going away.
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>>;

    /// Takes part in the queue of a consumer; replicas with the same consumer name share it.
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Deliveries>, BusError>;
}

/// Why an event does not count as published. It stays in the outbox in every case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The event is mandatory and no consumer's queue takes its kind.
    #[error("no queue takes this kind of event")]
    Unroutable,
    /// The bus refused this event: its queue is full.
    #[error("the bus refused the event: {0}")]
    Refused(String),
    /// The bus did not say in time. The event may have been delivered; publish it again.
    #[error("the bus did not confirm the event: {0}")]
    Unconfirmed(String),
    /// The bus cannot be reached at all; every other event would fail as well.
    #[error("the bus is unavailable: {0}")]
    Unavailable(String),
}

impl PublishError {
    /// The variant as a metric label.
    pub fn reason(&self) -> &'static str {
        match self {
            PublishError::Unroutable => "unroutable",
            PublishError::Refused(_) => "refused",
            PublishError::Unconfirmed(_) => "unconfirmed",
            PublishError::Unavailable(_) => "unavailable",
        }
    }
}

/// The bus could not subscribe, deliver or settle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The subscription ended; subscribe again. What was delivered and not settled comes again.
    #[error("the subscription was lost: {0}")]
    Lost(String),
    /// Nothing came for so long that the bus wants to be asked anew. Nothing failed: subscribe again at once.
    #[error("the subscription was quiet and is to be renewed")]
    Quiet,
    /// The subscription makes no sense; subscribing again does not help.
    #[error("invalid subscription: {0}")]
    Invalid(String),
}

/// What a consumer wants to receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Names the queue, and so stays the same over restarts and replicas.
    pub consumer: String,
    /// The kinds of event, spelled exactly.
    pub kinds: Vec<String>,
    /// How many deliveries may be unsettled at once.
    pub prefetch: usize,
}

/// The receiving end of a subscription. Dropping it ends the subscription.
#[async_trait]
pub trait Deliveries: Send {
    /// Waits for the next delivery. Cancel safe: a dropped call takes nothing out of the queue.
    async fn next(&mut self) -> Result<Delivery, BusError>;
}

/// One event, delivered to one consumer. Dropped without being settled, it is delivered again.
pub struct Delivery {
    /// What happened.
    pub event: Event,
    /// Counts from 1; only [`Delivery::retry`] raises it. A consumer that dies raises nothing, so
    /// restarts never send a healthy event to the dead letters.
    pub attempt: u32,
    settle: Box<dyn Settle>,
}

/// How a bus learns what became of a delivery. Only implementations of [`Bus`] need it. Dropping it
/// unused puts the event back into its queue with the same attempt.
#[async_trait]
pub trait Settle: Send {
    /// The effect is committed.
    async fn ack(self: Box<Self>) -> Result<(), BusError>;
    /// Deliver again after the wait, with the attempt raised by one.
    async fn retry(self: Box<Self>, after: Duration) -> Result<(), BusError>;
    /// Takes the event out of the queue for good; it was recorded among the dead letters.
    async fn dead_letter(self: Box<Self>, reason: &str) -> Result<(), BusError>;
}

impl Delivery {
    /// For implementations of [`Bus`].
    pub fn new(event: Event, attempt: u32, settle: Box<dyn Settle>) -> Delivery {
        Delivery {
            event,
            attempt,
            settle,
        }
    }

    /// Call it after the effect was committed, never before.
    pub async fn ack(self) -> Result<(), BusError> {
        self.settle.ack().await
    }

    /// Puts the event aside for about `after`; the slot is free for others meanwhile.
    pub async fn retry(self, after: Duration) -> Result<(), BusError> {
        self.settle.retry(after).await
    }

    /// Call it after the event was recorded among the dead letters, never before.
    pub async fn dead_letter(self, reason: &str) -> Result<(), BusError> {
        self.settle.dead_letter(reason).await
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("event", &self.event)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
