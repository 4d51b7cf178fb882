//! Disputes as protobuf.

use super::{failure, money, timestamp};
use crate::dispute::{Dispute, DisputeState, Kept, Response};
use crate::payment::Payment;
use crate::store::Begun;
use kernel::PaymentId;
use proto::commerce::payment::v1 as pb;

/// A dispute as clients see it.
pub fn dispute(payment: PaymentId, provider: &str, dispute: &Dispute) -> pb::Dispute {
    pb::Dispute {
        id: dispute.id.to_string(),
        payment_id: payment.to_string(),
        state: state(dispute.state).into(),
        amount: Some(money(dispute.amount)),
        reason: dispute.reason.clone(),
        provider: provider.to_owned(),
        provider_reference: dispute.provider_ref.clone(),
        evidence_due_time: dispute.evidence_due_at_us.map(timestamp),
        withdraw_time: dispute.withdrawn_at_us.map(timestamp),
        reinstate_time: dispute.reinstated_at_us.map(timestamp),
        response: match dispute.response {
            Response::None => pb::dispute::Response::Unspecified,
            Response::Submitting => pb::dispute::Response::Submitting,
            Response::Submitted => pb::dispute::Response::Submitted,
            Response::Accepting => pb::dispute::Response::Accepting,
            Response::Accepted => pb::dispute::Response::Accepted,
        }
        .into(),
        evidence: dispute.evidence.iter().map(part).collect(),
        last_error: dispute.failure.as_ref().map(failure),
        create_time: Some(timestamp(dispute.created_at_us)),
        update_time: Some(timestamp(dispute.updated_at_us)),
    }
}

/// The dispute that a command responds to.
pub(super) fn begun(payment: &Payment, begun: Option<Begun>) -> Option<pb::Dispute> {
    let found = payment
        .disputes
        .iter()
        .find(|of| Some(Begun::Response(of.id)) == begun);
    found.map(|found| of(payment, found))
}

/// A dispute of a payment, for an event.
pub(super) fn of(payment: &Payment, of: &Dispute) -> pb::Dispute {
    dispute(payment.id, &payment.order.provider, of)
}

/// A state as the contract has it.
pub fn state(state: DisputeState) -> pb::dispute::State {
    match state {
        DisputeState::Inquiry => pb::dispute::State::Inquiry,
        DisputeState::NeedsResponse => pb::dispute::State::NeedsResponse,
        DisputeState::UnderReview => pb::dispute::State::UnderReview,
        DisputeState::Won => pb::dispute::State::Won,
        DisputeState::Lost => pb::dispute::State::Lost,
        DisputeState::Closed => pb::dispute::State::Closed,
    }
}

fn part(kept: &Kept) -> pb::EvidencePart {
    pb::EvidencePart {
        kind: kept.kind.clone(),
        content_type: kept.content_type.clone(),
        description: kept.description.clone(),
        bytes: i64::try_from(kept.bytes).unwrap_or(i64::MAX),
        sha256: kept.sha256.clone(),
    }
}
