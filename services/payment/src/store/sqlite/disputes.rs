//! Disputes as rows, and the evidence that is kept for them.

use super::rows::{asked, document, id, json, name, number_of};
use crate::dispute::{Dispute, DisputeState, Evidence, Keeping, Response};
use crate::error::Error;
use crate::store::{DisputesQuery, ListedDispute, Viewer};
use kernel::{AttemptId, Currency, DisputeId, Money, PaymentId};
use mesh_store::Reads;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};

/// The disputes of payments whose ids are given as JSON, in the order of their numbers.
pub(super) async fn of_payments(
    connection: &mut SqliteConnection,
    ids: &str,
) -> Result<Vec<(PaymentId, Dispute)>, Error> {
    let rows = sqlx::query(
        "SELECT * FROM disputes WHERE payment_id IN (SELECT value FROM json_each(?)) \
         ORDER BY payment_id, number",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    rows.iter().map(of_payment).collect()
}

/// A page of disputes.
pub(super) async fn page(
    reads: Reads<'_, Sqlite>,
    query: &DisputesQuery,
) -> Result<Vec<ListedDispute>, Error> {
    let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new(
        "SELECT d.*, p.provider FROM disputes d JOIN payments p ON p.id = d.payment_id WHERE 1",
    );
    if let Viewer::Client(principal) = &query.viewer {
        sql.push(" AND p.principal = ").push_bind(principal);
    }
    if let Some(payment) = query.payment {
        sql.push(" AND d.payment_id = ")
            .push_bind(payment.to_string());
    }
    if let Some(state) = query.state {
        sql.push(" AND d.state = ").push_bind(state.name());
    }
    if let Some((created_at_us, id)) = query.after {
        sql.push(" AND (d.created_at_us, d.id) < (")
            .push_bind(created_at_us)
            .push(", ")
            .push_bind(id.to_string())
            .push(")");
    }
    sql.push(" ORDER BY d.created_at_us DESC, d.id DESC LIMIT ")
        .push_bind(query.limit);
    let rows = sql.build().fetch_all(reads).await?;
    let listed = |row: &SqliteRow| {
        let (payment, dispute) = of_payment(row)?;
        let provider = row.try_get("provider")?;
        Ok(ListedDispute {
            payment,
            provider,
            dispute,
        })
    };
    rows.iter().map(listed).collect()
}

/// Keeps and drops evidence.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    keeping: &[Keeping],
) -> Result<(), Error> {
    for keeping in keeping {
        let (Keeping::Keep(id, _) | Keeping::Drop(id)) = keeping;
        sqlx::query("DELETE FROM dispute_evidence WHERE dispute_id = ?")
            .bind(id.to_string())
            .execute(&mut *connection)
            .await?;
        let Keeping::Keep(id, evidence) = keeping else {
            continue;
        };
        for (kind, content_type, body) in evidence.parts() {
            sqlx::query(
                "INSERT INTO dispute_evidence (dispute_id, kind, content_type, body) VALUES (?, ?, ?, ?)",
            )
            .bind(id.to_string())
            .bind(kind)
            .bind(content_type)
            .bind(body)
            .execute(&mut *connection)
            .await?;
        }
    }
    Ok(())
}

/// The evidence that is kept for a dispute.
pub(super) async fn evidence(reads: Reads<'_, Sqlite>, id: DisputeId) -> Result<Evidence, Error> {
    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT kind, content_type, body FROM dispute_evidence WHERE dispute_id = ? ORDER BY kind",
    )
    .bind(id.to_string())
    .fetch_all(reads)
    .await?;
    let mut evidence = Evidence::default();
    for (kind, content_type, body) in rows {
        if !evidence.add_part(&kind, &content_type, body) {
            return Err(Error::Corrupt("evidence"));
        }
    }
    Ok(evidence)
}

pub(super) async fn save(
    connection: &mut SqliteConnection,
    payment: PaymentId,
    number: usize,
    dispute: &Dispute,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO disputes (id, payment_id, number, attempt_id, provider_ref, state, currency, \
             amount_minor, reason, evidence_due_at_us, withdrawn_at_us, reinstated_at_us, response, \
             responses, responded_at_us, sent_at_us, tries, due_at_us, evidence, failure, created_at_us, \
             updated_at_us) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, amount_minor = excluded.amount_minor, \
             currency = excluded.currency, evidence_due_at_us = excluded.evidence_due_at_us, \
             withdrawn_at_us = excluded.withdrawn_at_us, reinstated_at_us = excluded.reinstated_at_us, \
             response = excluded.response, responses = excluded.responses, \
             responded_at_us = excluded.responded_at_us, sent_at_us = excluded.sent_at_us, \
             tries = excluded.tries, due_at_us = excluded.due_at_us, evidence = excluded.evidence, \
             failure = excluded.failure, updated_at_us = excluded.updated_at_us",
    )
    .bind(dispute.id.to_string())
    .bind(payment.to_string())
    .bind(number_of(number))
    .bind(dispute.attempt.to_string())
    .bind(&dispute.provider_ref)
    .bind(dispute.state.name())
    .bind(dispute.amount.currency().code())
    .bind(dispute.amount.amount_minor())
    .bind(&dispute.reason)
    .bind(dispute.evidence_due_at_us)
    .bind(dispute.withdrawn_at_us)
    .bind(dispute.reinstated_at_us)
    .bind(dispute.response.name())
    .bind(dispute.responses)
    .bind(dispute.responded_at_us)
    .bind(dispute.asked.sent_at_us)
    .bind(dispute.asked.progress.tries)
    .bind(dispute.asked.progress.due_at_us)
    .bind(json(&dispute.evidence))
    .bind(dispute.failure.as_ref().map(json))
    .bind(dispute.created_at_us)
    .bind(dispute.updated_at_us)
    .execute(connection)
    .await?;
    Ok(())
}

fn of_payment(row: &SqliteRow) -> Result<(PaymentId, Dispute), Error> {
    Ok((id(row, "payment_id", PaymentId::parse)?, dispute(row)?))
}

fn dispute(row: &SqliteRow) -> Result<Dispute, Error> {
    let currency: String = row.try_get("currency")?;
    let currency = Currency::parse(&currency).map_err(|_| Error::Corrupt("currency"))?;
    let amount = Money::new(currency, row.try_get("amount_minor")?);
    Ok(Dispute {
        id: id(row, "id", DisputeId::parse)?,
        attempt: id(row, "attempt_id", AttemptId::parse)?,
        provider_ref: row.try_get("provider_ref")?,
        state: name(row, "state", DisputeState::parse)?,
        amount: amount.map_err(|_| Error::Corrupt("amount_minor"))?,
        reason: row.try_get("reason")?,
        evidence_due_at_us: row.try_get("evidence_due_at_us")?,
        withdrawn_at_us: row.try_get("withdrawn_at_us")?,
        reinstated_at_us: row.try_get("reinstated_at_us")?,
        response: name(row, "response", Response::parse)?,
        responses: row.try_get("responses")?,
        responded_at_us: row.try_get("responded_at_us")?,
        asked: asked(row)?,
        evidence: document(row, "evidence")?.ok_or(Error::Corrupt("evidence"))?,
        failure: document(row, "failure")?,
        created_at_us: row.try_get("created_at_us")?,
        updated_at_us: row.try_get("updated_at_us")?,
    })
}
