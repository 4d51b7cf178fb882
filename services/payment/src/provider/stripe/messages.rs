//! What Stripe answers, as far as it is used. Unknown fields and values are no mistakes: Stripe adds them without
//! a new version.

use serde::Deserialize;
use std::collections::BTreeMap;

/// The name of the metadata that carries our reference.
pub(super) const REFERENCE: &str = "reference";

pub(super) type Metadata = BTreeMap<String, String>;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PaymentIntent {
    pub(super) id: String,
    pub(super) status: IntentStatus,
    #[serde(default)]
    pub(super) created: i64,
    #[serde(default)]
    pub(super) amount_received: i64,
    #[serde(default)]
    pub(super) metadata: Metadata,
    pub(super) next_action: Option<NextAction>,
    pub(super) last_payment_error: Option<Error>,
    pub(super) latest_charge: Option<LatestCharge>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct NextAction {
    pub(super) redirect_to_url: Option<RedirectToUrl>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct RedirectToUrl {
    pub(super) url: Option<String>,
}

/// An id, unless it was asked to be expanded.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum LatestCharge {
    Expanded(Charge),
    #[expect(
        dead_code,
        reason = "an id says nothing that is used, but is no mistake"
    )]
    Id(String),
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Charge {
    /// Whether all of it was, by whomever.
    #[serde(default)]
    pub(super) refunded: bool,
    pub(super) payment_method_details: Option<MethodDetails>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct MethodDetails {
    pub(super) card: Option<Card>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Card {
    /// Until when it must be captured, in seconds since 1970.
    pub(super) capture_before: Option<i64>,
}

impl PaymentIntent {
    /// Until when what is authorised holds, in seconds since 1970, where Stripe says it.
    pub(super) fn capture_before(&self) -> Option<i64> {
        let method = self.charge()?.payment_method_details.as_ref()?;
        method.card.as_ref()?.capture_before
    }

    /// Whether all that was taken was given back.
    pub(super) fn is_given_back(&self) -> bool {
        self.charge().is_some_and(|charge| charge.refunded)
    }

    fn charge(&self) -> Option<&Charge> {
        match self.latest_charge.as_ref()? {
            LatestCharge::Expanded(charge) => Some(charge),
            LatestCharge::Id(_) => None,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) status: Option<RefundStatus>,
    #[serde(default)]
    pub(super) metadata: Metadata,
    pub(super) failure_reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefundStatus {
    Pending,
    RequiresAction,
    Succeeded,
    Failed,
    Canceled,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) status: DisputeStatus,
    pub(super) amount: i64,
    pub(super) currency: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) evidence_details: EvidenceDetails,
    /// What it took from the balance, and gave back to it.
    #[serde(default)]
    pub(super) balance_transactions: Vec<Moved>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DisputeStatus {
    WarningNeedsResponse,
    WarningUnderReview,
    WarningClosed,
    NeedsResponse,
    UnderReview,
    Won,
    Lost,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct EvidenceDetails {
    /// In seconds since 1970.
    pub(super) due_by: Option<i64>,
    #[serde(default)]
    pub(super) submission_count: i64,
}

/// A movement of the balance.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Moved {
    /// Below zero where it was taken from us.
    pub(super) amount: i64,
}

#[derive(Debug, Deserialize)]
pub(super) struct File {
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) has_more: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Failed {
    pub(super) error: Error,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Error {
    #[serde(rename = "type", default)]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) code: String,
    #[serde(default)]
    pub(super) decline_code: String,
    #[serde(default)]
    pub(super) message: String,
    pub(super) payment_intent: Option<Box<PaymentIntent>>,
}

impl Error {
    /// Whether it is about the customer's card, and not a mistake of ours.
    pub(super) fn is_decline(&self) -> bool {
        self.kind == "card_error" || self.code == "card_declined"
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct BalanceTransaction {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) amount: i64,
    #[serde(default)]
    pub(super) fee: i64,
    pub(super) currency: String,
    pub(super) created: i64,
    pub(super) source: Option<Source>,
}

/// What a balance transaction is about.
#[derive(Debug, Deserialize)]
pub(super) struct Source {
    #[serde(default)]
    pub(super) id: String,
    /// What it is, such as `charge`, `refund` or `dispute`.
    #[serde(default)]
    pub(super) object: String,
    /// In its own currency, which need not be that of the balance.
    pub(super) amount: Option<i64>,
    /// Of a charge.
    pub(super) amount_captured: Option<i64>,
    pub(super) currency: Option<String>,
    /// Of a dispute, the intent whose charge it is about.
    pub(super) payment_intent: Option<Named>,
    /// Of a payout.
    pub(super) arrival_date: Option<i64>,
    /// Of a charge, its intent's; of a refund its own.
    #[serde(default)]
    pub(super) metadata: Metadata,
}

#[derive(Debug, Deserialize)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) data: EventData,
}

#[derive(Debug, Deserialize)]
pub(super) struct EventData {
    pub(super) object: EventObject,
}

#[derive(Debug, Deserialize)]
pub(super) struct EventObject {
    #[serde(default)]
    pub(super) object: String,
    pub(super) metadata: Option<Metadata>,
    /// Of a dispute, the intent whose charge it is about.
    pub(super) payment_intent: Option<Named>,
}

/// Something by its id, or with it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Named {
    Id(String),
    Expanded { id: String },
}

impl Named {
    pub(super) fn id(self) -> String {
        match self {
            Self::Id(id) | Self::Expanded { id } => id,
        }
    }
}
