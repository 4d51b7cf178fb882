//! Payment providers: what the saga needs from whoever moves the money.
//!
//! Every command carries our own reference, which is the provider's idempotency key at the same time:
//! the same reference with the same parameters is carried out once and answered the same each time.
//! So a command whose outcome is unknown is asked about, or repeated, under its own reference, and
//! never under a new one. Deliberately missing: card data (tokens only), retries and time-outs (the
//! saga owns them), and anything of our database: a provider shares no transaction with us.

pub mod adapters;
pub mod circuit;
mod https;
pub mod references;
pub mod secret;
pub mod simulator;
pub mod stripe;
pub mod toss;

pub use circuit::{CircuitConfig, Guarded};
pub use references::References;

use crate::dispute::{Evidence, SeenDispute};
use async_trait::async_trait;
use http::HeaderMap;
use kernel::{Invalid, Money};

/// The code of a refusal of what a provider cannot do.
pub const UNSUPPORTED: &str = "UNSUPPORTED";

/// The names of the providers that are built in.
pub const NAMES: [&str; 3] = [simulator::NAME, stripe::NAME, toss::NAME];

/// What a provider can do. The saga asks before it plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is something else that a provider can do"
)]
pub struct Capabilities {
    /// Authorise now, capture later. Without it [`Provider::authorize`] charges at once, whatever
    /// [`Authorize::capture`] says, and compensation is a refund.
    pub manual_capture: bool,
    /// Several captures of one authorisation, each of a part. Without it the first capture is the
    /// last one.
    pub partial_capture: bool,
    /// An authorisation that is not captured can be given up.
    pub void: bool,
    /// How long an authorisation holds.
    pub authorization_ttl_us: i64,
    /// How long a reference is remembered as an idempotency key; later, only look up.
    pub idempotency_window_us: i64,
    /// How long after a command a look-up may still not find what it did.
    pub look_up_lag_us: i64,
    /// It tells of disputes and takes evidence.
    pub disputes: bool,
    /// A payment method is good for one charge and is what a charge is looked up by: two attempts with the same one are
    /// the same charge to it.
    pub method_is_charge: bool,
}

/// Asks for money: authorises it, or charges it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorize {
    /// Our reference: the attempt's id.
    pub reference: String,
    /// The payment's id: the only name of ours that a customer's browser can have told the provider before.
    pub payment_reference: String,
    /// How much.
    pub amount: Money,
    /// The provider's token for the customer's means of payment; never a card number.
    pub payment_method: String,
    /// The caller's order, for the provider's statements.
    pub order_ref: String,
    /// Whether to charge at once, in one step.
    pub capture: bool,
}

/// Takes authorised money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// Our reference: the capture's id.
    pub reference: String,
    /// The reference that was authorised: the attempt's id.
    pub charge_reference: String,
    /// How much; at most what is authorised and not captured.
    pub amount: Money,
    /// Whether what is then left of the authorisation is given up.
    pub last: bool,
}

/// Gives up what is authorised and not captured. A void has no reference of its own: repeating it
/// is harmless, so an unknown outcome is resolved by repeating it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Void {
    /// The reference that was authorised: the attempt's id.
    pub charge_reference: String,
}

/// Gives captured money back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Our reference: the refund's id.
    pub reference: String,
    /// The reference that was charged: the attempt's id.
    pub charge_reference: String,
    /// How much; at most what is captured and not refunded.
    pub amount: Money,
}

/// Hands in evidence against a dispute, once and for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubmitEvidence {
    /// Our reference.
    pub reference: String,
    /// The provider's name of the dispute.
    pub dispute_ref: String,
    /// What is handed in.
    pub evidence: Evidence,
}

/// Gives a dispute up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptDispute {
    /// Our reference.
    pub reference: String,
    /// The provider's name of the dispute.
    pub dispute_ref: String,
}

/// Where a charge stands, as answered by [`Provider::authorize`] and [`Provider::look_up_charge`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeOutcome {
    /// The money is set aside until `expires_at_us`.
    Authorized {
        /// The provider's own reference.
        provider_ref: String,
        /// When the authorisation lapses.
        expires_at_us: i64,
    },
    /// The money is taken: charged in one step, or captured since, at least in part.
    Captured {
        /// The provider's own reference.
        provider_ref: String,
    },
    /// The customer must authenticate first; look up afterwards.
    ActionRequired {
        /// Where to send the customer's browser.
        redirect_url: String,
    },
    /// Refused; nothing is held. Final: another attempt needs another reference.
    Declined(Decline),
    /// Accepted, but not decided; a webhook tells, and so does looking up.
    Pending,
    /// Given up since, or lapsed, or all that was captured was given back, by whomever: nothing is held and nothing is
    /// kept. Only ever looked up, and final unless a refund fails later.
    Voided,
}

/// Where a capture, void or refund stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// It is done.
    Done {
        /// The provider's own reference.
        provider_ref: String,
    },
    /// It was refused, and no repetition will change that.
    Declined(Decline),
    /// Accepted, but not decided; a webhook tells, and so does looking up.
    Pending,
}

/// Why the money did not move. An answer, not an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decline {
    /// One of the codes of `commerce.payment.v1.Failure`, such as `CARD_DECLINED`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
}

/// Whether a command may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// Only under the same reference, within [`Capabilities::idempotency_window_us`]; looking up
    /// says whether it is needed.
    IfIdempotent,
    /// It had no effect.
    Always,
}

/// Why a provider gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Provably without effect.
    #[error("provider unavailable: {0}")]
    Unavailable(String),
    /// It may or may not have had its effect: look up.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The command itself is wrong, such as a reference that was used for something else.
    #[error("provider refused the command: {code}: {message}")]
    Refused {
        /// What kind of mistake it is.
        code: String,
        /// What is wrong, for people.
        message: String,
    },
}

impl ProviderError {
    /// What a provider says that has no interface for disputes.
    pub fn without_disputes(provider: &str) -> Self {
        Self::Refused {
            code: UNSUPPORTED.to_owned(),
            message: format!("{provider} does not tell of disputes"),
        }
    }

    /// Whether the command may be sent again.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Unavailable(_) => Retry::Always,
            Self::Unknown(_) => Retry::IfIdempotent,
            Self::Refused { .. } => Retry::Never,
        }
    }
}

/// What a verified webhook says: that something happened to a reference. Webhooks come late, twice
/// and in any order, so what happened is then looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookEvent {
    /// The provider's id of the event; one event may arrive several times.
    pub event_id: String,
    /// What it names: an attempt, a capture, a refund, or a payment, whose attempts are then meant. Empty: it is
    /// about nothing of ours, which is no mistake, for others may use the same account. Of the disputes of a charge,
    /// [`crate::dispute::reference_of`] it.
    pub reference: String,
    /// The provider's name of the charge, where it names none of ours: [`Provider::reference_of`] knows it.
    pub disputed_charge: Option<String>,
    /// Whether its sender has proven who it is. What anybody can send is no more than a hint, and is stored only
    /// where it names something.
    pub signed: bool,
}

/// Why a webhook is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// The signature is missing, wrong, or too old.
    #[error("webhook signature: {0}")]
    Signature(&'static str),
    /// The signature is right, but the body cannot be read.
    #[error(transparent)]
    Body(Invalid),
}

/// One movement of money, as the provider booked it; for reconciliation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The provider's own id of it.
    pub id: String,
    /// Which way the money went.
    pub kind: TransactionKind,
    /// Our reference: of a one-step charge the attempt, else the capture or the refund; of a dispute the provider's
    /// own name of it.
    pub reference: String,
    /// The attempt that it belongs to.
    pub charge_reference: String,
    /// The caller's order.
    pub order_ref: String,
    /// How much, never negative.
    pub amount: Money,
    /// When it was booked.
    pub booked_at_us: i64,
}

/// Which way money went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionKind {
    /// To us.
    Capture,
    /// Back to the customer.
    Refund,
    /// To us: a refund that did not arrive.
    RefundReversal,
    /// Back to the customer's bank.
    Dispute,
    /// To us: a dispute that was won.
    DisputeReversal,
}

impl TransactionKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Capture,
        Self::Refund,
        Self::RefundReversal,
        Self::Dispute,
        Self::DisputeReversal,
    ];

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Refund => "refund",
            Self::RefundReversal => "refund_reversal",
            Self::Dispute => "dispute",
            Self::DisputeReversal => "dispute_reversal",
        }
    }

    /// Reads [`TransactionKind::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// 1 where the money came to us, else -1.
    pub fn sign(self) -> i64 {
        match self {
            Self::Capture | Self::RefundReversal | Self::DisputeReversal => 1,
            Self::Refund | Self::Dispute => -1,
        }
    }
}

/// Some transactions, in the order in which the provider lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionPage {
    /// At most as many as the provider gives at once.
    pub transactions: Vec<Transaction>,
    /// Where the next page begins; absent when this one reached the end.
    pub next: Option<String>,
}

/// One line of what a provider keeps for itself or pays out; for the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementLine {
    /// The provider's own id of it; fees and payouts have ids of their own each.
    pub id: String,
    /// What it is.
    pub kind: SettlementKind,
    /// Our reference of what a fee is for, as [`Transaction::reference`] has it; empty: of nothing in particular, or a
    /// payout.
    pub reference: String,
    /// The provider's id of the payout that it belongs to; empty: not known yet.
    pub payout: String,
    /// How much. A fee that was given back, and a payout that was collected from us, are negative; never zero.
    pub amount: Money,
    /// The day that a payout arrives on, `YYYY-MM-DD`; empty: a fee.
    pub arrival_day: String,
    /// When it was booked.
    pub booked_at_us: i64,
}

/// What a line of a settlement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlementKind {
    /// What the provider keeps.
    Fee,
    /// What goes to our bank.
    Payout,
}

impl SettlementKind {
    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fee => "fee",
            Self::Payout => "payout",
        }
    }
}

/// Some lines of settlements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementPage {
    /// At most as many as the provider gives at once.
    pub lines: Vec<SettlementLine>,
    /// Where the next page begins; absent when this one reached the end.
    pub next: Option<String>,
}

/// Moves money. Shared as `Arc<dyn Provider>`.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name in payments, webhook routes and ledger accounts, such as `simulator`.
    fn name(&self) -> &str;

    /// What it can do; constant while the process runs.
    fn capabilities(&self) -> Capabilities;

    /// Whether it can be expected to answer. New payments go elsewhere while it cannot.
    fn is_available(&self) -> bool {
        true
    }

    /// Asks for money.
    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError>;

    /// Takes authorised money.
    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError>;

    /// Gives up what is authorised and not captured; a charge that still waits for a decision or
    /// for the customer is given up too.
    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError>;

    /// Gives captured money back.
    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError>;

    /// Where the charge of an attempt stands now; none: it never arrived.
    async fn look_up_charge(&self, reference: &str)
    -> Result<Option<ChargeOutcome>, ProviderError>;

    /// Where a capture or refund stands now; none: it never arrived.
    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError>;

    /// The disputes of a charge as they stand now, in the order in which they were opened.
    async fn look_up_disputes(
        &self,
        charge_reference: &str,
    ) -> Result<Vec<SeenDispute>, ProviderError>;

    /// Hands in evidence; answers the dispute after that.
    async fn submit_evidence(&self, request: &SubmitEvidence)
    -> Result<SeenDispute, ProviderError>;

    /// Gives a dispute up; answers it after that.
    async fn accept_dispute(&self, request: &AcceptDispute) -> Result<SeenDispute, ProviderError>;

    /// Our reference of a charge that a webhook names by the provider's own name; none: it is not ours.
    async fn reference_of(&self, charge_ref: &str) -> Result<Option<String>, ProviderError>;

    /// Checks a webhook's signature and reads it. Pure: nothing is stored or sent.
    fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now_us: i64,
    ) -> Result<WebhookEvent, WebhookError>;

    /// Its books from the beginning, or from where a page said that the next one begins.
    async fn transactions(&self, from: Option<&str>) -> Result<TransactionPage, ProviderError>;

    /// What it kept and paid out, likewise.
    async fn settlements(&self, from: Option<&str>) -> Result<SettlementPage, ProviderError>;

    /// The place in both lists before which nothing is needed that was booked since a time: where to read on from when
    /// all before it was read.
    fn since(&self, at_us: i64) -> String;
}
