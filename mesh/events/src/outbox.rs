//! What a relay needs from the table that events wait in. Appending is not here: the service appends
//! within its own transaction, in the language of its own database.

use async_trait::async_trait;
use uuid::Uuid;

use crate::{BoxError, Event};

/// Events that were committed and are not yet confirmed by the bus.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Takes up to `limit` events that are due and leased by nobody, oldest first, for `lease_us`
    /// from `now_us`. A lease that runs out gives its event to whoever asks next.
    async fn lease(
        &self,
        limit: usize,
        lease_us: i64,
        now_us: i64,
    ) -> Result<Vec<Event>, OutboxError>;

    /// Removes events that the bus has confirmed. Ids that are no longer there are no error: another
    /// relay may have published them after a lease ran out.
    async fn published(&self, ids: &[Uuid]) -> Result<(), OutboxError>;

    /// Gives leased events back; they are due again at `due_at_us`.
    async fn defer(&self, ids: &[Uuid], due_at_us: i64) -> Result<(), OutboxError>;

    /// How far publishing is behind.
    async fn lag(&self, now_us: i64) -> Result<OutboxLag, OutboxError>;
}

/// How far publishing is behind committing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxLag {
    /// Events that are committed and not confirmed, leased ones included.
    pub pending: u64,
    /// Age of the oldest of them in microseconds; 0 when there is none.
    pub oldest_age_us: i64,
}

/// The outbox could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("outbox: {operation} failed")]
pub struct OutboxError {
    /// `lease`, `published`, `defer` or `lag`.
    pub operation: &'static str,
    /// What the storage said.
    #[source]
    pub source: BoxError,
}

impl OutboxError {
    /// Wraps what the storage said; made for `map_err`.
    pub fn of<E: Into<BoxError>>(operation: &'static str) -> impl FnOnce(E) -> OutboxError {
        move |source| OutboxError {
            operation,
            source: source.into(),
        }
    }
}
