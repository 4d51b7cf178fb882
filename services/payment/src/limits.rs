//! How much each caller may ask providers for, and how often: limits against a stolen key, a runaway client, and
//! somebody who tries out cards.
//!
//! A charge counts when it is asked for, whatever becomes of it: a limit that begins anew with every decline would stop
//! nobody who tries out cards. Captures and refunds are not counted; they follow a charge. Windows do not slide, they
//! follow each other, the first beginning with the Unix epoch: one of 86 400 s is a day in UTC. So a row says what is
//! left of each, exactly, and a refusal says when the next begins. The price: around the turn of a window up to twice
//! the limit is possible within its length.

use crate::payment::Payment;
use crate::rejection::Rejection;
use kernel::{AMOUNT_MINOR_MAX, Currency, Invalid, Money};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest window: 366 days.
const WINDOW_S_MAX: u32 = 366 * 86_400;

/// What one caller may ask for in one currency within a window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    /// The caller that it is for; empty: each caller that no limit of the same currency names.
    pub principal: String,
    /// The currency of the payments that it counts, ISO 4217.
    pub currency: String,
    /// The length of its windows in seconds, at most 366 days; 86400 is a day in UTC.
    pub window_s: u32,
    /// The most that may be charged within a window, in minor units; 0: any amount.
    pub amount_minor_max: i64,
    /// The most charges within a window; 0: any number.
    pub charges_max: u32,
}

/// A limit, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    principal: String,
    currency: Currency,
    window_us: i64,
    amount_minor_max: Option<i64>,
    charges_max: Option<i64>,
}

/// All limits. Cheap to clone; the default has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    rules: Arc<[Rule]>,
}

/// One charge against one limit: what is added to a window, and what must hold then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spending {
    /// Who asks.
    pub principal: String,
    /// The currency.
    pub currency: Currency,
    /// The length of the window.
    pub window_us: i64,
    /// When it began.
    pub start_us: i64,
    /// What the charge adds; 0 where the limit has no amount.
    pub amount_minor: i64,
    /// The most that the window may hold; `i64::MAX` where the limit has no amount.
    pub amount_minor_max: i64,
    /// The most charges that it may hold; `i64::MAX` where the limit has no number.
    pub charges_max: i64,
}

/// What a window holds already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// The sum of the amounts.
    pub amount_minor: i64,
    /// The number of charges.
    pub charges: i64,
}

impl Limits {
    /// These limits. An error names the one that is none, and why.
    pub fn new(limits: &[Limit]) -> Result<Self, Invalid> {
        let mut seen = BTreeSet::new();
        let rules = limits.iter().enumerate().map(|(index, limit)| {
            let rule = limit.rule().map_err(|error| {
                Invalid::new(format!("limits[{index}].{}", error.field), error.reason)
            })?;
            let place = (&limit.principal, &limit.currency, limit.window_s);
            if seen.insert(place) {
                Ok(rule)
            } else {
                let reason = "is there twice for the same principal, currency and window";
                Err(Invalid::new(format!("limits[{index}]"), reason))
            }
        });
        Ok(Self {
            rules: rules.collect::<Result<_, _>>()?,
        })
    }

    /// What the payment's last attempt, begun now, counts for. `attempts` is how many it had before: with as many
    /// nothing is asked for.
    pub fn spending(&self, payment: &Payment, attempts: usize, now_us: i64) -> Vec<Spending> {
        let Some(attempt) = payment.attempts.get(attempts) else {
            return Vec::new();
        };
        let (principal, currency) = (&payment.order.principal, payment.order.currency);
        let of_currency = || self.rules.iter().filter(|rule| rule.currency == currency);
        let named = of_currency().any(|rule| rule.principal == *principal);
        let name = if named { principal.as_str() } else { "" };
        let theirs = of_currency().filter(|rule| rule.principal == name);
        theirs
            .map(|rule| Spending {
                principal: principal.clone(),
                currency,
                window_us: rule.window_us,
                start_us: now_us - now_us.rem_euclid(rule.window_us),
                amount_minor: rule.amount_minor_max.map_or(0, |_| attempt.amount_minor),
                amount_minor_max: rule.amount_minor_max.unwrap_or(i64::MAX),
                charges_max: rule.charges_max.unwrap_or(i64::MAX),
            })
            .collect()
    }
}

impl Limit {
    fn rule(&self) -> Result<Rule, Invalid> {
        let currency = Currency::parse(&self.currency).map_err(|error| error.at("currency"))?;
        if !(1..=WINDOW_S_MAX).contains(&self.window_s) {
            let reason = format!("must be between 1 and {WINDOW_S_MAX}");
            return Err(Invalid::new("window_s", reason));
        }
        if !(0..=AMOUNT_MINOR_MAX).contains(&self.amount_minor_max) {
            let reason = format!("must be between 0 and {AMOUNT_MINOR_MAX}");
            return Err(Invalid::new("amount_minor_max", reason));
        }
        if self.amount_minor_max == 0 && self.charges_max == 0 {
            let reason = "limits nothing, and charges_max does not either";
            return Err(Invalid::new("amount_minor_max", reason));
        }
        Ok(Rule {
            principal: self.principal.clone(),
            currency,
            window_us: i64::from(self.window_s) * 1_000_000,
            amount_minor_max: (self.amount_minor_max > 0).then_some(self.amount_minor_max),
            charges_max: (self.charges_max > 0).then_some(self.charges_max.into()),
        })
    }
}

impl Spending {
    /// When the next window begins.
    pub fn ends_us(&self) -> i64 {
        self.start_us + self.window_us
    }

    /// Why the charge does not fit into its window, given what that holds.
    pub fn refused(&self, spent: Spent, now_us: i64) -> Option<Rejection> {
        let too_many = spent.charges >= self.charges_max;
        let too_much = spent.amount_minor.saturating_add(self.amount_minor) > self.amount_minor_max;
        if !too_many && !too_much {
            return None;
        }
        // What is larger than the limit itself fits into no window.
        let never = self.amount_minor > self.amount_minor_max;
        Some(Rejection::LimitReached {
            window_s: self.window_us / 1_000_000,
            currency: self.currency,
            left: too_much.then(|| {
                let left_minor = (self.amount_minor_max - spent.amount_minor).max(0);
                Money::new(self.currency, left_minor)
                    .expect("at most the limit, which is an amount")
            }),
            retry_us: (!never).then(|| (self.ends_us() - now_us).max(0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_US: i64 = 86_400_000_000;

    fn limit(principal: &str, window_s: u32, amount_minor_max: i64, charges_max: u32) -> Limit {
        Limit {
            principal: principal.into(),
            currency: "USD".into(),
            window_s,
            amount_minor_max,
            charges_max,
        }
    }

    fn spending(amount_minor: i64) -> Spending {
        Spending {
            principal: "shop".into(),
            currency: Currency::parse("USD").unwrap(),
            window_us: DAY_US,
            start_us: 3 * DAY_US,
            amount_minor,
            amount_minor_max: 1_000,
            charges_max: 3,
        }
    }

    #[test]
    fn a_limit_that_limits_nothing_or_is_there_twice_is_named() {
        let error = |limits: &[Limit]| Limits::new(limits).unwrap_err().to_string();
        let good = limit("", 60, 1, 0);
        assert!(
            error(&[good.clone(), limit("", 60, 0, 0)])
                .starts_with("limits[1].amount_minor_max: limits nothing")
        );
        assert!(error(&[limit("", 0, 1, 0)]).starts_with("limits[0].window_s: must be between 1"));
        assert!(error(&[limit("", 60, -1, 1)]).starts_with("limits[0].amount_minor_max: must be"));
        assert!(error(&[good.clone(), good.clone()]).starts_with("limits[1]: is there twice"));
        let unknown = Limit {
            currency: "dollars".into(),
            ..good.clone()
        };
        assert!(error(&[unknown]).starts_with("limits[0].currency"));
        assert!(Limits::new(&[good, limit("", 61, 1, 0), limit("shop", 60, 1, 0)]).is_ok());
    }

    #[test]
    fn a_window_takes_what_it_has_room_for_and_says_when_the_next_begins() {
        let now_us = 3 * DAY_US + DAY_US / 4;
        let spent = |amount_minor, charges| Spent {
            amount_minor,
            charges,
        };
        assert_eq!(
            spending(400).refused(spent(600, 2), now_us),
            None,
            "to the last unit"
        );
        let refused = |spending: Spending, spent| match spending.refused(spent, now_us) {
            Some(Rejection::LimitReached { left, retry_us, .. }) => {
                (left.map(Money::amount_minor), retry_us)
            }
            other => panic!("{other:?}"),
        };
        let rest = Some(DAY_US * 3 / 4);
        assert_eq!(refused(spending(401), spent(600, 2)), (Some(400), rest));
        assert_eq!(
            refused(spending(1), spent(0, 3)),
            (None, rest),
            "the number alone"
        );
        assert_eq!(
            refused(spending(1_001), spent(0, 0)),
            (Some(1_000), None),
            "fits into no window"
        );
        assert_eq!(
            refused(spending(1), spent(5_000, 0)),
            (Some(0), rest),
            "the limit was lowered"
        );
    }
}
