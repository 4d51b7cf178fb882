//! The inbox in SQLite: what a consumer has applied already. [`insert`] in the transaction of the effect; then
//! an event that is delivered twice has its effect once.

use sqlx::SqliteConnection;
use uuid::Uuid;

/// Notes that `consumer` applies an event. False: it did before; skip the effect and acknowledge.
pub async fn insert(
    connection: &mut SqliteConnection,
    consumer: &str,
    message_id: Uuid,
    now_us: i64,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO mesh_inbox (consumer, message_id, received_at_us) VALUES (?, ?, ?) \
         ON CONFLICT DO NOTHING",
    )
    .bind(consumer)
    .bind(message_id.as_bytes().as_slice())
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Forgets up to `limit` events received before `received_before_us`, oldest first; says how many.
/// An event that is delivered again after that would be applied again: keep them for longer than the
/// bus or a dead letter can hold one back.
pub async fn sweep(
    connection: &mut SqliteConnection,
    received_before_us: i64,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let swept = sqlx::query(
        "DELETE FROM mesh_inbox WHERE (consumer, message_id) IN ( \
             SELECT consumer, message_id FROM mesh_inbox \
             WHERE received_at_us < ? ORDER BY received_at_us LIMIT ?)",
    )
    .bind(received_before_us)
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::open;

    #[tokio::test]
    async fn an_event_is_new_once_for_each_consumer() {
        let (_folder, sqlite) = open().await;
        let id = Uuid::from_u128(1);
        let mut write = sqlite.begin().await.unwrap();
        assert!(insert(&mut write, "one", id, 1).await.unwrap());
        write.rollback().await;
        let mut write = sqlite.begin().await.unwrap();
        assert!(
            insert(&mut write, "one", id, 1).await.unwrap(),
            "the first was rolled back"
        );
        assert!(!insert(&mut write, "one", id, 2).await.unwrap());
        assert!(insert(&mut write, "two", id, 2).await.unwrap());
        write.commit().await.unwrap();
    }

    #[tokio::test]
    async fn sweeping_is_bounded_and_takes_the_oldest_first() {
        let (_folder, sqlite) = open().await;
        let mut write = sqlite.begin().await.unwrap();
        for number in 0..30 {
            let id = Uuid::from_u128(1_000 - number); // The other way round than the time.
            insert(&mut write, "one", id, i64::try_from(number).unwrap())
                .await
                .unwrap();
        }
        assert_eq!(sweep(&mut write, 20, 15).await.unwrap(), 15);
        assert!(
            insert(&mut write, "one", Uuid::from_u128(1_000 - 14), 99)
                .await
                .unwrap()
        );
        assert!(
            !insert(&mut write, "one", Uuid::from_u128(1_000 - 15), 99)
                .await
                .unwrap()
        );
        assert_eq!(sweep(&mut write, 20, 15).await.unwrap(), 5);
        assert_eq!(sweep(&mut write, 20, 15).await.unwrap(), 0);
        write.commit().await.unwrap();
    }
}
