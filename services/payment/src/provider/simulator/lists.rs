//! The simulator's lists: where they are read on from, and pages of what was kept and paid out.

use super::book::refused;
use super::entry::{Entry, Outcome};
use super::settlement::{self, Movement, Payouts, Place};
use super::{Simulator, asked_for, store, unavailable};
use crate::provider::{ProviderError, SettlementPage, TransactionKind};

/// How many days' payouts are listed at once.
const PAYOUT_DAYS: i64 = 31;

/// How a place begins that is a time.
pub(super) const SINCE: &str = "since:";

pub(super) fn since_of(from: &str) -> Option<i64> {
    from.strip_prefix(SINCE)?.parse().ok()
}

pub(super) fn no_place() -> ProviderError {
    refused(
        "CURSOR_INVALID",
        "not a place that an earlier page said the next one begins at",
    )
}

impl Simulator {
    /// The last place of the journal before a time.
    pub(super) async fn before(&self, at_us: i64) -> Result<i64, ProviderError> {
        let before = store::before(self.journal.reader(), at_us);
        before.await.map_err(unavailable)
    }

    pub(super) async fn fees(&self, after: i64, day: i64) -> Result<SettlementPage, ProviderError> {
        let movements = store::movements(self.journal.reader(), after)
            .await
            .map_err(unavailable)?;
        let full = i64::try_from(movements.len()).is_ok_and(|count| count == store::ROWS_MAX);
        let next = match movements.last() {
            Some((after, _)) if full => Place::Fees { after: *after, day },
            _ => Place::Payouts { day },
        };
        let captured = movements
            .iter()
            .filter(|(_, entry)| entry.outcome == Outcome::Captured);
        let fee = |(sequence, entry): &(i64, Entry)| {
            let movement = Movement {
                kind: TransactionKind::Capture,
                recorded_at_us: entry.recorded_at_us,
                amount: entry.amount,
            };
            self.settlement
                .fee(*sequence, asked_for(&entry.reference), movement)
        };
        Ok(SettlementPage {
            lines: captured.filter_map(fee).collect(),
            next: Some(next.to_string()),
        })
    }

    pub(super) async fn payouts(&self, day: i64) -> Result<SettlementPage, ProviderError> {
        let first = store::first_day(self.journal.reader(), day)
            .await
            .map_err(unavailable)?;
        let now_us = self.clock.now_us();
        let Some(first) = first.filter(|first| *first < settlement::day_number(now_us)) else {
            return Ok(SettlementPage {
                lines: Vec::new(),
                next: None,
            });
        };
        let end = first + PAYOUT_DAYS;
        let mut payouts = Payouts::default();
        let each = |movement| payouts.add(&self.settlement, movement);
        store::each_movement(self.journal.reader(), first, end, each)
            .await
            .map_err(unavailable)?;
        Ok(SettlementPage {
            lines: payouts.lines(&self.settlement, now_us),
            next: Some(Place::Payouts { day: end }.to_string()),
        })
    }
}
