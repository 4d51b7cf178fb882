//! The inbox in PostgreSQL: what a consumer has applied already. [`insert`] in the transaction of the effect; then
//! an event that is delivered twice has its effect once.

use sqlx::PgConnection;
use uuid::Uuid;

/// Notes that `consumer` applies an event. False: it did before; skip the effect and acknowledge.
pub async fn insert(
    connection: &mut PgConnection,
    consumer: &str,
    message_id: Uuid,
    now_us: i64,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO mesh_inbox (consumer, message_id, received_at_us) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(consumer)
    .bind(message_id)
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Forgets up to `limit` events received before `received_before_us`, oldest first; says how many.
/// An event that is delivered again after that would be applied again: keep them for longer than the
/// bus or a dead letter can hold one back.
pub async fn sweep(
    connection: &mut PgConnection,
    received_before_us: i64,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let swept = sqlx::query(
        "DELETE FROM mesh_inbox WHERE (consumer, message_id) IN ( \
             SELECT consumer, message_id FROM mesh_inbox \
             WHERE received_at_us < $1 ORDER BY received_at_us LIMIT $2)",
    )
    .bind(received_before_us)
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}
