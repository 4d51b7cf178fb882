//! Forgets what has been kept long enough, a bounded number of rows at a time. Every replica sweeps; each takes
//! what no other one is just taking.

use mesh_store::{
    Postgres,
    postgres::{idempotency, inbox},
};

use crate::{error::Error, store::Horizon};

/// Forgets what is older than the horizon, at most `limit` rows a table; says how many.
pub(super) async fn trim(postgres: &Postgres, horizon: &Horizon, limit: u32) -> Result<u64, Error> {
    let mut write = postgres.begin().await?;
    let mut trimmed = idempotency::sweep(&mut write, horizon.answers_us, limit).await?;
    trimmed += inbox::sweep(&mut write, horizon.inbox_us, limit).await?;
    let settled = sqlx::query(
        "DELETE FROM reservation WHERE id IN (SELECT id FROM reservation \
             WHERE state <> 'HELD' AND updated_at_us < $1 ORDER BY updated_at_us LIMIT $2 \
             FOR UPDATE SKIP LOCKED)",
    )
    .bind(horizon.reservations_us)
    .bind(i64::from(limit))
    .execute(&mut *write)
    .await?;
    trimmed += settled.rows_affected();
    // A prefix of the log, so that what is kept has no holes. Last, as it holds up those who append.
    let changes = sqlx::query(
        "WITH old AS (SELECT revision FROM watch_log WHERE at_us < $1 ORDER BY revision LIMIT $2), \
         prefix AS (SELECT max(revision) AS through FROM old), \
         state AS ( \
             UPDATE watch_state SET trimmed_through = prefix.through FROM prefix \
             WHERE prefix.through > watch_state.trimmed_through) \
         DELETE FROM watch_log USING prefix WHERE revision <= prefix.through",
    )
    .bind(horizon.changes_us)
    .bind(i64::from(limit))
    .execute(&mut *write)
    .await?;
    trimmed += changes.rows_affected();
    if trimmed > 0 {
        write.commit().await?;
    } else {
        write.rollback().await?; // Nothing to put on disk.
    }
    Ok(trimmed)
}
