//! Disputes as rows, and the evidence that is kept for them.

use super::rows::{asked, id};
use super::write::bytea;
use crate::dispute::{Dispute, DisputeState, Evidence, Keeping, Kept, Response};
use crate::error::Error;
use crate::failure::Failure;
use crate::store::{DisputesQuery, ListedDispute, Viewer};
use kernel::{AttemptId, Currency, DisputeId, Money, PaymentId};
use mesh_store::Reads;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};

/// A dispute's columns.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DisputeRow {
    id: String,
    payment_id: String,
    number: usize,
    attempt_id: String,
    provider_ref: String,
    state: String,
    currency: String,
    amount_minor: i64,
    reason: String,
    evidence_due_at_us: Option<i64>,
    withdrawn_at_us: Option<i64>,
    reinstated_at_us: Option<i64>,
    response: String,
    responses: u32,
    responded_at_us: Option<i64>,
    sent_at_us: Option<i64>,
    tries: u32,
    due_at_us: i64,
    evidence: Vec<Kept>,
    failure: Option<Failure>,
    created_at_us: i64,
    updated_at_us: i64,
}

impl DisputeRow {
    pub(super) fn of(payment: PaymentId, number: usize, dispute: &Dispute) -> Self {
        Self {
            id: dispute.id.uuid().to_string(),
            payment_id: payment.uuid().to_string(),
            number,
            attempt_id: dispute.attempt.uuid().to_string(),
            provider_ref: dispute.provider_ref.clone(),
            state: dispute.state.name().to_owned(),
            currency: dispute.amount.currency().code().to_owned(),
            amount_minor: dispute.amount.amount_minor(),
            reason: dispute.reason.clone(),
            evidence_due_at_us: dispute.evidence_due_at_us,
            withdrawn_at_us: dispute.withdrawn_at_us,
            reinstated_at_us: dispute.reinstated_at_us,
            response: dispute.response.name().to_owned(),
            responses: dispute.responses,
            responded_at_us: dispute.responded_at_us,
            sent_at_us: dispute.asked.sent_at_us,
            tries: dispute.asked.progress.tries,
            due_at_us: dispute.asked.progress.due_at_us,
            evidence: dispute.evidence.clone(),
            failure: dispute.failure.clone(),
            created_at_us: dispute.created_at_us,
            updated_at_us: dispute.updated_at_us,
        }
    }

    pub(super) fn read(self) -> Result<Dispute, Error> {
        let currency = Currency::parse(&self.currency).map_err(|_| Error::Corrupt("currency"))?;
        Ok(Dispute {
            id: id(&self.id, DisputeId::from_uuid)?,
            attempt: id(&self.attempt_id, AttemptId::from_uuid)?,
            provider_ref: self.provider_ref,
            state: DisputeState::parse(&self.state).ok_or(Error::Corrupt("state"))?,
            amount: Money::new(currency, self.amount_minor)
                .map_err(|_| Error::Corrupt("amount_minor"))?,
            reason: self.reason,
            evidence_due_at_us: self.evidence_due_at_us,
            withdrawn_at_us: self.withdrawn_at_us,
            reinstated_at_us: self.reinstated_at_us,
            response: Response::parse(&self.response).ok_or(Error::Corrupt("response"))?,
            responses: self.responses,
            responded_at_us: self.responded_at_us,
            asked: asked(self.sent_at_us, self.tries, self.due_at_us),
            evidence: self.evidence,
            failure: self.failure,
            created_at_us: self.created_at_us,
            updated_at_us: self.updated_at_us,
        })
    }
}

/// A page of disputes.
pub(super) async fn page(
    reads: Reads<'_, Postgres>,
    query: &DisputesQuery,
) -> Result<Vec<ListedDispute>, Error> {
    let mut sql: QueryBuilder<Postgres> = QueryBuilder::new(
        "SELECT to_jsonb(d), p.provider FROM disputes d JOIN payments p ON p.id = d.payment_id WHERE true",
    );
    if let Viewer::Client(principal) = &query.viewer {
        sql.push(" AND p.principal = ").push_bind(principal);
    }
    if let Some(payment) = query.payment {
        sql.push(" AND d.payment_id = ").push_bind(payment.uuid());
    }
    if let Some(state) = query.state {
        sql.push(" AND d.state = ").push_bind(state.name());
    }
    if let Some((created_at_us, id)) = query.after {
        sql.push(" AND (d.created_at_us, d.id) < (")
            .push_bind(created_at_us)
            .push(", ")
            .push_bind(id.uuid())
            .push(")");
    }
    sql.push(" ORDER BY d.created_at_us DESC, d.id DESC LIMIT ")
        .push_bind(query.limit);
    let rows: Vec<(Json<DisputeRow>, String)> = sql.build_query_as().fetch_all(reads).await?;
    let read = |(Json(row), provider): (Json<DisputeRow>, String)| {
        Ok(ListedDispute {
            payment: id(&row.payment_id, PaymentId::from_uuid)?,
            provider,
            dispute: row.read()?,
        })
    };
    rows.into_iter().map(read).collect()
}

/// The evidence that is kept for a dispute.
pub(super) async fn evidence(reads: Reads<'_, Postgres>, id: DisputeId) -> Result<Evidence, Error> {
    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT kind, content_type, body FROM dispute_evidence WHERE dispute_id = $1 ORDER BY kind",
    )
    .bind(id.uuid())
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

/// Rows of evidence that is to be kept.
pub(super) fn kept(keeping: &[Keeping]) -> Vec<Value> {
    let kept = keeping.iter().filter_map(|keeping| match keeping {
        Keeping::Keep(id, evidence) => Some((*id, evidence)),
        Keeping::Drop(_) => None,
    });
    kept.flat_map(|(id, evidence)| {
        evidence.parts().map(move |(kind, content_type, body)| {
            json!({
                "dispute_id": id.uuid().to_string(),
                "kind": kind,
                "content_type": content_type,
                "body": bytea(body),
            })
        })
    })
    .collect()
}

/// The disputes whose evidence is dropped. What is kept is new: what was kept before was dropped with its answer.
pub(super) fn dropped(keeping: &[Keeping]) -> Vec<String> {
    let dropped = keeping.iter().filter_map(|keeping| match keeping {
        Keeping::Drop(id) => Some(id.uuid().to_string()),
        Keeping::Keep(_, _) => None,
    });
    dropped.collect()
}
