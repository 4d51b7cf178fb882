//! What Toss keeps and pays out: its list of settlements, payment by payment, by the day on which they were paid out.
//!
//! Toss transfers one sum a day, of which each line is a part; what it keeps is the difference between a payment and
//! its part. Deliberately missing: settlements of days to come, which may still change.

use super::messages::Settled;
use crate::provider::{SettlementKind, SettlementLine};
use kernel::{Currency, Money, day};

const NINE_HOURS_US: i64 = 9 * 3_600 * 1_000_000;

/// Where the list is read on from: a first day in Korea's time, and a page of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start_day: String,
    pub(super) page: u32,
}

impl Place {
    /// Reads a place that [`super::Toss::since`] gave, or this one's text; nothing where it is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (start, page) = match text.split_once(' ') {
            Some((start, page)) => (start, page.parse().ok()?),
            None => (text, 1),
        };
        let start_day = start.get(..10)?;
        day::parse_start("from", start_day).ok()?;
        Some(Self {
            start_day: start_day.to_owned(),
            page,
        })
    }

    /// The page after this one.
    pub(super) fn next(&self) -> String {
        format!("{} {}", self.start_day, self.page + 1)
    }
}

/// The fee and the part of a payout in a line of Toss's.
pub(super) fn lines(settled: &Settled) -> Vec<SettlementLine> {
    let fee_minor = settled.amount.checked_sub(settled.pay_out_amount);
    let fee = fee_minor.and_then(|minor| line(settled, SettlementKind::Fee, minor));
    let payout = line(settled, SettlementKind::Payout, settled.pay_out_amount);
    fee.into_iter().chain(payout).collect()
}

fn line(settled: &Settled, kind: SettlementKind, amount_minor: i64) -> Option<SettlementLine> {
    let currency = Currency::parse(&settled.currency).ok()?;
    let amount = Money::new(currency, amount_minor).ok()?;
    let paid_us = day::parse_start("paidOutDate", &settled.paid_out_date).ok()? - NINE_HOURS_US;
    let arrival_day = match kind {
        SettlementKind::Fee => String::new(),
        SettlementKind::Payout => settled.paid_out_date.clone(),
    };
    (!amount.is_zero()).then(|| SettlementLine {
        id: settled.transaction_key.clone(),
        kind,
        reference: settled.order_id.clone(),
        payout: settled.paid_out_date.clone(),
        amount,
        arrival_day,
        booked_at_us: paid_us,
    })
}
