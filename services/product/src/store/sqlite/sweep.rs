//! Forgets what has been kept long enough, a bounded number of rows at a time.

use mesh_store::{
    Sqlite,
    sqlite::{idempotency, inbox},
};

use crate::{error::Error, store::Horizon};

/// Forgets what is older than the horizon, at most `limit` rows a table; says how many.
pub(super) async fn trim(sqlite: &Sqlite, horizon: &Horizon, limit: u32) -> Result<u64, Error> {
    let mut write = sqlite.begin().await?;
    let mut trimmed = idempotency::sweep(&mut write, horizon.answers_us, limit).await?;
    trimmed += inbox::sweep(&mut write, horizon.inbox_us, limit).await?;
    // A prefix of the log, so that what is kept has no holes.
    let through: Option<i64> = sqlx::query_scalar(
        "SELECT max(revision) FROM (SELECT revision FROM watch_log WHERE at_us < ? \
             ORDER BY revision LIMIT ?)",
    )
    .bind(horizon.changes_us)
    .bind(limit)
    .fetch_one(&mut *write)
    .await?;
    if let Some(through) = through {
        let deleted = sqlx::query("DELETE FROM watch_log WHERE revision <= ?")
            .bind(through)
            .execute(&mut *write)
            .await?;
        trimmed += deleted.rows_affected();
        sqlx::query("UPDATE watch_state SET trimmed_through = ?")
            .bind(through)
            .execute(&mut *write)
            .await?;
    }
    let settled = sqlx::query(
        "DELETE FROM reservation WHERE id IN (SELECT id FROM reservation \
             WHERE state <> 'HELD' AND updated_at_us < ? ORDER BY updated_at_us LIMIT ?)",
    )
    .bind(horizon.reservations_us)
    .bind(limit)
    .execute(&mut *write)
    .await?;
    trimmed += settled.rows_affected();
    if trimmed > 0 {
        write.commit().await?;
    } else {
        write.rollback().await; // Nothing to put on disk.
    }
    Ok(trimmed)
}
