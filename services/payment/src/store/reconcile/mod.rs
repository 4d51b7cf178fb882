//! What reconciliation needs from the storage, apart from [`super::Store`]: no payment needs it to be carried out.
//!
//! A page is two transactions: its lines are kept, and after the comparison what was found is kept together with how
//! far the run has come. A crash in between reads the page again, and nothing is kept twice.

pub(super) mod rows;

use crate::audit::Record;
use crate::commands::Answer;
use crate::error::Error;
use crate::ledger::Transaction;
use crate::provider::SettlementLine;
use crate::reconcile::{Case, Discrepancy, Finding, Kind, Line, Run, Status};
use async_trait::async_trait;
use kernel::{DiscrepancyId, PaymentId, ReconciliationId, SettlementId};
use mesh_store::idempotency::Key;

/// Says what a command is answered with, once it is known what is stored.
pub type Answering<'a, T> = &'a (dyn Fn(&T) -> Vec<u8> + Send + Sync);

/// What became of a page of lines.
#[derive(Debug, Default)]
pub struct Touched {
    /// The payments that its lines belong to, with everything that is known of them.
    pub cases: Vec<Case>,
    /// The lines that belong to none.
    pub strangers: Vec<Line>,
}

/// What a page came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What differs.
    pub findings: Vec<Finding>,
    /// What differed and does not any more.
    pub gone: Vec<DiscrepancyId>,
}

/// A line of a settlement, with the entry that books it.
#[derive(Debug)]
pub struct Booking {
    /// Its id here.
    pub id: SettlementId,
    /// The line.
    pub line: SettlementLine,
    /// Its entry.
    pub entry: Transaction,
}

/// A provider's lines or our entries of a while, page by page.
#[derive(Debug, Clone)]
pub struct PageQuery {
    /// Of this provider, or of payments of this provider.
    pub provider: String,
    /// Booked since.
    pub since_us: i64,
    /// Booked up to this time, which is part of it.
    pub until_us: i64,
    /// After this time and id.
    pub after: Option<(i64, String)>,
    /// At most so many.
    pub limit: i64,
}

/// A page of a provider's lines.
#[derive(Debug, Default)]
pub struct LinesPage {
    /// Whom they belong to.
    pub touched: Touched,
    /// The last line, where there was one.
    pub last: Option<(i64, String)>,
}

/// A page of our entries.
#[derive(Debug, Default)]
pub struct EntriesPage {
    /// Those of their payments that are this provider's, each once.
    pub payments: Vec<PaymentId>,
    /// The last entry, whosever it was, where there was one.
    pub last: Option<(i64, String)>,
}

/// Which runs, newest first.
#[derive(Debug, Clone)]
pub struct RunsQuery {
    /// Only of this provider.
    pub provider: Option<String>,
    /// After this time and id.
    pub after: Option<(i64, String)>,
    /// At most so many.
    pub limit: i64,
}

/// Which discrepancies, newest first.
#[derive(Debug, Clone)]
pub struct DiscrepanciesQuery {
    /// Only of this provider.
    pub provider: Option<String>,
    /// Only of this kind.
    pub kind: Option<Kind>,
    /// Only with this status.
    pub status: Option<Status>,
    /// After this time and id.
    pub after: Option<(i64, String)>,
    /// At most so many.
    pub limit: i64,
}

/// How many discrepancies of a kind are open with a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCount {
    /// The provider.
    pub provider: String,
    /// The kind.
    pub kind: Kind,
    /// How many.
    pub count: i64,
}

/// A person's word on a discrepancy.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// Which one.
    pub id: DiscrepancyId,
    /// Who.
    pub by: String,
    /// What they found out.
    pub note: String,
    /// When.
    pub now_us: i64,
}

/// The lease on a run.
#[derive(Debug, Clone)]
pub struct RunLease {
    /// Whose.
    pub owner: String,
    /// Now.
    pub now_us: i64,
    /// How long from now.
    pub lasts_us: i64,
}

/// What reconciliation needs. Shared as `Arc<dyn Reconciliations>`.
#[async_trait]
pub trait Reconciliations: Send + Sync {
    /// Asks for a run, unless one with this provider is open: then that one is what is answered.
    async fn request(
        &self,
        key: Option<&Key>,
        new: &Run,
        audit: &Record,
        answer: Answering<'_, Run>,
    ) -> Result<Answer, Error>;

    /// Asks for a run by itself, unless one is open or was asked for after a time. Says whether it did.
    async fn schedule(&self, new: &Run, audit: &Record, not_since_us: i64) -> Result<bool, Error>;

    /// Takes a run that is open and nobody's, the oldest first.
    async fn take(&self, lease: &RunLease) -> Result<Option<Run>, Error>;

    /// Up to when the last run with a provider that succeeded has compared.
    async fn compared_until(&self, provider: &str) -> Result<Option<i64>, Error>;

    /// When a run with a provider was last asked for.
    async fn last_requested(&self, provider: &str) -> Result<Option<i64>, Error>;

    /// Keeps lines of a provider, each once.
    async fn keep(&self, provider: &str, lines: &[Line]) -> Result<(), Error>;

    /// A page of the lines that are kept, by when they were booked, and whom they belong to.
    async fn lines(&self, query: &PageQuery) -> Result<LinesPage, Error>;

    /// Looks again whom lines belong to that belonged to nobody, by the provider's ids.
    async fn look_again(&self, provider: &str, ids: &[String]) -> Result<Touched, Error>;

    /// A page of our entries.
    async fn entries(&self, query: &PageQuery) -> Result<EntriesPage, Error>;

    /// Payments with everything that is known of them.
    async fn cases(&self, provider: &str, payments: &[PaymentId]) -> Result<Vec<Case>, Error>;

    /// Books lines of settlements, each once, and records it where some were new; answers how many, and the earlier lines of those that are not as
    /// they were.
    async fn book(
        &self,
        provider: &str,
        bookings: &[Booking],
        record: &Record,
    ) -> Result<(i64, Vec<SettlementLine>), Error>;

    /// Open discrepancies of a provider by id, after one.
    async fn open(
        &self,
        provider: &str,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Discrepancy>, Error>;

    /// Keeps what a page came to and how far the run has come, for the holder of the lease; adds to the run's counts.
    /// `hold`: the lease goes on; else it is given back, and the run is nobody's for that long. False: the lease is
    /// somebody else's, and nothing was kept.
    async fn record(
        &self,
        run: &mut Run,
        outcome: &Outcome,
        lease: &RunLease,
        hold: bool,
    ) -> Result<bool, Error>;

    /// One run.
    async fn run(&self, id: ReconciliationId) -> Result<Option<Run>, Error>;

    /// A page of runs.
    async fn runs(&self, query: &RunsQuery) -> Result<Vec<Run>, Error>;

    /// A page of discrepancies.
    async fn discrepancies(&self, query: &DiscrepanciesQuery) -> Result<Vec<Discrepancy>, Error>;

    /// A person resolves a discrepancy that is open. One that is not stays as it is and is answered so.
    async fn resolve(
        &self,
        key: Option<&Key>,
        resolution: &Resolution,
        audit: &Record,
        answer: Answering<'_, Discrepancy>,
    ) -> Result<Answer, Error>;

    /// What is open, by provider and kind.
    async fn open_counts(&self) -> Result<Vec<OpenCount>, Error>;
}
