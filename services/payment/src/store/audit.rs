//! The chain of who did what, beside [`super::Store`], which writes each record with its change.

use crate::audit::{Broken, Head, Record, Sealed, Verifier};
use crate::error::Error;
use async_trait::async_trait;

/// How many records a verification reads at once.
const PAGE: i64 = 1_000;

/// Which records, and where the page begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this object.
    pub object: Option<String>,
    /// Only of this caller.
    pub principal: Option<String>,
    /// Before this number, newest first.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

/// Records that wait for their places in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// How many.
    pub records: i64,
    /// The time of the oldest; nothing where none waits.
    pub oldest_us: Option<i64>,
}

/// The chain. Shared as `Arc<dyn AuditLog>`.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Gives up to `limit` waiting records their places, the oldest first, in one transaction; says how many. None where
    /// somebody else is about it.
    async fn seal(&self, limit: u32) -> Result<usize, Error>;

    /// A page of records, newest first.
    async fn records(&self, query: &AuditQuery) -> Result<Vec<Sealed>, Error>;

    /// Records after a number, in the order of the chain.
    async fn chain(&self, after: i64, limit: i64) -> Result<Vec<Sealed>, Error>;

    /// What waits.
    async fn pending(&self) -> Result<Pending, Error>;
}

/// What a chain is found to be.
#[derive(Debug)]
pub enum Verified {
    /// Whole, up to this head.
    Whole(Head),
    /// Not what it was.
    Broken(Broken),
}

/// Goes through the whole chain; `known` is a head that it once had, where one was kept. Reads page after page, so
/// that what is added meanwhile is either part of it or not.
pub async fn verify(log: &dyn AuditLog, known: Option<Head>) -> Result<Verified, Error> {
    let mut verifier = Verifier::new(known);
    loop {
        let page = log.chain(verifier.head().number, PAGE).await?;
        for sealed in &page {
            if let Err(broken) = verifier.next(sealed) {
                return Ok(Verified::Broken(broken));
            }
        }
        if page.is_empty() {
            return Ok(verifier
                .end()
                .map_or_else(Verified::Broken, Verified::Whole));
        }
    }
}

/// Links records to a chain, in this order.
pub(super) fn link(mut head: Head, records: Vec<Record>) -> Vec<Sealed> {
    let seal = |record| {
        let sealed = head.seal(record);
        head = sealed.head();
        sealed
    };
    records.into_iter().map(seal).collect()
}
