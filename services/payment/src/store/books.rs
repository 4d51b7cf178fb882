//! The books as an accountant reads them, and their closing.
//!
//! Apart from [`super::Store`], which writes each entry with its change. Deliberately missing: reopening. What was closed
//! was reported; a mistake in it is corrected by an entry of today.

use super::LedgerAccount;
use super::reconcile::Answering;
use crate::audit::Record;
use crate::commands::Answer;
use crate::error::Error;
use async_trait::async_trait;
use kernel::Currency;
use mesh_store::idempotency::Key;

/// What an account moved on one UTC day, and where it stood at the end of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayBalance {
    /// The first microsecond of the day.
    pub day_us: i64,
    /// The account.
    pub account: String,
    /// The currency.
    pub currency: Currency,
    /// What was debited.
    pub debits_minor: i64,
    /// What was credited, not negative.
    pub credits_minor: i64,
    /// Debits minus credits of all time up to the end of the day.
    pub balance_minor: i64,
}

/// Which days, and where the page begins.
#[derive(Debug, Clone)]
pub struct BalancesQuery {
    /// The first day's beginning.
    pub from_us: i64,
    /// The end of the last one, which is no part of it.
    pub to_us: i64,
    /// Only in this currency.
    pub currency: Option<Currency>,
    /// After this day, account and currency.
    pub after: Option<(i64, String, String)>,
    /// At most so many.
    pub limit: i64,
}

/// One posting with the entry that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostingRow {
    /// When the entry was recorded.
    pub recorded_at_us: i64,
    /// The entry.
    pub transaction_id: String,
    /// What the entry records, as the store names it.
    pub kind: String,
    /// The payment; empty: it belongs to none.
    pub payment_id: String,
    /// What it records.
    pub source_id: String,
    /// Its place in the entry.
    pub line: i64,
    /// The account.
    pub account: String,
    /// The currency.
    pub currency: Currency,
    /// Debits positive, credits negative.
    pub amount_minor: i64,
}

/// Which postings, oldest first.
#[derive(Debug, Clone)]
pub struct PostingsQuery {
    /// Recorded since.
    pub from_us: i64,
    /// Recorded before.
    pub to_us: i64,
    /// After this time, entry and line.
    pub after: Option<(i64, String, i64)>,
    /// At most so many.
    pub limit: i64,
}

/// Closes the books up to a time.
#[derive(Debug, Clone)]
pub struct Closing {
    /// What was recorded before stays as it is.
    pub until_us: i64,
    /// Who closes them.
    pub by: String,
    /// Now.
    pub now_us: i64,
}

/// The books. Shared as `Arc<dyn Books>`.
#[async_trait]
pub trait Books: Send + Sync {
    /// What accounts moved by day, by day, account and currency. Days on which an account did not move are left out.
    async fn balances(&self, query: &BalancesQuery) -> Result<Vec<DayBalance>, Error>;

    /// Where each account stood just before a time; those that stood at zero are left out.
    async fn trial(&self, until_us: i64) -> Result<Vec<LedgerAccount>, Error>;

    /// A page of postings.
    async fn postings(&self, query: &PostingsQuery) -> Result<Vec<PostingRow>, Error>;

    /// Up to when the books are closed.
    async fn closed_until(&self) -> Result<Option<i64>, Error>;

    /// Closes them, once no entry of before is under way. Closed before up to then or later, nothing changes. The answer
    /// is of the time up to which they are closed then.
    async fn close(
        &self,
        key: Option<&Key>,
        closing: &Closing,
        audit: &Record,
        answer: Answering<'_, i64>,
    ) -> Result<Answer, Error>;
}

/// Days by number; what accounts stood at before is what they stand at less what came since. The casts keep sums whole numbers in both databases.
pub(super) const BALANCES: &str = "WITH moved AS ( \
        SELECT t.recorded_at_us / 86400000000 AS day, p.account, p.currency, \
            SUM(CASE WHEN p.amount_minor > 0 THEN p.amount_minor ELSE 0 END) AS debits, \
            SUM(CASE WHEN p.amount_minor < 0 THEN -p.amount_minor ELSE 0 END) AS credits \
        FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id \
        WHERE t.recorded_at_us >= $1 AND t.recorded_at_us < $2 AND p.currency = COALESCE($3, p.currency) \
        GROUP BY 1, 2, 3), \
    since AS ( \
        SELECT p.account, p.currency, SUM(p.amount_minor) AS balance \
        FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id \
        WHERE t.recorded_at_us >= $1 GROUP BY 1, 2), \
    whole AS (SELECT account, currency, SUM(balance_minor) AS balance FROM ledger_balances GROUP BY 1, 2), \
    opening AS ( \
        SELECT w.account, w.currency, w.balance - COALESCE(s.balance, 0) AS balance \
        FROM whole w LEFT JOIN since s ON s.account = w.account AND s.currency = w.currency), \
    running AS ( \
        SELECT m.day, m.account, m.currency, m.debits, m.credits, COALESCE(o.balance, 0) \
            + SUM(m.debits - m.credits) OVER (PARTITION BY m.account, m.currency ORDER BY m.day) AS balance \
        FROM moved m LEFT JOIN opening o ON o.account = m.account AND o.currency = m.currency) \
    SELECT CAST(day AS bigint), account, currency, CAST(debits AS bigint), CAST(credits AS bigint), \
        CAST(balance AS bigint) \
    FROM running WHERE (day, account, currency) > ($4, $5, $6) ORDER BY day, account, currency LIMIT $7";
/// What accounts came to is kept with each entry; what came since is taken away again, so that nothing older is read.
pub(super) const TRIAL: &str = "WITH since AS ( \
        SELECT p.account, p.currency, SUM(p.amount_minor) AS balance \
        FROM ledger_transactions t JOIN ledger_postings p ON p.transaction_id = t.id \
        WHERE t.recorded_at_us >= $1 GROUP BY 1, 2), \
    whole AS (SELECT account, currency, SUM(balance_minor) AS balance FROM ledger_balances GROUP BY 1, 2) \
    SELECT w.account, w.currency, CAST(w.balance - COALESCE(s.balance, 0) AS bigint) \
    FROM whole w LEFT JOIN since s ON s.account = w.account AND s.currency = w.currency \
    WHERE w.balance <> COALESCE(s.balance, 0) ORDER BY w.currency, w.account";
pub(super) const CLOSED_UNTIL: &str = "SELECT MAX(closed_until_us) FROM ledger_periods";
/// Nothing where they are closed up to then or later.
pub(super) const CLOSE: &str = "INSERT INTO ledger_periods (closed_until_us, closed_at_us, closed_by) \
    SELECT $1, $2, $3 WHERE NOT EXISTS (SELECT 1 FROM ledger_periods WHERE closed_until_us >= $1)";

/// Day, account, currency, debits, credits, balance.
pub(super) type DayRow = (i64, String, String, i64, i64, i64);

pub(super) fn day_balance(row: DayRow) -> Result<DayBalance, Error> {
    let (day, account, code, debits_minor, credits_minor, balance_minor) = row;
    Ok(DayBalance {
        day_us: day * kernel::day::DAY_US,
        account,
        currency: currency(&code)?,
        debits_minor,
        credits_minor,
        balance_minor,
    })
}

pub(super) fn account(
    (account, code, balance_minor): (String, String, i64),
) -> Result<LedgerAccount, Error> {
    Ok(LedgerAccount {
        account,
        currency: currency(&code)?,
        balance_minor,
    })
}

pub(super) fn currency(code: &str) -> Result<Currency, Error> {
    Currency::parse(code).map_err(|_| Error::Corrupt("currency"))
}

impl BalancesQuery {
    /// The number of the day, account and currency beyond which the page begins.
    pub(super) fn beyond(&self) -> (i64, String, String) {
        match &self.after {
            Some((day_us, account, code)) => {
                (day_us / kernel::day::DAY_US, account.clone(), code.clone())
            }
            None => (i64::MIN, String::new(), String::new()),
        }
    }
}
