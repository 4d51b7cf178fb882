//! Payments as reconciliation compares them, loaded by the page: each with its entries and what the provider listed.

use super::super::reconcile::Touched;
use super::super::reconcile::rows::{self, LineRow};
use crate::error::Error;
use crate::ledger::Source;
use crate::reconcile::{Booked, Case, Line};
use kernel::{AttemptId, CaptureId, PaymentId, RefundId};
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row as _};
use std::collections::HashMap;

/// The UUID in a reference of ours, whatever it names.
fn uuid_of(reference: &str) -> Option<Uuid> {
    AttemptId::parse(reference)
        .map(AttemptId::uuid)
        .or_else(|_| CaptureId::parse(reference).map(CaptureId::uuid))
        .or_else(|_| RefundId::parse(reference).map(RefundId::uuid))
        .or_else(|_| PaymentId::parse(reference).map(PaymentId::uuid))
        .ok()
}

/// The payments that lines name, by the references that name them.
pub(super) async fn payments_of(
    connection: &mut PgConnection,
    provider: &str,
    lines: &[Line],
) -> Result<HashMap<String, PaymentId>, Error> {
    let named: HashMap<Uuid, &str> = rows::references(lines)
        .into_iter()
        .filter_map(|reference| Some((uuid_of(reference)?, reference)))
        .collect();
    let ids: Vec<Uuid> = named.keys().copied().collect();
    let found: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "WITH part AS (SELECT id, payment_id FROM attempts WHERE id = ANY ($1) \
             UNION ALL SELECT id, payment_id FROM captures WHERE id = ANY ($1) \
             UNION ALL SELECT id, payment_id FROM refunds WHERE id = ANY ($1) \
             UNION ALL SELECT id, id FROM payments WHERE id = ANY ($1)) \
         SELECT part.id, part.payment_id FROM part \
         JOIN payments p ON p.id = part.payment_id AND p.provider = $2",
    )
    .bind(ids)
    .bind(provider)
    .fetch_all(connection)
    .await?;
    found
        .into_iter()
        .filter_map(|(id, payment)| Some((*named.get(&id)?, payment)))
        .map(|(reference, payment)| Ok((reference.to_owned(), payment_id(payment)?)))
        .collect()
}

pub(super) async fn touched(
    connection: &mut PgConnection,
    provider: &str,
    lines: &[Line],
    found: &HashMap<String, PaymentId>,
) -> Result<Touched, Error> {
    let mut payments = Vec::new();
    let mut strangers = Vec::new();
    for line in lines {
        match rows::payment_of(line, found) {
            Some(payment) => payments.push(payment),
            None => strangers.push(line.clone()),
        }
    }
    payments.sort_unstable();
    payments.dedup();
    Ok(Touched {
        cases: cases(connection, provider, &payments).await?,
        strangers,
    })
}

pub(super) async fn cases(
    connection: &mut PgConnection,
    provider: &str,
    payments: &[PaymentId],
) -> Result<Vec<Case>, Error> {
    let uuids: Vec<Uuid> = payments.iter().map(|payment| payment.uuid()).collect();
    let texts: Vec<String> = payments.iter().map(ToString::to_string).collect();
    let rows = sqlx::query(concat!(include_str!("load.sql"), "WHERE p.id = ANY ($1)"))
        .bind(&uuids)
        .fetch_all(&mut *connection)
        .await?;
    let lines: Vec<LineRow> = sqlx::query_as(
        "SELECT * FROM statement_lines WHERE provider = $1 AND payment_id = ANY ($2)",
    )
    .bind(provider)
    .bind(texts)
    .fetch_all(&mut *connection)
    .await?;
    let booked = sqlx::query(
        "SELECT t.payment_id, t.kind, t.source_id, p.currency, sum(p.amount_minor)::bigint AS amount_minor \
         FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id AND p.account = $1 \
         WHERE t.kind IN ('capture', 'refund') AND t.payment_id = ANY ($2) \
         GROUP BY t.payment_id, t.kind, t.source_id, p.currency",
    )
    .bind(format!("assets:provider:{provider}"))
    .bind(&uuids)
    .fetch_all(connection)
    .await?;
    let mut cases: HashMap<PaymentId, Case> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let payment = super::rows::loaded(row)?.payment;
        cases.insert(payment.id, Case::of(payment));
    }
    for mut line in lines {
        let payment = PaymentId::parse(&line.payment_id.take().unwrap_or_default());
        if let Some(case) = payment.ok().and_then(|payment| cases.get_mut(&payment)) {
            case.lines.push(line.read()?);
        }
    }
    for row in &booked {
        let source = Source::from_uuid(row.try_get("kind")?, row.try_get("source_id")?);
        let source = source
            .ok()
            .flatten()
            .ok_or(Error::Corrupt("source"))?
            .to_string();
        let amount_minor: i64 = row.try_get("amount_minor")?;
        let amount = rows::money(row.try_get("currency")?, amount_minor.saturating_abs())?;
        if let Some(case) = cases.get_mut(&payment_id(row.try_get("payment_id")?)?) {
            case.booked.push(Booked { source, amount });
        }
    }
    Ok(cases.into_values().collect())
}

pub(super) fn payment_id(uuid: Uuid) -> Result<PaymentId, Error> {
    PaymentId::from_uuid(uuid).map_err(|_| Error::Corrupt("payment_id"))
}
