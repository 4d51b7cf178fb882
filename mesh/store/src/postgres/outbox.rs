//! The outbox in PostgreSQL: events wait here, committed with the state change that they tell about, until the
//! bus has confirmed them. [`append`] within the transaction of the change; any number of `mesh_events::Relay`
//! do the rest through [`PostgresOutbox`].
//!
//! A relay takes what is due and leased by nobody, stepping over rows that another one is just taking (SKIP
//! LOCKED). Never "everything above the last id": ids commit in another order than they are drawn.
//! Leases run by the clock of the database, which all relays share.
//!
//! Confirmed rows are deleted, and leave dead entries in the index until a vacuum comes: what a look costs is what was
//! written since where it begins. So a relay begins a little before its last look, where the new rows are, and now and
//! then further back, each time again and again while that finds a whole window: what waited longer, or was committed
//! late, is found then.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use mesh_events::{Event, Outbox, OutboxError, OutboxLag};
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::Postgres;

/// Appends events in the caller's transaction, in one round trip. They are published only if it commits.
pub async fn append(
    connection: &mut PgConnection,
    events: &[Event],
    now_us: i64,
) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let column = |value: fn(&Event) -> String| events.iter().map(value).collect::<Vec<_>>();
    let number = |value: fn(&Event) -> i64| events.iter().map(value).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO mesh_outbox (message_id, kind, aggregate_id, aggregate_version, \
             occurred_at_us, traceparent, mandatory, body, appended_at_us) \
         SELECT *, $9 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], \
             $6::text[], $7::boolean[], $8::bytea[])",
    )
    .bind(
        events
            .iter()
            .map(|event| event.message_id)
            .collect::<Vec<_>>(),
    )
    .bind(column(|event| event.kind.clone()))
    .bind(column(|event| event.aggregate_id.clone()))
    .bind(number(|event| event.aggregate_version))
    .bind(number(|event| event.occurred_at_us))
    .bind(
        events
            .iter()
            .map(|event| event.traceparent.clone())
            .collect::<Vec<_>>(),
    )
    .bind(
        events
            .iter()
            .map(|event| event.mandatory)
            .collect::<Vec<_>>(),
    )
    .bind(
        events
            .iter()
            .map(|event| event.body.to_vec())
            .collect::<Vec<_>>(),
    )
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(())
}

/// How often a relay looks how far back beyond its last such look, in microseconds: always for longer than most commits
/// take, now and then for longer than a slow one takes, and at everything.
const LOOKS: [Look; 3] = [
    Look {
        every_us: 0,
        back_us: 250_000,
    },
    Look {
        every_us: 1_000_000,
        back_us: 5_000_000,
    },
    Look {
        every_us: 10_000_000,
        back_us: i64::MAX,
    },
];

struct Look {
    every_us: i64,
    back_us: i64,
}

/// When each of [`LOOKS`] last left nothing behind.
#[derive(Debug, Default)]
struct Looked([i64; LOOKS.len()]);

impl Looked {
    /// The furthest look that is due, and where it begins. A clock that was put back counts as if nothing had been seen.
    fn next(&self, now_us: i64) -> (usize, i64) {
        let due =
            |(look, last_us): (&Look, &i64)| now_us < *last_us || now_us - last_us >= look.every_us;
        let furthest = LOOKS.iter().zip(&self.0).rposition(due).unwrap_or(0);
        let last_us = self.0[furthest].min(now_us);
        (furthest, last_us.saturating_sub(LOOKS[furthest].back_us))
    }

    /// A look has left nothing behind, nor would one that goes less far back.
    fn ended(&mut self, look: usize, now_us: i64) {
        self.0[..=look].fill(now_us);
    }
}

/// The outbox table as a relay sees it.
#[derive(Clone, Debug)]
pub struct PostgresOutbox {
    postgres: Postgres,
    looked: Arc<Mutex<Looked>>,
}

impl PostgresOutbox {
    /// The outbox of a database.
    pub fn new(postgres: Postgres) -> PostgresOutbox {
        PostgresOutbox {
            postgres,
            looked: Arc::default(),
        }
    }

    /// Rows that were appended since, and those that failed and are due again: a quarter at least, or they would wait as long
    /// as fresh ones fill each look.
    async fn take(
        &self,
        since_us: i64,
        limit: i64,
        lease_us: i64,
        now_us: i64,
    ) -> Result<Vec<Event>, sqlx::Error> {
        let rows = sqlx::query(
            "WITH fresh AS ( \
                 SELECT message_id FROM mesh_outbox \
                 WHERE due_at_us = 0 AND appended_at_us >= $4 AND leased_until_us <= (SELECT mesh_now_us()) \
                 ORDER BY appended_at_us LIMIT $2 FOR UPDATE SKIP LOCKED), \
             again AS ( \
                 SELECT message_id FROM mesh_outbox \
                 WHERE due_at_us BETWEEN 1 AND $1 AND leased_until_us <= (SELECT mesh_now_us()) \
                 ORDER BY due_at_us, appended_at_us LIMIT $2 FOR UPDATE SKIP LOCKED), \
             leased AS ( \
                 UPDATE mesh_outbox SET leased_until_us = (SELECT mesh_now_us()) + $3 \
                 WHERE message_id = ANY(ARRAY( \
                     (SELECT * FROM again LIMIT greatest($2 / 4, 1)) UNION ALL SELECT * FROM fresh \
                     UNION ALL (SELECT * FROM again OFFSET greatest($2 / 4, 1)) LIMIT $2)) \
                 RETURNING mesh_outbox.*) \
             SELECT message_id, kind, aggregate_id, aggregate_version, occurred_at_us, traceparent, \
                 mandatory, body \
             FROM leased ORDER BY due_at_us, appended_at_us, message_id",
        )
        .bind(now_us)
        .bind(limit)
        .bind(lease_us)
        .bind(since_us)
        .fetch_all(self.postgres.pool())
        .await?;
        rows.iter().map(event).collect()
    }
}

#[async_trait]
impl Outbox for PostgresOutbox {
    async fn lease(
        &self,
        limit: usize,
        lease_us: i64,
        now_us: i64,
    ) -> Result<Vec<Event>, OutboxError> {
        let looked = || self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let (look, since_us) = looked().next(now_us);
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let leased = self.take(since_us, most, lease_us, now_us).await;
        let leased = leased.map_err(OutboxError::of("lease"))?;
        if leased.len() < limit {
            looked().ended(look, now_us);
        }
        Ok(leased)
    }

    async fn published(&self, ids: &[Uuid]) -> Result<(), OutboxError> {
        sqlx::query("DELETE FROM mesh_outbox WHERE message_id = ANY($1)")
            .bind(ids)
            .execute(self.postgres.pool())
            .await
            .map_err(OutboxError::of("published"))?;
        Ok(())
    }

    async fn defer(&self, ids: &[Uuid], due_at_us: i64) -> Result<(), OutboxError> {
        sqlx::query(
            "UPDATE mesh_outbox SET due_at_us = $2, leased_until_us = 0 WHERE message_id = ANY($1)",
        )
        .bind(ids)
        .bind(due_at_us)
        .execute(self.postgres.pool())
        .await
        .map_err(OutboxError::of("defer"))?;
        Ok(())
    }

    async fn lag(&self, now_us: i64) -> Result<OutboxLag, OutboxError> {
        let (pending, oldest_us): (i64, Option<i64>) =
            sqlx::query_as("SELECT count(*), min(appended_at_us) FROM mesh_outbox")
                .fetch_one(self.postgres.reads())
                .await
                .map_err(OutboxError::of("lag"))?;
        Ok(OutboxLag {
            pending: pending.unsigned_abs(),
            oldest_age_us: oldest_us.map_or(0, |oldest_us| now_us.saturating_sub(oldest_us).max(0)),
        })
    }
}

/// The envelope columns, which outbox and dead letters share.
pub(super) fn event(row: &PgRow) -> Result<Event, sqlx::Error> {
    let body: Vec<u8> = row.try_get("body")?;
    Ok(Event {
        message_id: row.try_get("message_id")?,
        kind: row.try_get("kind")?,
        aggregate_id: row.try_get("aggregate_id")?,
        aggregate_version: row.try_get("aggregate_version")?,
        occurred_at_us: row.try_get("occurred_at_us")?,
        traceparent: row.try_get("traceparent")?,
        mandatory: row.try_get("mandatory")?,
        body: body.into(),
    })
}
