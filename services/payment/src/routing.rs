//! Which provider a new payment goes to: by currency, amount, payment method and weight, and past providers that
//! do not answer.
//!
//! A payment is bound to its provider by the first request that may have reached it. Until then it may be given to
//! another one; from then on everything about it, late answers included, concerns that provider only.

use crate::payment::{CaptureMethod, Payment};
use crate::state::State;
use serde::{Deserialize, Serialize};

/// Some payments and the providers that take them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Only payments in these currencies, ISO 4217; empty: in any.
    pub currencies: Vec<String>,
    /// Only payments of at least so many minor units.
    pub amount_minor_min: i64,
    /// Only payments of at most so many minor units; 0: of any amount.
    pub amount_minor_max: i64,
    /// Only payment methods that begin with one of these texts, such as `pm_`; empty: any, also one that is not known yet.
    pub methods: Vec<String>,
    /// The providers, among which chance decides by weight.
    pub providers: Vec<Choice>,
}

/// A provider of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Its name, such as `stripe`.
    pub name: String,
    /// Its share of the payments beside the other weights; 0: only when all others do not answer.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// What there is to know of a payment that is to be routed.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Its currency, ISO 4217.
    pub currency: &'a str,
    /// Its amount in minor units.
    pub amount_minor: i64,
    /// The token that it is to charge; may be empty.
    pub method: &'a str,
    /// Whether the money is authorised first and captured later.
    pub capture_method: CaptureMethod,
    /// The provider that it has, which is kept where it fits as well as any other.
    pub current: Option<&'a str>,
}

/// Whether a provider can take a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It can.
    Ready,
    /// It could, but does not answer.
    Away,
    /// It cannot do what the payment needs, or is not there.
    Unfit,
}

impl Route {
    fn takes(&self, wish: &Wish<'_>) -> bool {
        let currency =
            self.currencies.is_empty() || self.currencies.iter().any(|code| code == wish.currency);
        let at_most = self.amount_minor_max == 0 || wish.amount_minor <= self.amount_minor_max;
        let method = self.methods.is_empty()
            || self
                .methods
                .iter()
                .any(|prefix| wish.method.starts_with(prefix));
        currency && wish.amount_minor >= self.amount_minor_min && at_most && method
    }

    /// One of its providers that fit in this way. `dice`: any number, the same for the same choice.
    fn pick(
        &self,
        wish: &Wish<'_>,
        wanted: Fit,
        dice: u64,
        fit: &dyn Fn(&str) -> Fit,
    ) -> Option<&str> {
        let fitting: Vec<&Choice> = self
            .providers
            .iter()
            .filter(|choice| fit(&choice.name) == wanted)
            .collect();
        if let Some(kept) = fitting
            .iter()
            .find(|choice| wish.current == Some(&choice.name))
        {
            return Some(&kept.name);
        }
        let sum: u64 = fitting.iter().map(|choice| u64::from(choice.weight)).sum();
        let Some(mut place) = dice.checked_rem(sum) else {
            return fitting.first().map(|choice| choice.name.as_str());
        };
        let chosen = fitting.iter().find(|choice| {
            let weight = u64::from(choice.weight);
            let within = place < weight;
            place = place.saturating_sub(weight);
            within
        });
        chosen.map(|choice| choice.name.as_str())
    }
}

/// The provider for a payment: of the first route that takes it and has one that is ready, else of the first that
/// has one at all. Nothing: no route is for it.
pub fn choose<'a>(
    routes: &'a [Route],
    wish: &Wish<'_>,
    dice: u64,
    fit: &dyn Fn(&str) -> Fit,
) -> Option<&'a str> {
    let pick = |wanted| {
        let mut taking = routes.iter().filter(|route| route.takes(wish));
        taking.find_map(|route| route.pick(wish, wanted, dice, fit))
    };
    pick(Fit::Ready).or_else(|| pick(Fit::Away))
}

impl Payment {
    /// Whether no provider can have heard of it yet, so that any may carry it out.
    pub fn is_unsent(&self) -> bool {
        let open = matches!(self.state, State::RequiresConfirmation | State::Processing);
        let untouched =
            |asked: crate::policy::Asked| asked.sent_at_us.is_none() && asked.progress.tries == 0;
        open && self.attempts.iter().all(|attempt| untouched(attempt.asked))
    }

    /// What there is to know of it when it is to be charged to `method`.
    pub fn routing_wish<'a>(&'a self, method: &'a str) -> Wish<'a> {
        Wish {
            currency: self.order.currency.code(),
            amount_minor: self.amount_minor,
            method,
            capture_method: self.order.capture_method,
            current: Some(&self.order.provider),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choice(name: &str, weight: u32) -> Choice {
        Choice {
            name: name.to_owned(),
            weight,
        }
    }

    fn routes() -> Vec<Route> {
        vec![
            Route {
                currencies: vec!["KRW".into()],
                amount_minor_min: 100,
                methods: vec!["tviva".into()],
                providers: vec![choice("toss", 1)],
                ..Route::default()
            },
            Route {
                amount_minor_max: 100_000,
                providers: vec![choice("stripe", 3), choice("other", 1), choice("spare", 0)],
                ..Route::default()
            },
        ]
    }

    fn wish(currency: &'static str, amount_minor: i64, method: &'static str) -> Wish<'static> {
        Wish {
            currency,
            amount_minor,
            method,
            capture_method: CaptureMethod::Automatic,
            current: None,
        }
    }

    fn ready(_: &str) -> Fit {
        Fit::Ready
    }

    fn chosen(wish: &Wish<'_>, dice: u64, fit: &dyn Fn(&str) -> Fit) -> Option<String> {
        choose(&routes(), wish, dice, fit).map(str::to_owned)
    }

    #[test]
    fn the_first_route_that_fits_decides() {
        let table = [
            (wish("KRW", 36_000, "tviva_1"), Some("toss")),
            (wish("KRW", 99, "tviva_1"), Some("stripe")),
            (wish("KRW", 36_000, "pm_card_visa"), Some("stripe")),
            (wish("USD", 100_000, ""), Some("stripe")),
            (wish("USD", 100_001, ""), None),
        ];
        for (wish, expected) in table {
            assert_eq!(chosen(&wish, 0, &ready).as_deref(), expected, "{wish:?}");
        }
    }

    #[test]
    fn weights_share_the_payments_out() {
        let usd = wish("USD", 1, "");
        let names: Vec<_> = (0..8)
            .filter_map(|dice| chosen(&usd, dice, &ready))
            .collect();
        let of = |name: &str| names.iter().filter(|chosen| *chosen == name).count();
        assert_eq!((of("stripe"), of("other"), of("spare")), (6, 2, 0));
    }

    #[test]
    fn who_does_not_answer_is_passed_over_in_order() {
        let usd = wish("USD", 1, "");
        let away = |names: &'static [&str]| {
            move |name: &str| {
                if names.contains(&name) {
                    Fit::Away
                } else {
                    Fit::Ready
                }
            }
        };
        assert_eq!(
            chosen(&usd, 0, &away(&["stripe"])).as_deref(),
            Some("other")
        );
        assert_eq!(
            chosen(&usd, 0, &away(&["stripe", "other"])).as_deref(),
            Some("spare")
        );
        let all: &[&str] = &["stripe", "other", "spare"];
        assert_eq!(
            chosen(&usd, 0, &away(all)).as_deref(),
            Some("stripe"),
            "it may come back"
        );
        let krw = wish("KRW", 1_000, "tviva_1");
        assert_eq!(
            chosen(&krw, 0, &away(&["toss"])).as_deref(),
            Some("stripe"),
            "the next route"
        );
        let unfit = |name: &str| {
            if name == "stripe" {
                Fit::Unfit
            } else {
                Fit::Ready
            }
        };
        assert_eq!(chosen(&usd, 0, &unfit).as_deref(), Some("other"));
        assert_eq!(chosen(&usd, 0, &|_| Fit::Unfit), None);
    }

    #[test]
    fn a_payment_keeps_a_provider_that_fits() {
        let kept = Wish {
            current: Some("other"),
            ..wish("USD", 1, "")
        };
        assert_eq!(chosen(&kept, 0, &ready).as_deref(), Some("other"));
        let left = |name: &str| {
            if name == "other" {
                Fit::Away
            } else {
                Fit::Ready
            }
        };
        assert_eq!(chosen(&kept, 0, &left).as_deref(), Some("stripe"));
    }

    proptest! {
        #[test]
        fn only_providers_of_a_route_that_takes_it_are_chosen(
            amount_minor in 0i64..200_000, dice in any::<u64>(), krw in any::<bool>(), away in 0u8..16,
        ) {
            let wish = wish(if krw { "KRW" } else { "USD" }, amount_minor, "tviva_1");
            let names = ["toss", "stripe", "other", "spare"];
            let fit = |name: &str| {
                let place = names.iter().position(|known| *known == name).unwrap();
                if away >> place & 1 == 1 { Fit::Away } else { Fit::Ready }
            };
            let routes = routes();
            let taking: Vec<&str> = routes
                .iter()
                .filter(|route| route.takes(&wish))
                .flat_map(|route| &route.providers)
                .map(|choice| choice.name.as_str())
                .collect();
            match choose(&routes, &wish, dice, &fit) {
                None => prop_assert!(taking.is_empty()),
                Some(name) => {
                    prop_assert!(taking.contains(&name));
                    let someone_is_ready = taking.iter().any(|name| fit(name) == Fit::Ready);
                    prop_assert_eq!(fit(name) == Fit::Ready, someone_is_ready);
                }
            }
        }
    }
}
