//! Payments as reconciliation compares them, loaded by the page: each with its entries and what the provider listed.

use super::super::reconcile::Touched;
use super::super::reconcile::rows::{self, LineRow};
use super::rows::json;
use crate::error::Error;
use crate::payment::Payment;
use crate::reconcile::{Booked, Case, Line};
use kernel::PaymentId;
use sqlx::{Row as _, SqliteConnection};
use std::collections::HashMap;

/// The payments that lines name, by the references that name them.
pub(super) async fn payments_of(
    connection: &mut SqliteConnection,
    provider: &str,
    lines: &[Line],
) -> Result<HashMap<String, PaymentId>, Error> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "WITH named AS (SELECT DISTINCT value AS id FROM json_each(?)), \
         part AS (SELECT a.id, a.payment_id FROM attempts a JOIN named USING (id) \
             UNION ALL SELECT c.id, c.payment_id FROM captures c JOIN named USING (id) \
             UNION ALL SELECT r.id, r.payment_id FROM refunds r JOIN named USING (id) \
             UNION ALL SELECT p.id, p.id FROM payments p JOIN named USING (id)) \
         SELECT part.id, part.payment_id FROM part JOIN payments p ON p.id = part.payment_id AND p.provider = ?",
    )
    .bind(json(&rows::references(lines)))
    .bind(provider)
    .fetch_all(connection)
    .await?;
    found
        .into_iter()
        .map(|(reference, payment)| Ok((reference, payment_id(&payment)?)))
        .collect()
}

pub(super) async fn touched(
    connection: &mut SqliteConnection,
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
    connection: &mut SqliteConnection,
    provider: &str,
    payments: &[PaymentId],
) -> Result<Vec<Case>, Error> {
    let ids: Vec<String> = payments.iter().map(ToString::to_string).collect();
    let ids = json(&ids);
    let rows = sqlx::query("SELECT * FROM payments WHERE id IN (SELECT value FROM json_each(?))")
        .bind(&ids)
        .fetch_all(&mut *connection)
        .await?;
    let mut payments = rows
        .iter()
        .map(super::rows::payment)
        .collect::<Result<Vec<Payment>, _>>()?;
    super::rows::load_parts(connection, &mut payments).await?;
    let lines: Vec<LineRow> = sqlx::query_as(
        "SELECT * FROM statement_lines WHERE provider = ? \
         AND payment_id IN (SELECT value FROM json_each(?))",
    )
    .bind(provider)
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let booked = sqlx::query(
        "SELECT t.payment_id, t.source_id, p.currency, SUM(p.amount_minor) AS amount_minor \
         FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id AND p.account = ? \
         WHERE t.kind IN ('capture', 'refund') AND t.payment_id IN (SELECT value FROM json_each(?)) \
         GROUP BY t.payment_id, t.source_id, p.currency",
    )
    .bind(format!("assets:provider:{provider}"))
    .bind(&ids)
    .fetch_all(connection)
    .await?;
    let mut cases: HashMap<String, Case> = payments
        .into_iter()
        .map(|payment| (payment.id.to_string(), Case::of(payment)))
        .collect();
    for mut line in lines {
        let payment = line.payment_id.take().unwrap_or_default();
        if let Some(case) = cases.get_mut(&payment) {
            case.lines.push(line.read()?);
        }
    }
    for row in &booked {
        let amount_minor: i64 = row.try_get("amount_minor")?;
        if let Some(case) = cases.get_mut(row.try_get::<&str, _>("payment_id")?) {
            case.booked.push(Booked {
                source: row.try_get("source_id")?,
                amount: rows::money(row.try_get("currency")?, amount_minor.saturating_abs())?,
            });
        }
    }
    Ok(cases.into_values().collect())
}

pub(super) fn payment_id(text: &str) -> Result<PaymentId, Error> {
    PaymentId::parse(text).map_err(|_| Error::Corrupt("payment_id"))
}
