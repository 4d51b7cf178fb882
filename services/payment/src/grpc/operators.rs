//! What operators look at, as the contract has it: webhooks that came in, and calls whose outcome stays unknown.

use super::{next_page, requests};
use crate::error::Error;
use crate::store::{AuditLog, AuditQuery, Books, Desk, Reconciliations, WebhooksQuery};
use crate::wire;
use kernel::PaymentId;
use proto::commerce::payment::v1 as pb;
use std::sync::Arc;

/// What operators are shown.
#[derive(Clone)]
pub struct Operators {
    /// Where it is kept.
    pub desk: Arc<dyn Desk>,
    /// Who did what.
    pub audit: Arc<dyn AuditLog>,
    /// Comparisons with providers.
    pub reconciliations: Arc<dyn Reconciliations>,
    /// The books.
    pub books: Arc<dyn Books>,
    /// After what time an unknown outcome waits for a person.
    pub escalate_us: i64,
}

impl Operators {
    pub(super) async fn webhooks(
        &self,
        request: pb::ListWebhooksRequest,
    ) -> Result<pb::ListWebhooksResponse, Error> {
        let arguments = [request.provider.as_str()];
        let query = WebhooksQuery {
            provider: Some(request.provider.clone()).filter(|name| !name.is_empty()),
            after: requests::after(&request.page_token, &arguments)?,
            limit: requests::page_size(request.page_size)? + 1,
        };
        let mut webhooks = self.desk.webhooks(&query).await?;
        let next_page_token = next_page(&mut webhooks, query.limit, |last| {
            requests::token(&arguments, last.received_at_us, last.event_id.clone())
        });
        Ok(pb::ListWebhooksResponse {
            webhooks: webhooks.into_iter().map(wire::webhook).collect(),
            next_page_token,
        })
    }

    /// The payment that a webhook is about, and what of it.
    pub(super) async fn named(
        &self,
        provider: &str,
        event_id: &str,
    ) -> Result<(PaymentId, String), Error> {
        let missing = || Error::WebhookNotFound(event_id.to_owned());
        let webhook = self.desk.webhook(provider, event_id).await?;
        let webhook = webhook.ok_or_else(missing)?;
        let payment = self.desk.payment_of(&webhook.reference).await?;
        Ok((payment.ok_or_else(missing)?, webhook.reference))
    }

    pub(super) async fn audit(
        &self,
        request: pb::ListAuditRecordsRequest,
    ) -> Result<pb::ListAuditRecordsResponse, Error> {
        let arguments = [request.payment_id.as_str(), request.principal.as_str()];
        let of = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let query = AuditQuery {
            object: of(&request.payment_id),
            principal: of(&request.principal),
            before: requests::number(&request.page_token, &arguments)?,
            limit: requests::page_size(request.page_size)? + 1,
        };
        let mut records = self.audit.records(&query).await?;
        let next_page_token = next_page(&mut records, query.limit, |last| {
            requests::number_token(&arguments, last.number)
        });
        Ok(pb::ListAuditRecordsResponse {
            records: records.into_iter().map(wire::audit_record).collect(),
            next_page_token,
        })
    }

    pub(super) async fn unresolved(
        &self,
        request: pb::ListUnresolvedPaymentsRequest,
        now_us: i64,
    ) -> Result<pb::ListUnresolvedPaymentsResponse, Error> {
        let before_us = now_us - self.escalate_us;
        let after = requests::after(&request.page_token, &[])?;
        let limit = requests::page_size(request.page_size)? + 1;
        let mut payments = self.desk.unresolved(before_us, after, limit).await?;
        let next_page_token = next_page(&mut payments, limit, |last| {
            requests::token(&[], last.created_at_us, last.id.to_string())
        });
        let calls = payments.iter().flat_map(|payment| {
            let calls = payment.unresolved(before_us);
            calls
                .into_iter()
                .map(move |call| wire::unresolved(payment, &call))
        });
        Ok(pb::ListUnresolvedPaymentsResponse {
            calls: calls.collect(),
            next_page_token,
        })
    }
}
