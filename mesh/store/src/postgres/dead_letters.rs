//! Dead letters in PostgreSQL.

use async_trait::async_trait;
use mesh_events::{BoxError, DeadLetter, DeadLetters, Handler};
use sqlx::{Row as _, postgres::PgRow};

use super::{Postgres, outbox};
use crate::dead_letters::{ReplayError, StoredLetter};

/// The dead letters of a service, with what operators do to them.
#[derive(Clone, Debug)]
pub struct PostgresDeadLetters {
    postgres: Postgres,
}

impl PostgresDeadLetters {
    /// The dead letters of a database.
    pub fn new(postgres: Postgres) -> PostgresDeadLetters {
        PostgresDeadLetters { postgres }
    }

    /// Letters with an id above `after_id`, ascending, at most `limit`. Start with 0.
    pub async fn list(&self, after_id: i64, limit: u32) -> Result<Vec<StoredLetter>, sqlx::Error> {
        let rows =
            sqlx::query("SELECT * FROM mesh_dead_letters WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after_id)
                .bind(i64::from(limit))
                .fetch_all(self.postgres.reads())
                .await?;
        rows.iter().map(stored).collect()
    }

    /// One letter; `None`: not there (any more).
    pub async fn show(&self, id: i64) -> Result<Option<StoredLetter>, sqlx::Error> {
        let row = sqlx::query("SELECT * FROM mesh_dead_letters WHERE id = $1")
            .bind(id)
            .fetch_optional(self.postgres.reads())
            .await?;
        row.as_ref().map(stored).transpose()
    }

    /// Hands a letter to the handler of its consumer once more, and removes it when that succeeds. It
    /// reaches no other consumer. Safe to repeat: the handler's inbox knows what was applied.
    pub async fn replay(&self, id: i64, handler: &dyn Handler) -> Result<(), ReplayError> {
        let stored = self.show(id).await?.ok_or(ReplayError::NotFound { id })?;
        handler
            .handle(&stored.letter.event)
            .await
            .map_err(|source| ReplayError::Handler { id, source })?;
        self.drop(id).await?;
        Ok(())
    }

    /// Removes a letter; its effect will never happen. False: it was not there.
    pub async fn drop(&self, id: i64) -> Result<bool, sqlx::Error> {
        let dropped = sqlx::query("DELETE FROM mesh_dead_letters WHERE id = $1")
            .bind(id)
            .execute(self.postgres.pool())
            .await?;
        Ok(dropped.rows_affected() == 1)
    }

    async fn insert(&self, letter: &DeadLetter) -> Result<(), sqlx::Error> {
        let event = &letter.event;
        sqlx::query(
            "INSERT INTO mesh_dead_letters (consumer, message_id, kind, aggregate_id, \
                 aggregate_version, occurred_at_us, traceparent, mandatory, body, \
                 reason, attempts, dead_at_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (consumer, message_id) DO UPDATE SET \
                 reason = excluded.reason, attempts = excluded.attempts, \
                 dead_at_us = excluded.dead_at_us",
        )
        .bind(&letter.consumer)
        .bind(event.message_id)
        .bind(&event.kind)
        .bind(&event.aggregate_id)
        .bind(event.aggregate_version)
        .bind(event.occurred_at_us)
        .bind(&event.traceparent)
        .bind(event.mandatory)
        .bind(event.body.as_ref())
        .bind(&letter.reason)
        .bind(i64::from(letter.attempts))
        .bind(letter.dead_at_us)
        .execute(self.postgres.pool())
        .await?;
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for PostgresDeadLetters {
    async fn record(&self, letter: DeadLetter) -> Result<(), BoxError> {
        Ok(self.insert(&letter).await?)
    }
}

fn stored(row: &PgRow) -> Result<StoredLetter, sqlx::Error> {
    Ok(StoredLetter {
        id: row.try_get("id")?,
        letter: DeadLetter {
            consumer: row.try_get("consumer")?,
            event: outbox::event(row)?,
            reason: row.try_get("reason")?,
            attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
            dead_at_us: row.try_get("dead_at_us")?,
        },
    })
}
