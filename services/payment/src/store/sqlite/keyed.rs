//! Commands that are no change of a payment: their keys, claimed and answered in one transaction.

use crate::commands::Answer;
use crate::error::Error;
use mesh_store::idempotency::{Claim, Key};
use mesh_store::sqlite::idempotency;
use sqlx::SqliteConnection;

/// What a claimed key is answered with; nothing where it is new.
pub(super) async fn claimed(
    connection: &mut SqliteConnection,
    key: Option<&Key>,
    reference: &str,
    now_us: i64,
) -> Result<Option<Answer>, Error> {
    let Some(key) = key else { return Ok(None) };
    match idempotency::claim(connection, key, reference, now_us).await? {
        Claim::New => Ok(None),
        Claim::Replay(bytes) => Ok(Some(Answer {
            bytes,
            replayed: true,
        })),
        Claim::InFlight { .. } => Err(Error::InFlight),
        Claim::Reused => Err(Error::KeyReused),
    }
}

/// Keeps the answer of a claimed key.
pub(super) async fn complete(
    connection: &mut SqliteConnection,
    key: Option<&Key>,
    answer: &[u8],
    now_us: i64,
) -> Result<(), Error> {
    if let Some(key) = key {
        idempotency::complete(connection, key, answer, now_us).await?;
    }
    Ok(())
}

/// An answer that was not given before.
pub(super) fn fresh(bytes: Vec<u8>) -> Answer {
    Answer {
        bytes,
        replayed: false,
    }
}
