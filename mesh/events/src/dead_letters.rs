//! Where events go that a consumer can not apply, so that they neither block others nor get lost.
//! Listing and replaying belong to the storage (`mesh_store::dead_letters`), not to this trait.

use async_trait::async_trait;

use crate::{BoxError, Event};

/// A durable place for events that could not be applied.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Stores the letter. Once it returns `Ok` the delivery is taken out of its queue, so it must be
    /// on disk. Recording the same consumer and message id again replaces reason and attempts.
    async fn record(&self, letter: DeadLetter) -> Result<(), BoxError>;
}

/// An event that a consumer gave up on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Whose letter it is; others may have applied the same event.
    pub consumer: String,
    /// The whole event, so that it can be replayed.
    pub event: Event,
    /// What the handler said last.
    pub reason: String,
    /// How often the handler tried.
    pub attempts: u32,
    /// When the consumer gave up, in microseconds since the Unix epoch.
    pub dead_at_us: i64,
}
