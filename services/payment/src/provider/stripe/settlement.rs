//! What Stripe keeps and pays out, as its balance has it: one list of balance transactions serves both.
//!
//! A fee stands beside the charge or refund that it is for, or by itself (`stripe_fee`, `stripe_fx_fee`, `tax_fee`); a
//! payout that fails or is canceled comes back as a line of its own. All are in the currency that the account settles
//! in. Deliberately missing: which payout a fee went into, which Stripe tells payout by payout only.

use super::amount::from_stripe;
use super::messages::{BalanceTransaction, REFERENCE};
use super::statement;
use crate::provider::{SettlementKind, SettlementLine};
use kernel::{Currency, day};
use tracing::warn;

/// Between the two parts of a place; no id of Stripe's contains it.
const BETWEEN: char = ' ';

/// Where the list of balance transactions is read on from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Created since, in seconds since the Unix epoch.
    pub(super) since_s: Option<i64>,
    /// After this one.
    pub(super) after: Option<String>,
}

impl Place {
    /// What was created since a time.
    pub(super) fn since(at_us: i64) -> String {
        format!("since:{}", at_us.div_euclid(1_000_000))
    }

    /// Reads a place that [`Place::since`] or [`Place::next`] gave.
    pub(super) fn parse(text: &str) -> Self {
        let Some(rest) = text.strip_prefix("since:") else {
            return Self {
                since_s: None,
                after: Some(text.to_owned()),
            };
        };
        let (since, after) = match rest.split_once(BETWEEN) {
            Some((since, after)) => (since, Some(after.to_owned())),
            None => (rest, None),
        };
        Self {
            since_s: since.parse().ok(),
            after,
        }
    }

    /// The place after the last of a page.
    pub(super) fn next(&self, last: &str) -> String {
        match self.since_s {
            Some(since_s) => format!("since:{since_s}{BETWEEN}{last}"),
            None => last.to_owned(),
        }
    }
}

/// The fee and the payout in a balance transaction; most have one of them or neither.
pub(super) fn lines(booked: &BalanceTransaction) -> Vec<SettlementLine> {
    let (stands_alone, is_payout) = match booked.kind.as_str() {
        "stripe_fee" | "stripe_fx_fee" | "tax_fee" => (true, false),
        "payout" | "payout_cancel" | "payout_failure" => (false, true),
        _ => (false, false),
    };
    let is_known = stands_alone || is_payout || statement::kind(booked).is_some();
    if booked.amount != 0 && !is_known {
        left_out(booked);
    }
    // Stripe counts what leaves its balance as negative.
    let fee = if stands_alone {
        booked.amount.checked_neg()
    } else {
        Some(booked.fee)
    };
    let payout = booked.amount.checked_neg().filter(|_| is_payout);
    let read = |kind, units: Option<i64>| {
        let units = units.filter(|units| *units != 0)?;
        let line = line(booked, kind, units);
        if line.is_none() {
            left_out(booked);
        }
        line
    };
    let fee = read(SettlementKind::Fee, fee);
    let payout = read(SettlementKind::Payout, payout);
    fee.into_iter().chain(payout).collect()
}

fn left_out(booked: &BalanceTransaction) {
    warn!(
        id = booked.id,
        r#type = booked.kind,
        amount = booked.amount,
        fee = booked.fee,
        currency = booked.currency,
        "what moved the balance becomes no line"
    );
}

fn line(booked: &BalanceTransaction, kind: SettlementKind, units: i64) -> Option<SettlementLine> {
    let currency = Currency::parse(&booked.currency.to_uppercase()).ok()?;
    let amount = from_stripe(currency, units)?;
    let source = booked.source.as_ref();
    let seconds_us = |seconds: i64| seconds.checked_mul(1_000_000);
    let (payout, arrival_day) = match kind {
        SettlementKind::Fee => (String::new(), String::new()),
        SettlementKind::Payout => {
            let arrives = source
                .and_then(|source| source.arrival_date)
                .unwrap_or(booked.created);
            let id = source.map(|source| source.id.clone()).unwrap_or_default();
            (id, day::of(seconds_us(arrives)?))
        }
    };
    let reference = source.and_then(|source| source.metadata.get(REFERENCE));
    Some(SettlementLine {
        id: booked.id.clone(),
        kind,
        reference: reference.cloned().unwrap_or_default(),
        payout,
        amount,
        arrival_day,
        booked_at_us: seconds_us(booked.created)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_back() {
        let since = Place::parse(&Place::since(1_700_000_000_999_999));
        assert_eq!(
            (since.since_s, since.after.as_deref()),
            (Some(1_700_000_000), None)
        );
        let next = Place::parse(&since.next("txn_1"));
        assert_eq!(
            (next.since_s, next.after.as_deref()),
            (Some(1_700_000_000), Some("txn_1"))
        );
        let plain = Place::parse("txn_1");
        assert_eq!(
            (plain.since_s, plain.next("txn_2").as_str()),
            (None, "txn_2")
        );
    }
}
