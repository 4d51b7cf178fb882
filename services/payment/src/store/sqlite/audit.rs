//! Who did what, and what callers have asked for within their limits.

use super::super::audit::{AuditLog, AuditQuery, Pending, link};
use super::{SqliteStore, rows};
use crate::audit::{FIRST, Head, Record, Sealed};
use crate::error::Error;
use crate::limits::{Spending, Spent};
use async_trait::async_trait;
use sqlx::sqlite::SqliteRow;
use sqlx::types::Uuid;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

/// Adds what is asked for to the caller's windows; an error where one has no room for it, and then the transaction is
/// to be rolled back.
pub(super) async fn spend(
    connection: &mut SqliteConnection,
    spending: &[Spending],
    now_us: i64,
) -> Result<(), Error> {
    for spending in spending {
        let (amount_minor, charges): (i64, i64) = sqlx::query_as(
            "INSERT INTO spending (principal, currency, window_us, start_us, amount_minor, charges) \
             VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (principal, currency, window_us, start_us) \
             DO UPDATE SET amount_minor = amount_minor + excluded.amount_minor, charges = charges + 1 \
             RETURNING amount_minor, charges",
        )
        .bind(&spending.principal)
        .bind(spending.currency.code())
        .bind(spending.window_us)
        .bind(spending.start_us)
        .bind(spending.amount_minor)
        .fetch_one(&mut *connection)
        .await?;
        let before = Spent {
            amount_minor: amount_minor - spending.amount_minor,
            charges: charges - 1,
        };
        if let Some(refused) = spending.refused(before, now_us) {
            return Err(refused.into());
        }
    }
    Ok(())
}

/// Writes who did it; the sealer gives it its place.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    records: &[Record],
) -> Result<(), Error> {
    for record in records {
        sqlx::query(
            "INSERT INTO audit_pending (id, at_us, principal, method, object, outcome) \
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(record.id.to_string())
        .bind(record.at_us)
        .bind(&record.principal)
        .bind(&record.method)
        .bind(&record.object)
        .bind(&record.outcome)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

#[async_trait]
impl AuditLog for SqliteStore {
    async fn seal(&self, limit: u32) -> Result<usize, Error> {
        if self.pending().await?.records == 0 {
            return Ok(0); // The one connection that writes is left alone.
        }
        let mut write = self.sqlite.begin().await?;
        let pending = sqlx::query("SELECT * FROM audit_pending ORDER BY id LIMIT ?")
            .bind(limit)
            .fetch_all(&mut *write)
            .await?;
        let pending = pending.iter().map(read).collect::<Result<_, _>>()?;
        let last = sqlx::query("SELECT * FROM audit_log ORDER BY number DESC LIMIT 1")
            .fetch_optional(&mut *write)
            .await?;
        let head = last.as_ref().map(sealed).transpose()?;
        let sealed = link(head.map_or(FIRST, |last: Sealed| last.head()), pending);
        for Sealed {
            number,
            record,
            hash,
        } in &sealed
        {
            sqlx::query(
                "INSERT INTO audit_log (number, id, at_us, principal, method, object, outcome, hash) \
                 SELECT ?, id, at_us, principal, method, object, outcome, ? FROM audit_pending WHERE id = ?",
            )
            .bind(number)
            .bind(hash.as_slice())
            .bind(record.id.to_string())
            .execute(&mut *write)
            .await?;
        }
        let ids: Vec<String> = sealed
            .iter()
            .map(|sealed| sealed.record.id.to_string())
            .collect();
        sqlx::query("DELETE FROM audit_pending WHERE id IN (SELECT value FROM json_each(?))")
            .bind(rows::json(&ids))
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(sealed.len())
    }

    async fn records(&self, query: &AuditQuery) -> Result<Vec<Sealed>, Error> {
        let mut sql: QueryBuilder<Sqlite> =
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
        let rows = sql.build().fetch_all(self.sqlite.reader()).await?;
        rows.iter().map(sealed).collect()
    }

    async fn chain(&self, after: i64, limit: i64) -> Result<Vec<Sealed>, Error> {
        let rows = sqlx::query("SELECT * FROM audit_log WHERE number > ? ORDER BY number LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(self.sqlite.reader())
            .await?;
        rows.iter().map(sealed).collect()
    }

    async fn pending(&self) -> Result<Pending, Error> {
        let (records, oldest_us) = sqlx::query_as("SELECT COUNT(*), MIN(at_us) FROM audit_pending")
            .fetch_one(self.sqlite.reader())
            .await?;
        Ok(Pending { records, oldest_us })
    }
}

fn read(row: &SqliteRow) -> Result<Record, Error> {
    let id: String = row.try_get("id")?;
    Ok(Record {
        id: Uuid::parse_str(&id).map_err(|_| Error::Corrupt("audit record's id"))?,
        at_us: row.try_get("at_us")?,
        principal: row.try_get("principal")?,
        method: row.try_get("method")?,
        object: row.try_get("object")?,
        outcome: row.try_get("outcome")?,
    })
}

fn sealed(row: &SqliteRow) -> Result<Sealed, Error> {
    let hash: Vec<u8> = row.try_get("hash")?;
    let hash = hash
        .try_into()
        .map_err(|_| Error::Corrupt("audit record's hash"))?;
    let head = Head {
        number: row.try_get("number")?,
        hash,
    };
    Ok(Sealed {
        number: head.number,
        record: read(row)?,
        hash: head.hash,
    })
}
