//! What the service needs from its storage. A coarse seam: each writing method is one transaction
//! around a pure decision of the domain.
//!
//! Deliberately missing: rows, statements and half a change. What a decision leaves behind (events,
//! books, sales, history, log of changes, stored answers) is written with it or not at all.

pub mod audit;
pub mod books;
pub(crate) mod database;
pub mod desk;
mod outcome;
pub mod postgres;
pub mod reconcile;
pub mod sqlite;

use crate::dispute::{Dispute, DisputeState, Evidence};
use crate::error::Error;
use crate::fact::Effects;
use crate::ledger::Source;
use crate::payment::Payment;
use crate::rejection::Rejection;
use crate::sales::{SalesQuery, SalesRow};
use crate::step::{Call, Next};
use async_trait::async_trait;
use kernel::filter::Expr;
use kernel::{Currency, DisputeId, PaymentId, RefundId};
use mesh_store::idempotency::{Claim, Key};

pub use audit::{AuditLog, AuditQuery, Pending};
pub use books::Books;
pub use database::migrate;
pub use desk::{Desk, StoredWebhook, WebhooksQuery};
pub use postgres::PostgresStore;
pub use reconcile::Reconciliations;
pub use sqlite::SqliteStore;

/// Whose payments a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer {
    /// Everybody's.
    Operator,
    /// Their own.
    Client(String),
}

impl Viewer {
    /// Whether a payment of `principal` is visible.
    pub fn sees(&self, principal: &str) -> bool {
        match self {
            Self::Operator => true,
            Self::Client(name) => name == principal,
        }
    }
}

/// Wishes to carry a payment out alone, for a limited time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseWish {
    /// Who; unique to one run of one process.
    pub owner: String,
    /// Now.
    pub now_us: i64,
    /// Until when.
    pub until_us: i64,
}

/// What was decided in a transaction.
#[derive(Debug)]
pub struct Decision {
    /// What is stored with the change.
    pub effects: Effects,
    /// What is next.
    pub next: Next,
    /// Where nothing is to be called now: whether to keep the lease until the time in `next`.
    pub pause: bool,
    /// What a command began.
    pub begun: Option<Begun>,
}

/// What a command began that is answered for itself, and not as its payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// A refund.
    Refund(RefundId),
    /// A response to a dispute.
    Response(DisputeId),
}

impl std::fmt::Display for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refund(id) => id.fmt(f),
            Self::Response(id) => id.fmt(f),
        }
    }
}

/// Decides on a payment. The flag says whether this transaction holds the lease; without it a
/// command may be recorded, but no step may be begun. May be called again if the database asks for
/// a repetition.
pub type Decide<'a> = &'a mut (dyn FnMut(&mut Payment, bool) -> Result<Decision, Rejection> + Send);

/// Makes a new payment.
pub type Make<'a> = &'a mut (dyn FnMut() -> Result<(Payment, Decision), Rejection> + Send);

/// What became of a command.
#[derive(Debug)]
pub enum Opened {
    /// It was carried out before: the stored answer.
    Replay(Vec<u8>),
    /// It is under way.
    InFlight,
    /// Its key belongs to another request.
    Reused,
    /// It is recorded.
    Recorded(Recorded),
}

/// A command that was recorded.
#[derive(Debug)]
pub struct Recorded {
    /// The payment.
    pub payment: PaymentId,
    /// What it began.
    pub begun: Option<Begun>,
    /// What is to be done now.
    pub work: Work,
    /// The stored answer, where nothing is to be done and the store has it at hand.
    pub answer: Option<Vec<u8>>,
}

/// What is to be done after a command was recorded.
#[derive(Debug)]
pub enum Work {
    /// Nothing: its answer is stored.
    Done,
    /// This call; the lease is taken.
    Call(Box<Call>),
    /// Nothing before this time; the lease is taken.
    Pause(i64),
    /// Somebody else holds the lease and will take notice.
    Queued,
}

/// What became of a step.
#[derive(Debug)]
pub enum Advanced {
    /// Somebody else holds the lease now; nothing was recorded.
    Lost,
    /// This call is next.
    Call(Box<Call>),
    /// Nothing before this time; the lease is kept.
    Pause(i64),
    /// Nothing to do now: open commands were answered, the lease was given back.
    Left,
}

/// Which payments, and where the page begins.
#[derive(Debug, Clone)]
pub struct PaymentsQuery {
    /// Whose.
    pub viewer: Viewer,
    /// Which of them.
    pub filter: Option<Expr>,
    /// Newest first.
    pub descending: bool,
    /// After this creation time and id.
    pub after: Option<(i64, String)>,
    /// At most so many.
    pub limit: i64,
}

/// Which disputes, and where the page begins.
#[derive(Debug, Clone)]
pub struct DisputesQuery {
    /// Of whose payments.
    pub viewer: Viewer,
    /// Only of this payment.
    pub payment: Option<PaymentId>,
    /// Only in this state.
    pub state: Option<DisputeState>,
    /// After this time of becoming known and id, newest first.
    pub after: Option<(i64, DisputeId)>,
    /// At most so many.
    pub limit: i64,
}

/// A dispute with what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDispute {
    /// The payment.
    pub payment: PaymentId,
    /// Who told of it.
    pub provider: String,
    /// The dispute.
    pub dispute: Dispute,
}

/// An account of the ledger in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerAccount {
    /// Its name.
    pub account: String,
    /// The currency.
    pub currency: Currency,
    /// Debits minus credits.
    pub balance_minor: i64,
}

/// An entry of the ledger as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its id.
    pub id: String,
    /// What it records.
    pub source: Source,
    /// The payment, where it belongs to one.
    pub payment_id: Option<String>,
    /// Account, currency and amount of each posting.
    pub postings: Vec<(String, Currency, i64)>,
    /// When it was recorded.
    pub recorded_at_us: i64,
}

/// A change as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its place in the order of changes.
    pub revision: i64,
    /// `commerce.payment.v1.Payment` after it.
    pub body: Vec<u8>,
}

/// The first and the last revision of the log; a log that was always empty is (1, 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revisions {
    /// The oldest change that is kept.
    pub first: i64,
    /// The newest change ever made.
    pub last: i64,
}

/// What is forgotten after which time.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Stored answers completed before this time.
    pub answers_before_us: i64,
    /// Changes made before this time.
    pub changes_before_us: i64,
    /// Webhooks received before this time.
    pub webhooks_before_us: i64,
    /// What callers spent in windows that ended before this time.
    pub windows_before_us: i64,
    /// At most so many rows of each at once.
    pub rows_max: u32,
}

/// The storage of the service. Shared as `Arc<dyn Store>`.
#[async_trait]
pub trait Store: Send + Sync {
    /// What is known about a key, without claiming it.
    async fn find(&self, key: &Key) -> Result<Option<Claim>, Error>;

    /// Stores a new payment together with the claim of its key, and takes the lease where something
    /// is to be called. A taken order_ref is [`Rejection::OrderRefTaken`].
    async fn create(
        &self,
        key: Option<&Key>,
        lease: &LeaseWish,
        make: Make<'_>,
    ) -> Result<Opened, Error>;

    /// Records a command of a caller together with the claim of its key, and takes the lease where
    /// it is free and something is to be called.
    async fn command(
        &self,
        key: Option<&Key>,
        payment: PaymentId,
        viewer: &Viewer,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Opened, Error>;

    /// Takes the lease of a payment that is nobody's and decides what is next.
    async fn take(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error>;

    /// Records an answer and decides what is next, for the holder of the lease.
    async fn advance(
        &self,
        payment: PaymentId,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Advanced, Error>;

    /// Payments that nobody carries out and that are due, the longest waiting first.
    async fn due(&self, now_us: i64, limit: u32) -> Result<Vec<PaymentId>, Error>;

    /// Stores a webhook's event once, together with what is decided for the payment that it is
    /// about. Nothing: the event was stored before, or its reference is not known here.
    async fn webhook(
        &self,
        provider: &str,
        event_id: &str,
        reference: &str,
        lease: &LeaseWish,
        decide: Decide<'_>,
    ) -> Result<Option<Recorded>, Error>;

    /// A payment, whoever's.
    async fn payment(&self, id: PaymentId) -> Result<Option<Payment>, Error>;

    /// The payment of a refund, whoever's.
    async fn payment_of_refund(&self, id: RefundId) -> Result<Option<Payment>, Error>;

    /// The payment of a dispute, whoever's.
    async fn payment_of_dispute(&self, id: DisputeId) -> Result<Option<Payment>, Error>;

    /// A page of disputes, newest first.
    async fn disputes(&self, query: &DisputesQuery) -> Result<Vec<ListedDispute>, Error>;

    /// The evidence that is kept for a dispute.
    async fn evidence(&self, id: DisputeId) -> Result<Evidence, Error>;

    /// A page of payments.
    async fn payments(&self, query: &PaymentsQuery) -> Result<Vec<Payment>, Error>;

    /// Sales summed up.
    async fn sales(&self, query: &SalesQuery) -> Result<Vec<SalesRow>, Error>;

    /// The accounts with their balances, by name and currency.
    async fn accounts(&self, currency: Option<Currency>) -> Result<Vec<LedgerAccount>, Error>;

    /// A page of entries, newest first.
    async fn entries(
        &self,
        payment: Option<PaymentId>,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<LedgerEntry>, Error>;

    /// The range of the log of changes.
    async fn revisions(&self) -> Result<Revisions, Error>;

    /// Changes after a revision that a viewer may see, oldest first, and how far was read.
    async fn changes(
        &self,
        viewer: &Viewer,
        after: i64,
        limit: i64,
    ) -> Result<(Vec<Change>, i64), Error>;

    /// Forgets what need not be kept longer; says how many rows.
    async fn sweep(&self, retention: Retention) -> Result<u64, Error>;
}
