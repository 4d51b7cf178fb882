//! Who did what, and what callers have asked for within their limits. Both are written by `create.sql` and `change.sql`.

use super::super::audit::{AuditLog, AuditQuery, Pending, link};
use super::PostgresStore;
use super::write::bytea;
use crate::audit::{FIRST, Record, Sealed};
use crate::error::Error;
use crate::limits::{Spending, Spent};
use crate::rejection::Rejection;
use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::postgres::PgRow;
use sqlx::types::Uuid;
use sqlx::{PgConnection, Postgres, QueryBuilder, Row as _};

/// Held to the end of the transaction by whoever seals. Any number that nobody else of this database uses.
const SEALING: i64 = 0x61_75_64_69_74; // "audit"

/// The first of the caller's windows that has no room for what is asked for, as they are now.
pub(super) async fn refused(
    connection: &mut PgConnection,
    spending: &[Spending],
    now_us: i64,
) -> Result<Option<Rejection>, Error> {
    for spending in spending {
        let spent: Option<(i64, i64)> = sqlx::query_as(
            "SELECT amount_minor, charges FROM spending \
             WHERE principal = $1 AND currency = $2 AND window_us = $3 AND start_us = $4",
        )
        .bind(&spending.principal)
        .bind(spending.currency.code())
        .bind(spending.window_us)
        .bind(spending.start_us)
        .fetch_optional(&mut *connection)
        .await?;
        let (amount_minor, charges) = spent.unwrap_or_default();
        let spent = Spent {
            amount_minor,
            charges,
        };
        if let Some(refused) = spending.refused(spent, now_us) {
            return Ok(Some(refused));
        }
    }
    Ok(None)
}

/// A row of `spending` for a payment's charge.
pub(super) fn spending(payment: Uuid, spending: &Spending) -> Value {
    json!({
        "payment_id": payment.to_string(),
        "principal": spending.principal,
        "currency": spending.currency.code(),
        "window_us": spending.window_us,
        "start_us": spending.start_us,
        "amount_minor": spending.amount_minor,
        "amount_minor_max": spending.amount_minor_max,
        "charges_max": spending.charges_max,
    })
}

/// A row of `audit_pending`, and the payment that must have been written with it.
pub(super) fn record(payment: Uuid, record: &Record) -> Value {
    json!({
        "payment_id": payment.to_string(),
        "id": record.id.to_string(),
        "at_us": record.at_us,
        "principal": record.principal,
        "method": record.method,
        "object": record.object,
        "outcome": record.outcome,
    })
}

/// Writes who did what is no change of a payment.
pub(super) async fn add(connection: &mut PgConnection, record: &Record) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO audit_pending (id, at_us, principal, method, object, outcome) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(record.id)
    .bind(record.at_us)
    .bind(&record.principal)
    .bind(&record.method)
    .bind(&record.object)
    .bind(&record.outcome)
    .execute(connection)
    .await?;
    Ok(())
}

#[async_trait]
impl AuditLog for PostgresStore {
    async fn seal(&self, limit: u32) -> Result<usize, Error> {
        let some: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM audit_pending)")
            .fetch_one(self.postgres.pool())
            .await?;
        if !some {
            return Ok(0);
        }
        let mut write = self.postgres.begin().await?;
        let alone: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
            .bind(SEALING)
            .fetch_one(&mut *write)
            .await?;
        if !alone {
            return Ok(0);
        }
        let pending = sqlx::query("SELECT * FROM audit_pending ORDER BY id LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(&mut *write)
            .await?;
        let pending = pending.iter().map(read).collect::<Result<_, _>>()?;
        let last = sqlx::query("SELECT * FROM audit_log ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut *write)
            .await?;
        let last = last.as_ref().map(sealed).transpose()?;
        let sealed = link(last.map_or(FIRST, |last| last.head()), pending);
        let places: Vec<Value> = sealed.iter().map(place).collect();
        sqlx::query(
            "WITH place AS ( \
                 SELECT number, id, hash FROM jsonb_populate_recordset(NULL::audit_log, $1)), \
             taken AS ( \
                 DELETE FROM audit_pending WHERE id = ANY (ARRAY(SELECT id FROM place)) RETURNING *) \
             INSERT INTO audit_log (number, id, at_us, principal, method, object, outcome, hash) \
             SELECT number, id, at_us, principal, method, object, outcome, hash FROM taken JOIN place USING (id)",
        )
        .bind(Value::Array(places))
        .execute(&mut *write)
        .await?;
        write.commit().await?;
        Ok(sealed.len())
    }

    async fn records(&self, query: &AuditQuery) -> Result<Vec<Sealed>, Error> {
        let mut sql: QueryBuilder<Postgres> =
            QueryBuilder::new("SELECT * FROM audit_log WHERE number < ");
        sql.push_bind(query.before.unwrap_or(i64::MAX));
        if let Some(object) = &query.object {
            sql.push(" AND object = ").push_bind(object);
        }
        if let Some(principal) = &query.principal {
            sql.push(" AND principal = ").push_bind(principal);
        }
        sql.push(" ORDER BY number DESC LIMIT ")
            .push_bind(query.limit);
        let rows = sql.build().fetch_all(self.postgres.pool()).await?;
        rows.iter().map(sealed).collect()
    }

    async fn chain(&self, after: i64, limit: i64) -> Result<Vec<Sealed>, Error> {
        let rows =
            sqlx::query("SELECT * FROM audit_log WHERE number > $1 ORDER BY number LIMIT $2")
                .bind(after)
                .bind(limit)
                .fetch_all(self.postgres.pool())
                .await?;
        rows.iter().map(sealed).collect()
    }

    async fn pending(&self) -> Result<Pending, Error> {
        let (records, oldest_us) = sqlx::query_as("SELECT count(*), min(at_us) FROM audit_pending")
            .fetch_one(self.postgres.pool())
            .await?;
        Ok(Pending { records, oldest_us })
    }
}

fn place(sealed: &Sealed) -> Value {
    json!({
        "number": sealed.number,
        "id": sealed.record.id.to_string(),
        "hash": bytea(&sealed.hash),
    })
}

fn read(row: &PgRow) -> Result<Record, Error> {
    Ok(Record {
        id: row.try_get("id")?,
        at_us: row.try_get("at_us")?,
        principal: row.try_get("principal")?,
        method: row.try_get("method")?,
        object: row.try_get("object")?,
        outcome: row.try_get("outcome")?,
    })
}

fn sealed(row: &PgRow) -> Result<Sealed, Error> {
    let hash: Vec<u8> = row.try_get("hash")?;
    Ok(Sealed {
        number: row.try_get("number")?,
        record: read(row)?,
        hash: hash
            .try_into()
            .map_err(|_| Error::Corrupt("audit record's hash"))?,
    })
}
