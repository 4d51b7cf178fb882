//! What Toss Payments answers, as far as it is used.

use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Confirm<'a> {
    pub(super) payment_key: &'a str,
    pub(super) order_id: &'a str,
    pub(super) amount: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Cancel<'a> {
    /// Our reference: Toss shows it beside each cancellation, and so it is found again.
    pub(super) cancel_reason: &'a str,
    /// Absent: all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cancel_amount: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payment {
    #[serde(rename = "paymentKey")]
    pub(super) key: String,
    pub(super) order_id: String,
    pub(super) status: Status,
    pub(super) total_amount: i64,
    pub(super) currency: String,
    pub(super) cancels: Option<Vec<Canceled>>,
    pub(super) failure: Option<Failed>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Status {
    /// The customer has not finished yet.
    Ready,
    /// The customer has; it waits for our confirmation.
    InProgress,
    /// A virtual account waits for the customer's transfer.
    WaitingForDeposit,
    Done,
    Canceled,
    PartialCanceled,
    Aborted,
    Expired,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Canceled {
    pub(super) transaction_key: String,
    pub(super) cancel_reason: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Failed {
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Booked {
    pub(super) transaction_key: String,
    pub(super) order_id: String,
    pub(super) status: Status,
    pub(super) currency: String,
    pub(super) amount: i64,
    pub(super) transaction_at: String,
}

/// A line of the settlements.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Settled {
    pub(super) transaction_key: String,
    pub(super) order_id: String,
    pub(super) currency: String,
    pub(super) amount: i64,
    pub(super) pay_out_amount: i64,
    pub(super) paid_out_date: String,
}

/// `PAYMENT_STATUS_CHANGED` has its payment in `data`; `DEPOSIT_CALLBACK` has it at the top.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Webhook {
    pub(super) order_id: Option<String>,
    pub(super) data: Option<WebhookData>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WebhookData {
    pub(super) order_id: Option<String>,
}
