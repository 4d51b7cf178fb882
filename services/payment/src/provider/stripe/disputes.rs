//! Disputes at Stripe: found by the intent of their charge, answered once.
//!
//! Files are uploaded first, each under a key of its own, so that a repeated response uploads none twice.

use super::answer::Problem;
use super::form::Form;
use super::messages::{Dispute, DisputeStatus, File, Page, REFERENCE};
use super::upload::Upload;
use super::{NAME, PAGE, Stripe};
use crate::dispute::{DisputeState, EvidenceFile, FileKind, SeenDispute, TextKind};
use crate::provider::https::asked;
use crate::provider::stripe::amount::from_stripe;
use crate::provider::{AcceptDispute, ProviderError, SubmitEvidence};
use kernel::Currency;

/// What files of evidence are for, by Stripe's names.
const PURPOSE: &str = "dispute_evidence";

impl Stripe {
    pub(super) async fn disputes_of(
        &self,
        charge_reference: &str,
    ) -> Result<Vec<SeenDispute>, ProviderError> {
        let Some(intent) = self.intent_id(charge_reference).await? else {
            return Ok(Vec::new());
        };
        let form = Form::default()
            .with("payment_intent", intent)
            .with("limit", PAGE);
        let page = self.client.get("/v1/disputes", &form).await;
        let page: Page<Dispute> = page.map_err(|problem| asked(problem.refused()))?;
        let mut all = page.data.iter().map(seen).collect::<Result<Vec<_>, _>>()?;
        all.reverse(); // Stripe lists the newest first.
        Ok(all)
    }

    pub(super) async fn hand_in(
        &self,
        request: &SubmitEvidence,
    ) -> Result<SeenDispute, ProviderError> {
        let mut form = Form::default();
        for (kind, text) in &request.evidence.texts {
            form = form.with(format!("evidence[{}]", text_name(*kind)), text);
        }
        for file in &request.evidence.files {
            let id = self.upload(&request.reference, file).await?;
            form = form.with(format!("evidence[{}]", file_name(file.kind)), id);
        }
        let path = format!("/v1/disputes/{}", request.dispute_ref);
        let form = form.with("submit", true);
        let key = Some(request.reference.as_str());
        let answer = self.client.post(&path, &form, key).await;
        seen(&answer.map_err(Problem::refused)?)
    }

    pub(super) async fn give_up(
        &self,
        request: &AcceptDispute,
    ) -> Result<SeenDispute, ProviderError> {
        let path = format!("/v1/disputes/{}/close", request.dispute_ref);
        let key = Some(request.reference.as_str());
        let answer = self.client.post(&path, &Form::default(), key).await;
        seen(&answer.map_err(Problem::refused)?)
    }

    /// The attempt of an intent: as noted, else as its metadata say.
    pub(super) async fn attempt_of(&self, intent: &str) -> Result<Option<String>, ProviderError> {
        if let Some(reference) = self.references.charge_named(NAME, intent).await? {
            return Ok(Some(reference));
        }
        let mut intent = self.intent(intent).await?;
        Ok(intent.metadata.remove(REFERENCE))
    }

    async fn upload(&self, reference: &str, file: &EvidenceFile) -> Result<String, ProviderError> {
        let kind = file.kind.name();
        let upload = Upload {
            purpose: PURPOSE,
            name: &format!("{kind}.{}", file.content_type.extension()),
            bytes: &file.bytes,
        };
        let key = format!("{reference}-{kind}");
        let uploaded = self.client.upload("/v1/files", &upload, &key).await;
        // A file alone is no evidence yet, so that nothing was handed in.
        let File { id } = uploaded.map_err(|problem| asked(problem.refused()))?;
        Ok(id)
    }
}

fn seen(dispute: &Dispute) -> Result<SeenDispute, ProviderError> {
    let currency = Currency::parse(&dispute.currency.to_uppercase()).ok();
    let amount = currency.and_then(|currency| from_stripe(currency, dispute.amount));
    let amount = amount.filter(|amount| amount.amount_minor() > 0);
    let moved = dispute.balance_transactions.iter();
    let withdrawn = moved.clone().any(|moved| moved.amount < 0);
    Ok(SeenDispute {
        provider_ref: dispute.id.clone(),
        state: match dispute.status {
            DisputeStatus::WarningNeedsResponse | DisputeStatus::WarningUnderReview => {
                DisputeState::Inquiry
            }
            DisputeStatus::WarningClosed => DisputeState::Closed,
            DisputeStatus::NeedsResponse => DisputeState::NeedsResponse,
            DisputeStatus::UnderReview => DisputeState::UnderReview,
            DisputeStatus::Won => DisputeState::Won,
            DisputeStatus::Lost => DisputeState::Lost,
            DisputeStatus::Other => DisputeState::Inquiry, // Money that was taken says more.
        },
        amount: amount.ok_or_else(|| {
            ProviderError::Unknown(format!("dispute {} has no amount", dispute.id))
        })?,
        reason: dispute.reason.clone(),
        evidence_due_at_us: dispute
            .evidence_details
            .due_by
            .map(|seconds| seconds.saturating_mul(1_000_000)),
        withdrawn,
        reinstated: withdrawn && moved.clone().any(|moved| moved.amount > 0),
        responded: dispute.evidence_details.submission_count > 0,
    })
}

/// The name of a text at Stripe.
fn text_name(kind: TextKind) -> &'static str {
    match kind {
        TextKind::Explanation => "uncategorized_text",
        TextKind::CustomerEmail => "customer_email_address",
        TextKind::ProductDescription
        | TextKind::CustomerName
        | TextKind::ServiceDate
        | TextKind::ShippingAddress
        | TextKind::ShippingCarrier
        | TextKind::ShippingDate
        | TextKind::ShippingTrackingNumber
        | TextKind::RefundPolicyDisclosure
        | TextKind::RefundRefusalExplanation
        | TextKind::CancellationPolicyDisclosure
        | TextKind::CancellationRebuttal
        | TextKind::AccessActivityLog
        | TextKind::DuplicateChargeExplanation => kind.name(),
    }
}

/// The name of a file at Stripe.
fn file_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Other => "uncategorized_file",
        FileKind::Receipt
        | FileKind::CustomerCommunication
        | FileKind::CustomerSignature
        | FileKind::ShippingDocumentation
        | FileKind::ServiceDocumentation
        | FileKind::RefundPolicy
        | FileKind::CancellationPolicy
        | FileKind::DuplicateChargeDocumentation => kind.name(),
    }
}
