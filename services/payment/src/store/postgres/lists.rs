//! Reads, each one statement: pages of payments, sales, the books, the log of changes; and the sweep.

use super::rows;
use crate::dispute;
use crate::error::Error;
use crate::ledger::Source;
use crate::payment::{Order, Payment};
use crate::sales::{SalesQuery, SalesRow};
use crate::store::{
    Change, LedgerAccount, LedgerEntry, PaymentsQuery, Retention, Revisions, Viewer,
};
use kernel::filter::{Comparison, Expr, Operator, Value};
use kernel::{AttemptId, CaptureId, Currency, DisputeId, PaymentId, RefundId, TransactionId};
use mesh_store::Reads;
use sqlx::postgres::PgRow;
use sqlx::types::{Json, Uuid};
use sqlx::{PgConnection, Postgres, QueryBuilder, Row as _};

/// How many times more payments a worker looks at than it asks for, so that replicas that look at the same
/// time mostly go for different ones. Which of them gets a payment is decided by taking its lease.
const DUE_SPREAD: i64 = 4;

pub(super) async fn due(
    reads: Reads<'_, Postgres>,
    now_us: i64,
    limit: u32,
) -> Result<Vec<PaymentId>, Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM ( \
             SELECT id FROM payments WHERE due_at_us <= $1 AND lease_until_us <= mesh_now_us() \
             ORDER BY due_at_us LIMIT $2 * $3) AS longest_waiting \
         ORDER BY random() LIMIT $2",
    )
    .bind(now_us)
    .bind(i64::from(limit))
    .bind(DUE_SPREAD)
    .fetch_all(reads)
    .await?;
    ids.into_iter().map(payment_id).collect()
}

/// The payment that has an order's reference.
pub(super) async fn with_order(
    connection: &mut PgConnection,
    order: &Order,
) -> Result<Option<PaymentId>, Error> {
    let id: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM payments WHERE principal = $1 AND order_ref = $2 AND NOT is_canceled",
    )
    .bind(&order.principal)
    .bind(&order.order_ref)
    .fetch_optional(connection)
    .await?;
    id.map(payment_id).transpose()
}

/// The payment that an attempt, capture, refund or dispute belongs to.
pub(super) async fn payment_of(
    connection: &mut PgConnection,
    reference: &str,
) -> Result<Option<PaymentId>, Error> {
    let reference = dispute::charge_of(reference);
    let (query, id) = if let Ok(attempt) = AttemptId::parse(reference) {
        (
            "SELECT payment_id FROM attempts WHERE id = $1",
            attempt.uuid(),
        )
    } else if let Ok(capture) = CaptureId::parse(reference) {
        (
            "SELECT payment_id FROM captures WHERE id = $1",
            capture.uuid(),
        )
    } else if let Ok(refund) = RefundId::parse(reference) {
        (
            "SELECT payment_id FROM refunds WHERE id = $1",
            refund.uuid(),
        )
    } else if let Ok(dispute) = DisputeId::parse(reference) {
        (
            "SELECT payment_id FROM disputes WHERE id = $1",
            dispute.uuid(),
        )
    } else {
        return Ok(None);
    };
    let found: Option<Uuid> = sqlx::query_scalar(query)
        .bind(id)
        .fetch_optional(connection)
        .await?;
    found.map(payment_id).transpose()
}

/// Notes a webhook's event. False: it was noted before.
pub(super) async fn note_webhook(
    connection: &mut PgConnection,
    provider: &str,
    event_id: &str,
    reference: &str,
    now_us: i64,
) -> Result<bool, Error> {
    let noted = sqlx::query(
        "INSERT INTO webhook_events (provider, event_id, reference, received_at_us) \
         VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(provider)
    .bind(event_id)
    .bind(reference)
    .bind(now_us)
    .execute(connection)
    .await?;
    Ok(noted.rows_affected() == 1)
}

pub(super) async fn payments(
    reads: Reads<'_, Postgres>,
    query: &PaymentsQuery,
) -> Result<Vec<Payment>, Error> {
    let mut sql: QueryBuilder<Postgres> =
        QueryBuilder::new(concat!(include_str!("load.sql"), "WHERE true"));
    if let Viewer::Client(principal) = &query.viewer {
        sql.push(" AND p.principal = ").push_bind(principal);
    }
    if let Some(filter) = &query.filter {
        sql.push(" AND ");
        push_filter(&mut sql, filter);
    }
    let (beyond, order) = if query.descending {
        (
            " AND (p.created_at_us, p.id) < (",
            " ORDER BY p.created_at_us DESC, p.id DESC LIMIT ",
        )
    } else {
        (
            " AND (p.created_at_us, p.id) > (",
            " ORDER BY p.created_at_us, p.id LIMIT ",
        )
    };
    if let Some((created_at_us, id)) = &query.after {
        let id = PaymentId::parse(id).map_err(|_| Error::Corrupt("cursor"))?;
        sql.push(beyond)
            .push_bind(*created_at_us)
            .push(", ")
            .push_bind(id.uuid())
            .push(")");
    }
    sql.push(order).push_bind(query.limit);
    let rows = sql.build().fetch_all(reads).await?;
    rows.iter()
        .map(|row| Ok(rows::loaded(row)?.payment))
        .collect()
}

/// The tree as SQL, every value bound.
fn push_filter(sql: &mut QueryBuilder<Postgres>, filter: &Expr) {
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

fn push_joined(sql: &mut QueryBuilder<Postgres>, parts: &[Expr], joint: &'static str) {
    sql.push("(");
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            sql.push(joint);
        }
        push_filter(sql, part);
    }
    sql.push(")");
}

fn push_comparison(sql: &mut QueryBuilder<Postgres>, comparison: &Comparison) {
    let column = match comparison.field {
        "state" => "p.state",
        "order_ref" => "p.order_ref",
        "customer_ref" => "p.customer_ref",
        "currency_code" => "p.currency",
        "create_time" => "p.created_at_us",
        "amount_minor" => "p.amount_minor",
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
    reads: Reads<'_, Postgres>,
    query: &SalesQuery,
) -> Result<Vec<SalesRow>, Error> {
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new("SELECT ");
    let groups = [
        ("to_char(day, 'YYYY-MM-DD')", query.by.day),
        ("category", query.by.category),
        ("product_id", query.by.product),
    ];
    for (column, grouped) in groups {
        sql.push(if grouped { column } else { "''" }).push(", ");
    }
    sql.push(
        "currency, SUM(amount_minor)::bigint AS amount_minor, SUM(quantity)::bigint AS quantity, \
         COUNT(DISTINCT payment_id) FILTER (WHERE kind = 'capture') AS payments \
         FROM sales_lines WHERE true",
    );
    for (operator, day) in [(" >= ", &query.from_day), (" < ", &query.to_day)] {
        if let Some(day) = day {
            sql.push(" AND day")
                .push(operator)
                .push_bind(day)
                .push("::text::date");
        }
    }
    sql.push(" GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4");
    let rows = sql.build().fetch_all(reads).await?;
    rows.iter()
        .map(|row| {
            Ok(SalesRow {
                day: row.try_get(0)?,
                category: row.try_get(1)?,
                product_id: row.try_get(2)?,
                currency: currency(row.try_get(3)?)?,
                amount_minor: row.try_get("amount_minor")?,
                quantity: row.try_get("quantity")?,
                payments: row.try_get("payments")?,
            })
        })
        .collect()
}

pub(super) async fn accounts(
    reads: Reads<'_, Postgres>,
    only: Option<Currency>,
) -> Result<Vec<LedgerAccount>, Error> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT account, currency, SUM(balance_minor)::bigint FROM ledger_balances \
         WHERE $1 IS NULL OR currency = $1 GROUP BY account, currency ORDER BY account, currency",
    )
    .bind(only.map(Currency::code))
    .fetch_all(reads)
    .await?;
    rows.into_iter()
        .map(|(account, code, balance_minor)| {
            Ok(LedgerAccount {
                account,
                currency: currency(&code)?,
                balance_minor,
            })
        })
        .collect()
}

pub(super) async fn entries(
    reads: Reads<'_, Postgres>,
    payment: Option<PaymentId>,
    after: Option<(i64, String)>,
    limit: i64,
) -> Result<Vec<LedgerEntry>, Error> {
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new(
        "SELECT id, kind, payment_id, source_id, recorded_at_us, \
             (SELECT jsonb_agg(jsonb_build_array(account, currency, amount_minor) ORDER BY line) \
              FROM ledger_postings WHERE transaction_id = t.id) AS postings \
         FROM ledger_transactions t WHERE true",
    );
    if let Some(payment) = payment {
        sql.push(" AND payment_id = ").push_bind(payment.uuid());
    }
    if let Some((recorded_at_us, id)) = after {
        let id = TransactionId::parse(&id).map_err(|_| Error::Corrupt("cursor"))?;
        sql.push(" AND (recorded_at_us, id) < (")
            .push_bind(recorded_at_us)
            .push(", ");
        sql.push_bind(id.uuid()).push(")");
    }
    sql.push(" ORDER BY recorded_at_us DESC, id DESC LIMIT ")
        .push_bind(limit);
    let rows = sql.build().fetch_all(reads).await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &PgRow) -> Result<LedgerEntry, Error> {
    let unreadable = |_| Error::Corrupt("id");
    let source = Source::from_uuid(row.try_get("kind")?, row.try_get("source_id")?);
    let payment: Option<Uuid> = row.try_get("payment_id")?;
    let payment = payment.map(payment_id).transpose()?;
    let id = TransactionId::from_uuid(row.try_get("id")?).map_err(unreadable)?;
    let Json(postings): Json<Vec<(String, String, i64)>> = row.try_get("postings")?;
    let postings = postings
        .into_iter()
        .map(|(account, code, amount_minor)| Ok((account, currency(&code)?, amount_minor)));
    Ok(LedgerEntry {
        id: id.to_string(),
        source: source.map_err(unreadable)?.ok_or(Error::Corrupt("kind"))?,
        payment_id: payment.map(|payment| payment.to_string()),
        postings: postings.collect::<Result<_, Error>>()?,
        recorded_at_us: row.try_get("recorded_at_us")?,
    })
}

pub(super) async fn revisions(reads: Reads<'_, Postgres>) -> Result<Revisions, Error> {
    let (first, last) =
        sqlx::query_as("SELECT revision + 1, payment_changes_settled() FROM payment_changes_swept")
            .fetch_one(reads)
            .await?;
    Ok(Revisions { first, last })
}

pub(super) async fn changes(
    reads: Reads<'_, Postgres>,
    viewer: &Viewer,
    after: i64,
    limit: i64,
) -> Result<(Vec<Change>, i64), Error> {
    let principal = match viewer {
        Viewer::Operator => None,
        Viewer::Client(principal) => Some(principal),
    };
    let rows: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT revision, CASE WHEN $1 IS NULL OR principal = $1 THEN body END \
         FROM payment_changes WHERE revision > $2 AND revision <= payment_changes_settled() \
         ORDER BY revision LIMIT $3",
    )
    .bind(principal)
    .bind(after)
    .bind(limit)
    .fetch_all(reads)
    .await?;
    let read_to = rows.last().map_or(after, |(revision, _)| *revision);
    let visible =
        |(revision, body): (i64, Option<Vec<u8>>)| body.map(|body| Change { revision, body });
    Ok((rows.into_iter().filter_map(visible).collect(), read_to))
}

pub(super) async fn sweep(
    connection: &mut PgConnection,
    retention: Retention,
) -> Result<u64, Error> {
    let changes: i64 = sqlx::query_scalar(
        "WITH gone AS ( \
             DELETE FROM payment_changes WHERE revision IN \
                 (SELECT revision FROM payment_changes WHERE at_us < $1 ORDER BY at_us LIMIT $2) \
             RETURNING revision), \
         noted AS ( \
             UPDATE payment_changes_swept SET revision = greatest(revision, \
                 (SELECT max(revision) FROM gone))) \
         SELECT count(*) FROM gone",
    )
    .bind(retention.changes_before_us)
    .bind(i64::from(retention.rows_max))
    .fetch_one(&mut *connection)
    .await?;
    let webhooks = sqlx::query(
        "DELETE FROM webhook_events WHERE (provider, event_id) IN \
             (SELECT provider, event_id FROM webhook_events WHERE received_at_us < $1 \
              ORDER BY received_at_us LIMIT $2)",
    )
    .bind(retention.webhooks_before_us)
    .bind(i64::from(retention.rows_max))
    .execute(&mut *connection)
    .await?;
    let windows = sqlx::query(
        "DELETE FROM spending WHERE (principal, currency, window_us, start_us) IN \
             (SELECT principal, currency, window_us, start_us FROM spending \
              WHERE start_us + window_us < $1 ORDER BY start_us + window_us LIMIT $2)",
    )
    .bind(retention.windows_before_us)
    .bind(i64::from(retention.rows_max))
    .execute(connection)
    .await?;
    Ok(changes.unsigned_abs() + webhooks.rows_affected() + windows.rows_affected())
}

fn payment_id(uuid: Uuid) -> Result<PaymentId, Error> {
    PaymentId::from_uuid(uuid).map_err(|_| Error::Corrupt("id"))
}

fn currency(code: &str) -> Result<Currency, Error> {
    Currency::parse(code).map_err(|_| Error::Corrupt("currency"))
}
