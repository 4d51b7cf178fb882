//! The outbox in SQLite: events wait here, committed with the state change that they tell about, until the bus
//! has confirmed them. [`append`] within the transaction of the change; a `mesh_events::Relay` does the rest
//! through [`SqliteOutbox`].
//!
//! Leases are in memory: a SQLite file belongs to one process, so its end ends them at once, and
//! leasing costs neither a disk flush nor a turn at the writer. Two processes on one file would send
//! duplicates, which inboxes drop; they would not lose anything.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, fmt::Write as _};

use async_trait::async_trait;
use mesh_events::{Event, Outbox, OutboxError, OutboxLag};
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::Sqlite;

/// Until when each leased event is leased, in microseconds since the Unix epoch.
pub(super) type Leases = HashMap<Uuid, i64>;

/// Appends an event in the caller's transaction. It is published only if that commits.
pub async fn append(
    connection: &mut SqliteConnection,
    event: &Event,
    now_us: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO mesh_outbox (message_id, kind, aggregate_id, aggregate_version, \
             occurred_at_us, traceparent, mandatory, body, appended_at_us) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(event.message_id.as_bytes().as_slice())
    .bind(&event.kind)
    .bind(&event.aggregate_id)
    .bind(event.aggregate_version)
    .bind(event.occurred_at_us)
    .bind(&event.traceparent)
    .bind(event.mandatory)
    .bind(event.body.as_ref())
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(())
}

/// The outbox table as a relay sees it. Any number over one [`Sqlite`] share the leases.
#[derive(Clone, Debug)]
pub struct SqliteOutbox {
    sqlite: Sqlite,
}

impl SqliteOutbox {
    /// The outbox of a database.
    pub fn new(sqlite: Sqlite) -> SqliteOutbox {
        SqliteOutbox { sqlite }
    }

    async fn due(&self, leased: &str, limit: i64, now_us: i64) -> Result<Vec<Event>, sqlx::Error> {
        let rows = sqlx::query(
            "SELECT message_id, kind, aggregate_id, aggregate_version, occurred_at_us, \
                 traceparent, mandatory, body \
             FROM mesh_outbox \
             WHERE due_at_us <= ? AND message_id NOT IN (SELECT unhex(value) FROM json_each(?)) \
             ORDER BY due_at_us, appended_at_us, message_id LIMIT ?",
        )
        .bind(now_us)
        .bind(leased)
        .bind(limit)
        .fetch_all(self.sqlite.reader())
        .await?;
        rows.iter().map(event).collect()
    }

    /// Gives a quarter of a full look to events that failed and are due again: fresh ones come first, and they would wait as
    /// long as those fill each look.
    async fn make_room_for_deferred(
        &self,
        leased: &str,
        events: &mut Vec<Event>,
        now_us: i64,
    ) -> Result<(), sqlx::Error> {
        let share = (events.len() / 4).max(1);
        let rows = sqlx::query(
            "SELECT message_id, kind, aggregate_id, aggregate_version, occurred_at_us, \
                 traceparent, mandatory, body \
             FROM mesh_outbox \
             WHERE due_at_us BETWEEN 1 AND ? AND message_id NOT IN (SELECT unhex(value) FROM json_each(?)) \
             ORDER BY due_at_us, appended_at_us, message_id LIMIT ?",
        )
        .bind(now_us)
        .bind(leased)
        .bind(i64::try_from(share).unwrap_or(i64::MAX))
        .fetch_all(self.sqlite.reader())
        .await?;
        let mut again = rows.iter().map(event).collect::<Result<Vec<_>, _>>()?;
        again.retain(|one| {
            events
                .iter()
                .all(|event| event.message_id != one.message_id)
        });
        events.truncate(events.len() - again.len());
        events.splice(0..0, again);
        Ok(())
    }

    async fn delete(&self, ids: &str) -> Result<(), sqlx::Error> {
        let mut write = self.sqlite.begin().await?;
        sqlx::query(
            "DELETE FROM mesh_outbox WHERE message_id IN (SELECT unhex(value) FROM json_each(?))",
        )
        .bind(ids)
        .execute(&mut *write)
        .await?;
        write.commit().await
    }

    async fn postpone(&self, ids: &str, due_at_us: i64) -> Result<(), sqlx::Error> {
        let mut write = self.sqlite.begin().await?;
        sqlx::query(
            "UPDATE mesh_outbox SET due_at_us = ? \
             WHERE message_id IN (SELECT unhex(value) FROM json_each(?))",
        )
        .bind(due_at_us)
        .bind(ids)
        .execute(&mut *write)
        .await?;
        write.commit().await
    }
}

#[async_trait]
impl Outbox for SqliteOutbox {
    async fn lease(
        &self,
        limit: usize,
        lease_us: i64,
        now_us: i64,
    ) -> Result<Vec<Event>, OutboxError> {
        // Held while reading: what another relay publishes meanwhile stays leased until this one has
        // looked, so rows that are about to go are not taken for free ones.
        let mut leases = self.sqlite.shared.leases.lock().await;
        leases.retain(|_, until_us| *until_us > now_us);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let due = self.due(&json(leases.keys()), limit, now_us).await;
        let mut events = due.map_err(OutboxError::of("lease"))?;
        if events.len() as i64 == limit {
            self.make_room_for_deferred(&json(leases.keys()), &mut events, now_us)
                .await
                .map_err(OutboxError::of("lease"))?;
        }
        let until_us = now_us.saturating_add(lease_us);
        leases.extend(events.iter().map(|event| (event.message_id, until_us)));
        Ok(events)
    }

    async fn published(&self, ids: &[Uuid]) -> Result<(), OutboxError> {
        self.delete(&json(ids))
            .await
            .map_err(OutboxError::of("published"))?;
        self.release(ids).await;
        Ok(())
    }

    async fn defer(&self, ids: &[Uuid], due_at_us: i64) -> Result<(), OutboxError> {
        self.postpone(&json(ids), due_at_us)
            .await
            .map_err(OutboxError::of("defer"))?;
        self.release(ids).await;
        Ok(())
    }

    async fn lag(&self, now_us: i64) -> Result<OutboxLag, OutboxError> {
        let (pending, oldest_us): (i64, Option<i64>) =
            sqlx::query_as("SELECT count(*), min(appended_at_us) FROM mesh_outbox")
                .fetch_one(self.sqlite.reader())
                .await
                .map_err(OutboxError::of("lag"))?;
        Ok(OutboxLag {
            pending: pending.unsigned_abs(),
            oldest_age_us: oldest_us.map_or(0, |oldest_us| now_us.saturating_sub(oldest_us).max(0)),
        })
    }
}

impl SqliteOutbox {
    async fn release(&self, ids: &[Uuid]) {
        let mut leases = self.sqlite.shared.leases.lock().await;
        for id in ids {
            leases.remove(id);
        }
    }
}

/// Ids as a JSON array of hexadecimal strings: one bound value, so one prepared statement for any
/// number of them.
fn json<'a>(ids: impl IntoIterator<Item = &'a Uuid>) -> String {
    let mut json = String::from("[");
    for (index, id) in ids.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        write!(json, "{comma}\"{}\"", id.simple()).expect("a String takes everything");
    }
    json.push(']');
    json
}

/// The envelope columns, which outbox and dead letters share.
pub(super) fn event(row: &SqliteRow) -> Result<Event, sqlx::Error> {
    let message_id: Vec<u8> = row.try_get("message_id")?;
    let body: Vec<u8> = row.try_get("body")?;
    Ok(Event {
        message_id: Uuid::from_slice(&message_id).expect("the table checks the length"),
        kind: row.try_get("kind")?,
        aggregate_id: row.try_get("aggregate_id")?,
        aggregate_version: row.try_get("aggregate_version")?,
        occurred_at_us: row.try_get("occurred_at_us")?,
        traceparent: row.try_get("traceparent")?,
        mandatory: row.try_get("mandatory")?,
        body: body.into(),
    })
}
