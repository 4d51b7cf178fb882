//! Idempotency records in PostgreSQL.

use sqlx::{PgConnection, Row as _, postgres::PgRow};

use crate::idempotency::{Claim, Key, Pending};

/// Claims a key for work on `reference`, or says what is known about it. One round trip for a new
/// key. Nothing changes unless the answer is [`Claim::New`]. Waits for another transaction that is
/// about to claim the same key.
pub async fn claim(
    connection: &mut PgConnection,
    key: &Key,
    reference: &str,
    now_us: i64,
) -> Result<Claim, sqlx::Error> {
    let claimed = sqlx::query(
        "INSERT INTO mesh_idempotency \
             (principal, method, request_id, fingerprint, reference, claimed_at_us) \
         VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
    )
    .bind(&key.principal)
    .bind(&key.method)
    .bind(&key.request_id)
    .bind(key.fingerprint.as_slice())
    .bind(reference)
    .bind(now_us)
    .execute(&mut *connection)
    .await?;
    if claimed.rows_affected() == 1 {
        return Ok(Claim::New);
    }
    // The next statement sees the row that was in the way, unless a sweeper has taken it meanwhile.
    find(connection, key).await?.ok_or(sqlx::Error::RowNotFound)
}

/// What is known about a key, without claiming it; `None`: nothing. Needs no transaction.
pub async fn find(connection: &mut PgConnection, key: &Key) -> Result<Option<Claim>, sqlx::Error> {
    let row: Option<(Vec<u8>, String, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT fingerprint, reference, answer FROM mesh_idempotency \
         WHERE principal = $1 AND method = $2 AND request_id = $3",
    )
    .bind(&key.principal)
    .bind(&key.method)
    .bind(&key.request_id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(fingerprint, reference, answer)| match answer {
        _ if fingerprint != key.fingerprint => Claim::Reused,
        Some(answer) => Claim::Replay(answer),
        None => Claim::InFlight { reference },
    }))
}

/// Stores the answer of a claimed key. False when the key is not in flight (any more): the first
/// answer stands.
pub async fn complete(
    connection: &mut PgConnection,
    key: &Key,
    answer: &[u8],
    now_us: i64,
) -> Result<bool, sqlx::Error> {
    let completed = sqlx::query(
        "UPDATE mesh_idempotency SET answer = $1, completed_at_us = $2 \
         WHERE principal = $3 AND method = $4 AND request_id = $5 AND fingerprint = $6 \
             AND answer IS NULL",
    )
    .bind(answer)
    .bind(now_us)
    .bind(&key.principal)
    .bind(&key.method)
    .bind(&key.request_id)
    .bind(key.fingerprint.as_slice())
    .execute(connection)
    .await?;
    Ok(completed.rows_affected() == 1)
}

/// Gives a claimed key back, as if it had never been used. False when it is not in flight.
pub async fn abandon(connection: &mut PgConnection, key: &Key) -> Result<bool, sqlx::Error> {
    let abandoned = sqlx::query(
        "DELETE FROM mesh_idempotency \
         WHERE principal = $1 AND method = $2 AND request_id = $3 AND fingerprint = $4 \
             AND answer IS NULL",
    )
    .bind(&key.principal)
    .bind(&key.method)
    .bind(&key.request_id)
    .bind(key.fingerprint.as_slice())
    .execute(connection)
    .await?;
    Ok(abandoned.rows_affected() == 1)
}

/// Claims of before `claimed_before_us` that are not completed, for recovery; at most `limit`.
pub async fn in_flight(
    connection: &mut PgConnection,
    claimed_before_us: i64,
    limit: u32,
) -> Result<Vec<Pending>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT principal, method, request_id, fingerprint, reference, claimed_at_us \
         FROM mesh_idempotency WHERE answer IS NULL AND claimed_at_us < $1 \
         ORDER BY claimed_at_us LIMIT $2",
    )
    .bind(claimed_before_us)
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(pending).collect()
}

/// Claims that work on `reference` and are not completed, oldest first.
pub async fn in_flight_for(
    connection: &mut PgConnection,
    reference: &str,
) -> Result<Vec<Pending>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT principal, method, request_id, fingerprint, reference, claimed_at_us \
         FROM mesh_idempotency WHERE answer IS NULL AND reference = $1 ORDER BY claimed_at_us",
    )
    .bind(reference)
    .fetch_all(connection)
    .await?;
    rows.iter().map(pending).collect()
}

/// Forgets up to `limit` answers of before `completed_before_us`, oldest first; says how many. Claims
/// in flight stay, however old.
pub async fn sweep(
    connection: &mut PgConnection,
    completed_before_us: i64,
    limit: u32,
) -> Result<u64, sqlx::Error> {
    let swept = sqlx::query(
        "DELETE FROM mesh_idempotency WHERE (principal, method, request_id) IN ( \
             SELECT principal, method, request_id FROM mesh_idempotency \
             WHERE answer IS NOT NULL AND completed_at_us < $1 ORDER BY completed_at_us LIMIT $2)",
    )
    .bind(completed_before_us)
    .bind(i64::from(limit))
    .execute(connection)
    .await?;
    Ok(swept.rows_affected())
}

fn pending(row: &PgRow) -> Result<Pending, sqlx::Error> {
    let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
    let fingerprint = fingerprint.try_into().expect("the table checks the length");
    Ok(Pending {
        key: Key {
            principal: row.try_get("principal")?,
            method: row.try_get("method")?,
            request_id: row.try_get("request_id")?,
            fingerprint,
        },
        reference: row.try_get("reference")?,
        claimed_at_us: row.try_get("claimed_at_us")?,
    })
}
