//! Events that a consumer gave up on, kept in its own database until an operator has replayed or
//! dropped them. Nothing here is swept: each of them is an effect that is missing.

use mesh_events::{DeadLetter, HandlerError};

/// A dead letter with the id that operators use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// Ascending; unique within one database.
    pub id: i64,
    /// The letter.
    pub letter: DeadLetter,
}

/// Why a dead letter was not replayed. It is still there.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is no letter with this id.
    #[error("dead letter {id} not found")]
    NotFound {
        /// The id that was asked for.
        id: i64,
    },
    /// The handler failed again.
    #[error("dead letter {id} could not be applied")]
    Handler {
        /// The letter.
        id: i64,
        /// What the handler said.
        #[source]
        source: HandlerError,
    },
    /// The letter could not be read or removed. If it was applied, the inbox knows, and replaying it
    /// again only removes it.
    #[error("dead letters can not be read or written")]
    Store(#[from] sqlx::Error),
}
