//! Reads: pages of payments, sales, the books, the log of changes.

use super::super::{
    Change, LedgerAccount, LedgerEntry, PaymentsQuery, Retention, Revisions, Viewer,
};
use super::rows;
use crate::dispute;
use crate::error::Error;
use crate::ledger::Source;
use crate::payment::Payment;
use crate::sales::{SalesQuery, SalesRow};
use kernel::filter::{Comparison, Expr, Operator, Value};
use kernel::{Currency, PaymentId};
use mesh_store::Reads;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use std::collections::HashMap;

pub(super) async fn due(
    reads: Reads<'_, Sqlite>,
    now_us: i64,
    limit: u32,
) -> Result<Vec<PaymentId>, Error> {
    let ids: Vec<String> = sqlx::query_scalar(
        "SELECT id FROM payments WHERE due_at_us <= ? AND lease_until_us <= ? \
         ORDER BY due_at_us LIMIT ?",
    )
    .bind(now_us)
    .bind(now_us)
    .bind(limit)
    .fetch_all(reads)
    .await?;
    ids.iter()
        .map(|id| PaymentId::parse(id).map_err(|_| Error::Corrupt("id")))
        .collect()
}

/// The payment that an attempt, capture, refund or dispute belongs to.
pub(super) async fn payment_of(
    connection: &mut SqliteConnection,
    reference: &str,
) -> Result<Option<PaymentId>, Error> {
    let id: Option<String> = sqlx::query_scalar(
        "SELECT payment_id FROM attempts WHERE id = ?1 \
         UNION ALL SELECT payment_id FROM captures WHERE id = ?1 \
         UNION ALL SELECT payment_id FROM refunds WHERE id = ?1 \
         UNION ALL SELECT payment_id FROM disputes WHERE id = ?1 LIMIT 1",
    )
    .bind(dispute::charge_of(reference))
    .fetch_optional(connection)
    .await?;
    id.map(|id| PaymentId::parse(&id).map_err(|_| Error::Corrupt("payment_id")))
        .transpose()
}

pub(super) async fn payments(
    connection: &mut SqliteConnection,
    query: &PaymentsQuery,
) -> Result<Vec<Payment>, Error> {
    let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT * FROM payments WHERE 1");
    if let Viewer::Client(principal) = &query.viewer {
        sql.push(" AND principal = ").push_bind(principal);
    }
    if let Some(filter) = &query.filter {
        sql.push(" AND ");
        push_filter(&mut sql, filter);
    }
    let (beyond, order) = if query.descending {
        (
            " AND (created_at_us, id) < (",
            " ORDER BY created_at_us DESC, id DESC LIMIT ",
        )
    } else {
        (
            " AND (created_at_us, id) > (",
            " ORDER BY created_at_us, id LIMIT ",
        )
    };
    if let Some((created_at_us, id)) = &query.after {
        sql.push(beyond)
            .push_bind(*created_at_us)
            .push(", ")
            .push_bind(id)
            .push(")");
    }
    sql.push(order).push_bind(query.limit);
    let rows = sql.build().fetch_all(connection).await?;
    rows.iter().map(rows::payment).collect()
}

/// The tree as SQL, every value bound.
fn push_filter(sql: &mut QueryBuilder<Sqlite>, filter: &Expr) {
    match filter {
        Expr::And(parts) => push_joined(sql, parts, " AND "),
        Expr::Or(parts) => push_joined(sql, parts, " OR "),
        Expr::Not(part) => {
            sql.push("NOT (");
            push_filter(sql, part);
            sql.push(")");
        }
        Expr::Compare(comparison) => push_comparison(sql, comparison),
    }
}

fn push_joined(sql: &mut QueryBuilder<Sqlite>, parts: &[Expr], joint: &'static str) {
    sql.push("(");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            sql.push(joint);
        }
        push_filter(sql, part);
    }
    sql.push(")");
}

fn push_comparison(sql: &mut QueryBuilder<Sqlite>, comparison: &Comparison) {
    let column = match comparison.field {
        "state" => "state",
        "order_ref" => "order_ref",
        "customer_ref" => "customer_ref",
        "currency_code" => "currency",
        "create_time" => "created_at_us",
        "amount_minor" => "amount_minor",
        other => unreachable!("{other} is not a field that grpc.rs allows"),
    };
    let operator = match comparison.operator {
        Operator::Equal => " = ",
        Operator::NotEqual => " <> ",
        Operator::Less => " < ",
        Operator::LessOrEqual => " <= ",
        Operator::Greater => " > ",
        Operator::GreaterOrEqual => " >= ",
        Operator::Has => unreachable!("no field of payments takes `:`"),
    };
    sql.push(column).push(operator);
    match &comparison.value {
        Value::Text(text) => sql.push_bind(text.clone()),
        Value::Enum(name) => sql.push_bind(*name),
        Value::Number(number) | Value::Time(number) => sql.push_bind(*number),
    };
}

pub(super) async fn sales(
    reads: Reads<'_, Sqlite>,
    query: &SalesQuery,
) -> Result<Vec<SalesRow>, Error> {
    let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT ");
    let groups = [
        ("day", query.by.day),
        ("category", query.by.category),
        ("product_id", query.by.product),
    ];
    for (column, grouped) in groups {
        sql.push(if grouped { column } else { "''" })
            .push(" AS ")
            .push(column)
            .push("_, ");
    }
    sql.push(
        "currency, SUM(amount_minor) AS amount_minor, SUM(quantity) AS quantity, \
         COUNT(DISTINCT CASE kind WHEN 'capture' THEN payment_id END) AS payments \
         FROM sales_lines WHERE 1",
    );
    if let Some(day) = &query.from_day {
        sql.push(" AND day >= ").push_bind(day);
    }
    if let Some(day) = &query.to_day {
        sql.push(" AND day < ").push_bind(day);
    }
    sql.push(" GROUP BY day_, category_, product_id_, currency");
    sql.push(" ORDER BY day_, category_, product_id_, currency");
    let rows = sql.build().fetch_all(reads).await?;
    rows.iter()
        .map(|row| {
            Ok(SalesRow {
                product_id: row.try_get("product_id_")?,
                category: row.try_get("category_")?,
                day: row.try_get("day_")?,
                currency: currency(row)?,
                amount_minor: row.try_get("amount_minor")?,
                quantity: row.try_get("quantity")?,
                payments: row.try_get("payments")?,
            })
        })
        .collect()
}

pub(super) async fn accounts(
    reads: Reads<'_, Sqlite>,
    only: Option<Currency>,
) -> Result<Vec<LedgerAccount>, Error> {
    let rows = sqlx::query(
        "SELECT account, currency, SUM(balance_minor) AS balance_minor FROM ledger_balances \
         WHERE ?1 IS NULL OR currency = ?1 GROUP BY account, currency ORDER BY account, currency",
    )
    .bind(only.map(Currency::code))
    .fetch_all(reads)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(LedgerAccount {
                account: row.try_get("account")?,
                currency: currency(row)?,
                balance_minor: row.try_get("balance_minor")?,
            })
        })
        .collect()
}

pub(super) async fn entries(
    reads: Reads<'_, Sqlite>,
    payment: Option<PaymentId>,
    after: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<LedgerEntry>, Error> {
    let mut read = reads.begin().await?;
    let mut sql: QueryBuilder<Sqlite> =
        QueryBuilder::new("SELECT * FROM ledger_transactions WHERE 1");
    if let Some(payment) = payment {
        sql.push(" AND payment_id = ")
            .push_bind(payment.to_string());
    }
    if let Some((recorded_at_us, id)) = after {
        sql.push(" AND (recorded_at_us, id) < (")
            .push_bind(recorded_at_us)
            .push(", ");
        sql.push_bind(id).push(")");
    }
    sql.push(" ORDER BY recorded_at_us DESC, id DESC LIMIT ")
        .push_bind(limit);
    let rows = sql.build().fetch_all(&mut *read).await?;
    let entry = |row: &SqliteRow| -> Result<LedgerEntry, Error> {
        let source = Source::parse(row.try_get("kind")?, row.try_get("source_id")?);
        let source = source.ok().flatten().ok_or(Error::Corrupt("source"))?;
        Ok(LedgerEntry {
            id: row.try_get("id")?,
            source,
            payment_id: row.try_get("payment_id")?,
            postings: Vec::new(),
            recorded_at_us: row.try_get("recorded_at_us")?,
        })
    };
    let mut entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<&str> = entries.iter().map(|entry| entry.id.as_str()).collect();
    let postings = sqlx::query(
        "SELECT transaction_id, account, currency, amount_minor FROM ledger_postings \
         WHERE transaction_id IN (SELECT value FROM json_each(?)) ORDER BY transaction_id, line",
    )
    .bind(rows::json(&ids))
    .fetch_all(&mut *read)
    .await?;
    let mut of_entry: HashMap<String, Vec<(String, Currency, i64)>> = HashMap::new();
    for row in &postings {
        let posting = (
            row.try_get("account")?,
            currency(row)?,
            row.try_get("amount_minor")?,
        );
        of_entry
            .entry(row.try_get("transaction_id")?)
            .or_default()
            .push(posting);
    }
    for entry in &mut entries {
        entry.postings = of_entry.remove(&entry.id).unwrap_or_default();
    }
    Ok(entries)
}

pub(super) async fn revisions(reads: Reads<'_, Sqlite>) -> Result<Revisions, Error> {
    // The sequence survives a sweep of all rows.
    let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT (SELECT MIN(revision) FROM payment_changes), \
                (SELECT seq FROM sqlite_sequence WHERE name = 'payment_changes')",
    )
    .fetch_one(reads)
    .await?;
    let last = last.unwrap_or(0);
    Ok(Revisions {
        first: first.unwrap_or(last + 1),
        last,
    })
}

pub(super) async fn changes(
    reads: Reads<'_, Sqlite>,
    viewer: &Viewer,
    after: i64,
    limit: i64,
) -> Result<(Vec<Change>, i64), Error> {
    let rows = sqlx::query(
        "SELECT revision, principal, body FROM payment_changes WHERE revision > ? \
         ORDER BY revision LIMIT ?",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(reads)
    .await?;
    let mut changes = Vec::new();
    let mut read_to = after;
    for row in &rows {
        read_to = row.try_get("revision")?;
        let principal: String = row.try_get("principal")?;
        if viewer.sees(&principal) {
            changes.push(Change {
                revision: read_to,
                body: row.try_get("body")?,
            });
        }
    }
    Ok((changes, read_to))
}

pub(super) async fn sweep(
    connection: &mut SqliteConnection,
    retention: Retention,
) -> Result<u64, Error> {
    let changes = sqlx::query(
        "DELETE FROM payment_changes WHERE revision IN \
             (SELECT revision FROM payment_changes WHERE at_us < ? ORDER BY at_us LIMIT ?)",
    )
    .bind(retention.changes_before_us)
    .bind(retention.rows_max)
    .execute(&mut *connection)
    .await?;
    let webhooks = sqlx::query(
        "DELETE FROM webhook_events WHERE (provider, event_id) IN \
             (SELECT provider, event_id FROM webhook_events WHERE received_at_us < ? \
              ORDER BY received_at_us LIMIT ?)",
    )
    .bind(retention.webhooks_before_us)
    .bind(retention.rows_max)
    .execute(&mut *connection)
    .await?;
    let windows = sqlx::query(
        "DELETE FROM spending WHERE rowid IN \
             (SELECT rowid FROM spending WHERE start_us + window_us < ? ORDER BY start_us + window_us LIMIT ?)",
    )
    .bind(retention.windows_before_us)
    .bind(retention.rows_max)
    .execute(connection)
    .await?;
    Ok(changes.rows_affected() + webhooks.rows_affected() + windows.rows_affected())
}

fn currency(row: &SqliteRow) -> Result<Currency, Error> {
    let code: String = row.try_get("currency")?;
    Currency::parse(&code).map_err(|_| Error::Corrupt("currency"))
}
