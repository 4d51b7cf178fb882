//! What a command asks, and the entry of the journal that it leaves behind. Deliberately missing: what follows from
//! either; that is for the rules.

use crate::provider::{Authorize, Capture, Refund, Void};
use kernel::Money;

/// What an entry of the journal records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Authorize,
    Capture,
    Void,
    Refund,
    Dispute,
    Evidence,
}

/// A command as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Authorize(Authorize),
    Capture(Capture),
    Void(Void),
    Refund(Refund),
}

impl Command {
    pub(super) fn operation(&self) -> Operation {
        match self {
            Self::Authorize(_) => Operation::Authorize,
            Self::Capture(_) => Operation::Capture,
            Self::Void(_) => Operation::Void,
            Self::Refund(_) => Operation::Refund,
        }
    }

    /// The caller's; of a void the charge's.
    pub(super) fn reference(&self) -> &str {
        match self {
            Self::Authorize(request) => &request.reference,
            Self::Capture(request) => &request.reference,
            Self::Void(request) => &request.charge_reference,
            Self::Refund(request) => &request.reference,
        }
    }

    pub(super) fn charge_reference(&self) -> &str {
        match self {
            Self::Authorize(request) => &request.reference,
            Self::Capture(request) => &request.charge_reference,
            Self::Void(request) => &request.charge_reference,
            Self::Refund(request) => &request.charge_reference,
        }
    }
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Authorized,
    Captured,
    ActionRequired,
    Pending,
    Declined,
    Voided,
    Refunded,
    /// It was refunded, and the money has come back.
    RefundFailed,
    /// Of a dispute, or of the failure of a refund: it is to come, at its time.
    Scheduled,
    Inquiry,
    NeedsResponse,
    UnderReview,
    Won,
    Lost,
    Closed,
    /// Of evidence.
    Submitted,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) recorded_at_us: i64,
    pub(super) operation: Operation,
    /// The caller's; of a void the charge's.
    pub(super) reference: String,
    pub(super) charge_reference: String,
    pub(super) order_ref: String,
    pub(super) payment_method: String,
    pub(super) amount: Money,
    /// Of an authorisation: whether it charges at once.
    pub(super) at_once: bool,
    /// Of a capture: whether it gives up the rest.
    pub(super) last: bool,
    pub(super) outcome: Outcome,
    /// Of what was declined: why. Of evidence: against which dispute.
    pub(super) code: Option<String>,
    /// Of what is authorised: until when.
    pub(super) expires_at_us: Option<i64>,
    /// Of what is pending: when it is decided. Of a dispute that waits for evidence: until when.
    pub(super) due_at_us: Option<i64>,
}
