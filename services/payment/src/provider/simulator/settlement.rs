//! What the simulator keeps and pays out: made from the journal alone, so that the same journal gives the same lines.
//!
//! A fee for each capture by the rule of its currency; a payout for each UTC day and currency, once the day is over, of
//! what was captured and came back, less what went back and the fees. Deliberately missing: minimum amounts, reserves and weekends.

use crate::provider::{SettlementKind, SettlementLine, TransactionKind};
use kernel::{Currency, Money, day};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a simulator keeps, and when it pays the rest out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SettlementConfig {
    /// What it keeps of each capture, by currency; without an entry, nothing.
    pub fees: BTreeMap<String, FeeRule>,
    /// How many days after it was made a payout arrives.
    pub arrival_days: u32,
}

/// What is kept of a capture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeeRule {
    /// Of the amount, in hundredths of a percent.
    pub basis_points: u32,
    /// On top of that, in minor units.
    pub fixed_minor: u32,
}

impl FeeRule {
    /// The fee, rounded half up; never more than the amount.
    fn of(self, amount_minor: i64) -> i64 {
        let share = (i128::from(amount_minor) * i128::from(self.basis_points) + 5_000) / 10_000;
        let fee = share + i128::from(self.fixed_minor);
        i64::try_from(fee).unwrap_or(amount_minor).min(amount_minor)
    }
}

/// A movement as the journal has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Movement {
    pub(super) kind: TransactionKind,
    pub(super) recorded_at_us: i64,
    /// Above zero for what came in, below for what went back.
    pub(super) amount: Money,
}

/// Where a list of lines is read on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Fees of what comes after this place of the journal; payouts from a day on later.
    Fees { after: i64, day: i64 },
    /// Payouts of this day, by its number, and later.
    Payouts { day: i64 },
}

impl Place {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let place = match (words.next()?, words.next()?, words.next()) {
            ("fees", after, Some(day)) => Self::Fees {
                after: after.parse().ok()?,
                day: day.parse().ok()?,
            },
            ("payouts", day, None) => Self::Payouts {
                day: day.parse().ok()?,
            },
            _ => return None,
        };
        words.next().is_none().then_some(place)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fees { after, day } => write!(f, "fees:{after}:{day}"),
            Self::Payouts { day } => write!(f, "payouts:{day}"),
        }
    }
}

impl SettlementConfig {
    /// The fee of a capture, where there is one.
    pub(super) fn fee(
        &self,
        sequence: i64,
        reference: &str,
        movement: Movement,
    ) -> Option<SettlementLine> {
        let fee_minor = self.fee_minor(movement);
        let currency = movement.amount.currency();
        (fee_minor > 0).then(|| SettlementLine {
            id: format!("fee_{sequence}"),
            kind: SettlementKind::Fee,
            reference: reference.to_owned(),
            payout: payout_id(movement.recorded_at_us, currency),
            amount: Money::new(currency, fee_minor).expect("no more than an amount"),
            arrival_day: String::new(),
            booked_at_us: movement.recorded_at_us,
        })
    }

    fn fee_minor(&self, movement: Movement) -> i64 {
        let amount = movement.amount;
        let rule = self.fees.get(amount.currency().code()).copied();
        let rule = rule.filter(|_| movement.kind == TransactionKind::Capture);
        rule.map_or(0, |rule| rule.of(amount.amount_minor()))
    }
}

/// What is paid out of some days, summed up movement by movement.
#[derive(Debug, Default)]
pub(super) struct Payouts {
    net: BTreeMap<(i64, &'static str), (Currency, i128)>,
}

impl Payouts {
    pub(super) fn add(&mut self, rules: &SettlementConfig, movement: Movement) {
        let currency = movement.amount.currency();
        let day = day_number(movement.recorded_at_us);
        let (_, net) = self
            .net
            .entry((day, currency.code()))
            .or_insert((currency, 0));
        *net += i128::from(movement.amount.amount_minor() - rules.fee_minor(movement));
    }

    /// The payouts of days that are over; those of nothing are none.
    pub(super) fn lines(self, rules: &SettlementConfig, now_us: i64) -> Vec<SettlementLine> {
        let over = |day: i64| (day + 1).saturating_mul(day::DAY_US) <= now_us;
        let line = |((day, _), (currency, net)): ((i64, &str), (Currency, i128))| {
            let amount = Money::new(currency, i64::try_from(net).ok()?).ok()?;
            let made_us = (day + 1) * day::DAY_US;
            let arrives_us = made_us + i64::from(rules.arrival_days) * day::DAY_US;
            (over(day) && !amount.is_zero()).then(|| SettlementLine {
                id: payout_id(day * day::DAY_US, currency),
                kind: SettlementKind::Payout,
                reference: String::new(),
                payout: payout_id(day * day::DAY_US, currency),
                amount,
                arrival_day: day::of(arrives_us),
                booked_at_us: made_us,
            })
        };
        self.net.into_iter().filter_map(line).collect()
    }
}

/// The number of a time's UTC day.
pub(super) fn day_number(at_us: i64) -> i64 {
    at_us.div_euclid(day::DAY_US)
}

fn payout_id(at_us: i64, currency: Currency) -> String {
    format!("po_{}_{}", day::of(at_us), currency.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(code: &str, amount_minor: i64) -> Money {
        Money::new(Currency::parse(code).unwrap(), amount_minor).unwrap()
    }

    fn rules() -> SettlementConfig {
        let usd = FeeRule {
            basis_points: 290,
            fixed_minor: 30,
        };
        SettlementConfig {
            fees: BTreeMap::from([("USD".to_owned(), usd)]),
            arrival_days: 2,
        }
    }

    #[test]
    fn fees_are_rounded_half_up_and_never_more_than_the_amount() {
        let rule = FeeRule {
            basis_points: 250,
            fixed_minor: 10,
        };
        let fees = [(0, 0), (5, 5), (19, 10), (20, 11), (1_000, 35)];
        for (amount_minor, fee) in fees {
            assert_eq!(rule.of(amount_minor), fee, "{amount_minor}");
        }
        assert_eq!(rule.of(kernel::AMOUNT_MINOR_MAX), 25_000_000_000_010);
    }

    #[test]
    fn a_day_is_paid_out_once_it_is_over() {
        let (rules, monday_us) = (rules(), 20_000 * day::DAY_US);
        let payouts = || {
            let mut payouts = Payouts::default();
            for (recorded_at_us, amount) in [
                (monday_us, money("USD", 1_000)),
                (monday_us + 5, money("USD", -400)),
                (monday_us + day::DAY_US - 1, money("KRW", 9_000)),
                (monday_us + day::DAY_US, money("USD", 100)),
            ] {
                let kind = if amount.amount_minor() < 0 {
                    TransactionKind::Refund
                } else {
                    TransactionKind::Capture
                };
                let movement = Movement {
                    kind,
                    recorded_at_us,
                    amount,
                };
                payouts.add(&rules, movement);
            }
            payouts
        };
        assert_eq!(payouts().lines(&rules, monday_us + day::DAY_US - 1), []);
        let lines = payouts().lines(&rules, monday_us + day::DAY_US);
        let told: Vec<_> = lines
            .iter()
            .map(|line| {
                (
                    line.id.as_str(),
                    line.amount.amount_minor(),
                    line.arrival_day.as_str(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                ("po_2024-10-04_KRW", 9_000, "2024-10-07"),
                ("po_2024-10-04_USD", 541, "2024-10-07")
            ]
        );
    }

    #[test]
    fn places_are_read_back() {
        for place in [
            Place::Fees { after: 7, day: -1 },
            Place::Payouts { day: 20_000 },
        ] {
            assert_eq!(Place::parse(&place.to_string()), Some(place));
        }
        for text in ["", "fees:1", "payouts:x", "payouts:1:2", "fees:1:2:3"] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_banks_take_and_bring_back_is_in_the_payout_without_a_fee() {
        let (rules, monday_us) = (rules(), 20_000 * day::DAY_US);
        let mut payouts = Payouts::default();
        for (kind, minor) in [
            (TransactionKind::Capture, 1_000),
            (TransactionKind::RefundReversal, 400),
            (TransactionKind::Dispute, -700),
            (TransactionKind::DisputeReversal, 700),
        ] {
            let movement = Movement {
                kind,
                recorded_at_us: monday_us,
                amount: money("USD", minor),
            };
            payouts.add(&rules, movement);
            let fee = rules.fee(1, "", movement);
            assert_eq!(fee.is_some(), kind == TransactionKind::Capture, "{kind:?}");
        }
        let lines = payouts.lines(&rules, monday_us + 2 * day::DAY_US);
        let paid: Vec<i64> = lines
            .iter()
            .map(|line| line.amount.amount_minor())
            .collect();
        assert_eq!(paid, [1_000 + 400 - 59]);
    }
}
