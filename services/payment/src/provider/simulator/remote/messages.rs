//! The protocol's bodies, and how they are made of the provider's own types and back.

use crate::provider::simulator::{Faults, WebhookFaults};
use crate::provider::{self, ChargeOutcome, Decline};
use kernel::{Currency, Invalid};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Money {
    currency_code: String,
    amount_minor: i64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authorize {
    reference: String,
    amount: Money,
    payment_method: String,
    order_ref: String,
    capture: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    reference: String,
    charge_reference: String,
    amount: Money,
    last: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Void {
    charge_reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refund {
    reference: String,
    charge_reference: String,
    amount: Money,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authentication {
    pub(super) reference: String,
    pub(super) ok: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Decided {
    pub(super) decided: bool,
}

/// What goes wrong on purpose from now on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Misfortune {
    pub(super) commands: Faults,
    pub(super) webhooks: WebhookFaults,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Charged {
    #[serde(deserialize_with = "Option::deserialize")] // Null says something, absence nothing.
    pub(super) charge: Option<Charge>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Settled {
    #[serde(deserialize_with = "Option::deserialize")]
    pub(super) settlement: Option<Settlement>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Charge {
    Authorized {
        provider_ref: String,
        expires_at_us: i64,
    },
    Captured {
        provider_ref: String,
    },
    ActionRequired {
        redirect_url: String,
    },
    Declined {
        code: String,
        message: String,
    },
    Pending,
    Voided,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Settlement {
    Done { provider_ref: String },
    Declined { code: String, message: String },
    Pending,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Capabilities {
    manual_capture: bool,
    partial_capture: bool,
    void: bool,
    authorization_ttl_us: i64,
    idempotency_window_us: i64,
    #[serde(default)] // A simulator of an earlier release has none, and says nothing of it.
    look_up_lag_us: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct TransactionPage {
    transactions: Vec<Transaction>,
    next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Transaction {
    id: String,
    kind: TransactionKind,
    reference: String,
    charge_reference: String,
    order_ref: String,
    amount: Money,
    booked_at_us: i64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TransactionKind {
    Capture,
    Refund,
    RefundReversal,
    Dispute,
    DisputeReversal,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SettlementPage {
    lines: Vec<SettlementLine>,
    next: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SettlementLine {
    id: String,
    kind: SettlementKind,
    reference: String,
    payout: String,
    amount: Money,
    arrival_day: String,
    booked_at_us: i64,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SettlementKind {
    Fee,
    Payout,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) error: RefusalReason,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RefusalReason {
    pub(super) code: String,
    pub(super) message: String,
}

impl From<kernel::Money> for Money {
    fn from(money: kernel::Money) -> Self {
        Self {
            currency_code: money.currency().code().to_owned(),
            amount_minor: money.amount_minor(),
        }
    }
}

impl TryFrom<Money> for kernel::Money {
    type Error = Invalid;

    fn try_from(money: Money) -> Result<Self, Invalid> {
        let currency = Currency::parse(&money.currency_code)
            .map_err(|error| error.at("amount.currency_code"))?;
        Self::new(currency, money.amount_minor).map_err(|error| error.at("amount.amount_minor"))
    }
}

impl From<&provider::Authorize> for Authorize {
    fn from(request: &provider::Authorize) -> Self {
        Self {
            reference: request.reference.clone(),
            amount: request.amount.into(),
            payment_method: request.payment_method.clone(),
            order_ref: request.order_ref.clone(),
            capture: request.capture,
        }
    }
}

impl TryFrom<Authorize> for provider::Authorize {
    type Error = Invalid;

    fn try_from(request: Authorize) -> Result<Self, Invalid> {
        Ok(Self {
            reference: request.reference,
            payment_reference: String::new(), // The simulator has no customers of its own.
            amount: request.amount.try_into()?,
            payment_method: request.payment_method,
            order_ref: request.order_ref,
            capture: request.capture,
        })
    }
}

impl From<&provider::Capture> for Capture {
    fn from(request: &provider::Capture) -> Self {
        Self {
            reference: request.reference.clone(),
            charge_reference: request.charge_reference.clone(),
            amount: request.amount.into(),
            last: request.last,
        }
    }
}

impl TryFrom<Capture> for provider::Capture {
    type Error = Invalid;

    fn try_from(request: Capture) -> Result<Self, Invalid> {
        Ok(Self {
            reference: request.reference,
            charge_reference: request.charge_reference,
            amount: request.amount.try_into()?,
            last: request.last,
        })
    }
}

impl From<&provider::Void> for Void {
    fn from(request: &provider::Void) -> Self {
        Self {
            charge_reference: request.charge_reference.clone(),
        }
    }
}

impl From<Void> for provider::Void {
    fn from(request: Void) -> Self {
        Self {
            charge_reference: request.charge_reference,
        }
    }
}

impl From<&provider::Refund> for Refund {
    fn from(request: &provider::Refund) -> Self {
        Self {
            reference: request.reference.clone(),
            charge_reference: request.charge_reference.clone(),
            amount: request.amount.into(),
        }
    }
}

impl TryFrom<Refund> for provider::Refund {
    type Error = Invalid;

    fn try_from(request: Refund) -> Result<Self, Invalid> {
        Ok(Self {
            reference: request.reference,
            charge_reference: request.charge_reference,
            amount: request.amount.try_into()?,
        })
    }
}

impl From<ChargeOutcome> for Charge {
    fn from(outcome: ChargeOutcome) -> Self {
        match outcome {
            ChargeOutcome::Authorized {
                provider_ref,
                expires_at_us,
            } => Self::Authorized {
                provider_ref,
                expires_at_us,
            },
            ChargeOutcome::Captured { provider_ref } => Self::Captured { provider_ref },
            ChargeOutcome::ActionRequired { redirect_url } => Self::ActionRequired { redirect_url },
            ChargeOutcome::Declined(Decline { code, message }) => Self::Declined { code, message },
            ChargeOutcome::Pending => Self::Pending,
            ChargeOutcome::Voided => Self::Voided,
        }
    }
}

impl From<Charge> for ChargeOutcome {
    fn from(charge: Charge) -> Self {
        match charge {
            Charge::Authorized {
                provider_ref,
                expires_at_us,
            } => Self::Authorized {
                provider_ref,
                expires_at_us,
            },
            Charge::Captured { provider_ref } => Self::Captured { provider_ref },
            Charge::ActionRequired { redirect_url } => Self::ActionRequired { redirect_url },
            Charge::Declined { code, message } => Self::Declined(Decline { code, message }),
            Charge::Pending => Self::Pending,
            Charge::Voided => Self::Voided,
        }
    }
}

impl From<provider::Settlement> for Settlement {
    fn from(settlement: provider::Settlement) -> Self {
        match settlement {
            provider::Settlement::Done { provider_ref } => Self::Done { provider_ref },
            provider::Settlement::Declined(Decline { code, message }) => {
                Self::Declined { code, message }
            }
            provider::Settlement::Pending => Self::Pending,
        }
    }
}

impl From<Settlement> for provider::Settlement {
    fn from(settlement: Settlement) -> Self {
        match settlement {
            Settlement::Done { provider_ref } => Self::Done { provider_ref },
            Settlement::Declined { code, message } => Self::Declined(Decline { code, message }),
            Settlement::Pending => Self::Pending,
        }
    }
}

impl From<provider::Capabilities> for Capabilities {
    fn from(capabilities: provider::Capabilities) -> Self {
        Self {
            manual_capture: capabilities.manual_capture,
            partial_capture: capabilities.partial_capture,
            void: capabilities.void,
            authorization_ttl_us: capabilities.authorization_ttl_us,
            idempotency_window_us: capabilities.idempotency_window_us,
            look_up_lag_us: capabilities.look_up_lag_us,
        }
    }
}

impl From<Capabilities> for provider::Capabilities {
    fn from(capabilities: Capabilities) -> Self {
        Self {
            manual_capture: capabilities.manual_capture,
            partial_capture: capabilities.partial_capture,
            void: capabilities.void,
            authorization_ttl_us: capabilities.authorization_ttl_us,
            idempotency_window_us: capabilities.idempotency_window_us,
            look_up_lag_us: capabilities.look_up_lag_us,
            disputes: true, // One of an earlier release refuses to be asked.
            method_is_charge: false,
        }
    }
}

impl From<provider::TransactionPage> for TransactionPage {
    fn from(page: provider::TransactionPage) -> Self {
        let transactions = page.transactions.into_iter().map(|booked| Transaction {
            id: booked.id,
            kind: match booked.kind {
                provider::TransactionKind::Capture => TransactionKind::Capture,
                provider::TransactionKind::Refund => TransactionKind::Refund,
                provider::TransactionKind::RefundReversal => TransactionKind::RefundReversal,
                provider::TransactionKind::Dispute => TransactionKind::Dispute,
                provider::TransactionKind::DisputeReversal => TransactionKind::DisputeReversal,
            },
            reference: booked.reference,
            charge_reference: booked.charge_reference,
            order_ref: booked.order_ref,
            amount: booked.amount.into(),
            booked_at_us: booked.booked_at_us,
        });
        Self {
            transactions: transactions.collect(),
            next: page.next,
        }
    }
}

impl TryFrom<TransactionPage> for provider::TransactionPage {
    type Error = Invalid;

    fn try_from(page: TransactionPage) -> Result<Self, Invalid> {
        let transactions = page.transactions.into_iter().map(|booked| {
            Ok(provider::Transaction {
                id: booked.id,
                kind: match booked.kind {
                    TransactionKind::Capture => provider::TransactionKind::Capture,
                    TransactionKind::Refund => provider::TransactionKind::Refund,
                    TransactionKind::RefundReversal => provider::TransactionKind::RefundReversal,
                    TransactionKind::Dispute => provider::TransactionKind::Dispute,
                    TransactionKind::DisputeReversal => provider::TransactionKind::DisputeReversal,
                },
                reference: booked.reference,
                charge_reference: booked.charge_reference,
                order_ref: booked.order_ref,
                amount: booked.amount.try_into()?,
                booked_at_us: booked.booked_at_us,
            })
        });
        Ok(Self {
            transactions: transactions.collect::<Result<_, Invalid>>()?,
            next: page.next,
        })
    }
}

impl From<provider::SettlementPage> for SettlementPage {
    fn from(page: provider::SettlementPage) -> Self {
        let lines = page.lines.into_iter().map(|line| SettlementLine {
            id: line.id,
            kind: match line.kind {
                provider::SettlementKind::Fee => SettlementKind::Fee,
                provider::SettlementKind::Payout => SettlementKind::Payout,
            },
            reference: line.reference,
            payout: line.payout,
            amount: line.amount.into(),
            arrival_day: line.arrival_day,
            booked_at_us: line.booked_at_us,
        });
        Self {
            lines: lines.collect(),
            next: page.next,
        }
    }
}

impl TryFrom<SettlementPage> for provider::SettlementPage {
    type Error = Invalid;

    fn try_from(page: SettlementPage) -> Result<Self, Invalid> {
        let lines = page.lines.into_iter().map(|line| {
            Ok(provider::SettlementLine {
                id: line.id,
                kind: match line.kind {
                    SettlementKind::Fee => provider::SettlementKind::Fee,
                    SettlementKind::Payout => provider::SettlementKind::Payout,
                },
                reference: line.reference,
                payout: line.payout,
                amount: line.amount.try_into()?,
                arrival_day: line.arrival_day,
                booked_at_us: line.booked_at_us,
            })
        });
        Ok(Self {
            lines: lines.collect::<Result<_, Invalid>>()?,
            next: page.next,
        })
    }
}
