//! The tokens that the simulator accepts as means of payment, each a scenario of its own.

use super::fault::WebhookFault;
use crate::provider::Decline;

/// What a token makes happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Script {
    /// Everything succeeds.
    Succeed,
    /// The charge is declined with this code.
    Decline(&'static str),
    /// The customer must authenticate; [`super::Simulator::authenticate`] says how it went.
    Authenticate,
    /// The customer must authenticate and has done so, well or not, when the charge is next asked
    /// about: what a client of the REST surface uses, which cannot play the customer's bank.
    Authenticated(bool),
    /// The first request is lost on its way in: no effect, no answer.
    TimeoutBefore,
    /// The answer to the first request is lost on its way out: effect, but no answer.
    TimeoutAfter,
    /// Pending for long; then a webhook.
    WebhookLate,
    /// Pending; then the same webhook twice.
    WebhookDuplicate,
    /// Pending; then the webhook of the outcome before the one that says "pending".
    WebhookReordered,
    /// Pending; then a webhook that somebody else has signed, before the true one.
    WebhookForged,
    /// Pending; then no webhook.
    WebhookLost,
    /// The first request is held up on its way in: no answer, and its effect comes later.
    Late,
    /// The answers take their time.
    Slow,
    /// Authorises; captures are declined.
    DeclineCapture,
    /// Charges; refunds are declined.
    DeclineRefund,
    /// Refunds succeed, and fail later.
    FailRefundLater,
    /// The bank takes the money back, and gives it to us where there is evidence.
    DisputeWon,
    /// The bank takes the money back, whatever there is against it.
    DisputeLost,
    /// The bank asks, and no more.
    Inquiry,
    /// The bank asks, and then takes the money back; evidence wins.
    InquiryEscalates,
}

impl Script {
    /// Whether what becomes of the charge is told by a webhook in any case.
    pub(super) fn announces(self) -> bool {
        match self {
            Self::Authenticate
            | Self::Authenticated(_)
            | Self::WebhookLate
            | Self::WebhookDuplicate
            | Self::WebhookReordered
            | Self::WebhookForged
            | Self::WebhookLost
            | Self::Late => true,
            Self::Succeed
            | Self::Decline(_)
            | Self::TimeoutBefore
            | Self::TimeoutAfter
            | Self::Slow
            | Self::DeclineCapture
            | Self::DeclineRefund
            | Self::FailRefundLater
            | Self::DisputeWon
            | Self::DisputeLost
            | Self::Inquiry
            | Self::InquiryEscalates => false,
        }
    }

    /// What is done to that webhook.
    pub(super) fn webhook_fault(self) -> Option<WebhookFault> {
        match self {
            Self::WebhookDuplicate => Some(WebhookFault::Duplicated),
            Self::WebhookReordered => Some(WebhookFault::Reordered),
            Self::WebhookForged => Some(WebhookFault::Forged),
            Self::WebhookLost => Some(WebhookFault::Lost),
            _ => None,
        }
    }
}

/// Every token. The list in docs and tests is made from it.
pub(super) const TOKENS: [(&str, Script); 23] = [
    ("pm_card_visa", Script::Succeed),
    ("pm_card_mastercard", Script::Succeed),
    ("pm_card_declined", Script::Decline(CARD_DECLINED)),
    (
        "pm_card_insufficient_funds",
        Script::Decline(INSUFFICIENT_FUNDS),
    ),
    ("pm_card_authentication_required", Script::Authenticate),
    ("pm_card_authentication_ok", Script::Authenticated(true)),
    ("pm_card_authentication_fail", Script::Authenticated(false)),
    ("pm_card_timeout_before", Script::TimeoutBefore),
    ("pm_card_timeout_after", Script::TimeoutAfter),
    ("pm_card_webhook_late", Script::WebhookLate),
    ("pm_card_webhook_duplicate", Script::WebhookDuplicate),
    ("pm_card_webhook_reordered", Script::WebhookReordered),
    ("pm_card_webhook_forged", Script::WebhookForged),
    ("pm_card_webhook_lost", Script::WebhookLost),
    ("pm_card_late", Script::Late),
    ("pm_card_slow", Script::Slow),
    ("pm_card_capture_declined", Script::DeclineCapture),
    ("pm_card_refund_declined", Script::DeclineRefund),
    ("pm_card_refund_fails_later", Script::FailRefundLater),
    ("pm_card_dispute_won", Script::DisputeWon),
    ("pm_card_dispute_lost", Script::DisputeLost),
    ("pm_card_inquiry", Script::Inquiry),
    ("pm_card_inquiry_escalates", Script::InquiryEscalates),
];

/// What the references of refunds begin with that a person makes on the provider's own pages. They are never declined:
/// there are other ways to give money back than to the card that it came from.
pub const BY_HAND: &str = "by-hand-";

pub(super) const CARD_DECLINED: &str = "CARD_DECLINED";
pub(super) const INSUFFICIENT_FUNDS: &str = "INSUFFICIENT_FUNDS";
pub(super) const AUTHENTICATION_FAILED: &str = "AUTHENTICATION_FAILED";
pub(super) const AUTHORIZATION_EXPIRED: &str = "AUTHORIZATION_EXPIRED";
pub(super) const CAPTURE_DECLINED: &str = "CAPTURE_DECLINED";
pub(super) const REFUND_DECLINED: &str = "REFUND_DECLINED";
pub(super) const REFUND_RETURNED: &str = "REFUND_RETURNED";

pub(super) fn script(token: &str) -> Option<Script> {
    TOKENS
        .iter()
        .find(|(name, _)| *name == token)
        .map(|(_, script)| *script)
}

pub(super) fn decline(code: &str) -> Decline {
    let message = match code {
        CARD_DECLINED => "the card was declined",
        INSUFFICIENT_FUNDS => "the card has insufficient funds",
        AUTHENTICATION_FAILED => "the customer did not authenticate",
        AUTHORIZATION_EXPIRED => "the authorisation has expired",
        CAPTURE_DECLINED => "the capture was declined",
        REFUND_DECLINED => "the refund was declined",
        REFUND_RETURNED => "the customer's bank has returned the refund",
        _ => "declined",
    };
    Decline {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}
