//! A refund: one giving back of money, for some units or as an amount.

use crate::capture::{Follow, Line, sum_of};
use crate::charges::Part;
use crate::failure::Failure;
use crate::policy::{Asked, Progress};
use crate::rejection::Rejection;
use kernel::{AttemptId, Invalid, Money, PaymentId, RefundId};

/// Where a refund stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefundState {
    /// The provider is to be asked, or was; the outcome is not known.
    Pending,
    /// The money is given back. Final, unless the customer's bank returns it.
    Succeeded,
    /// It was refused, or the money came back; the amount can be refunded again. Final.
    Failed,
    /// It was withdrawn before the provider was asked. Final.
    Canceled,
}

/// What can happen to a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefundMove {
    /// The money is given back.
    Succeed,
    /// It was refused.
    Fail,
    /// The provider could not be asked.
    Withdraw,
    /// The money was given back and has come back to us.
    Reverse,
}

impl RefundState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Succeeded, Self::Failed, Self::Canceled];

    /// The state after a move; nothing where it is not allowed.
    pub fn after(self, step: RefundMove) -> Option<Self> {
        match (self, step) {
            (Self::Pending, RefundMove::Succeed) => Some(Self::Succeeded),
            (Self::Pending, RefundMove::Fail) | (Self::Succeeded, RefundMove::Reverse) => {
                Some(Self::Failed)
            }
            (Self::Pending, RefundMove::Withdraw) => Some(Self::Canceled),
            (Self::Pending | Self::Failed | Self::Canceled, RefundMove::Reverse)
            | (
                Self::Succeeded | Self::Failed | Self::Canceled,
                RefundMove::Succeed | RefundMove::Fail | RefundMove::Withdraw,
            ) => None,
        }
    }

    /// Whether it counts against what can be refunded.
    pub fn counts(self) -> bool {
        matches!(self, Self::Pending | Self::Succeeded)
    }

    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Reads [`RefundState::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Its id: the provider's idempotency key.
    pub id: RefundId,
    /// The attempt whose money goes back.
    pub attempt: AttemptId,
    /// Where it stands.
    pub state: RefundState,
    /// How much: the sum of its lines, and shipping.
    pub amount_minor: i64,
    /// What for.
    pub lines: Vec<Line>,
    /// Its part of shipping.
    pub shipping: Part,
    /// Whether its units go back into stock.
    pub restock: bool,
    /// Why, in the caller's words.
    pub reason: String,
    /// The question to the provider.
    pub asked: Asked,
    /// Whether a webhook asks to look it up although it has succeeded, or once it has.
    pub check: bool,
    /// When it was found to have failed after it had succeeded.
    pub reversed_at_us: Option<i64>,
    /// Whether its units are back in stock.
    pub stock: Follow,
    /// How far that has come.
    pub stock_progress: Progress,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// When it was asked for.
    pub created_at_us: i64,
    /// When it last changed.
    pub updated_at_us: i64,
}

impl Refund {
    /// A new one, due at once.
    pub fn new(
        attempt: AttemptId,
        (lines, shipping): (Vec<Line>, Part),
        restock: bool,
        reason: String,
        now_us: i64,
    ) -> Self {
        Self {
            id: RefundId::generate(now_us),
            attempt,
            state: RefundState::Pending,
            amount_minor: sum_of(&lines, shipping),
            lines,
            shipping,
            restock,
            reason,
            asked: Asked::at(now_us),
            check: false,
            reversed_at_us: None,
            stock: Follow::Nothing,
            stock_progress: Progress::at(now_us),
            failure: None,
            created_at_us: now_us,
            updated_at_us: now_us,
        }
    }
}

/// What a caller wants to have given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// All that is left.
    Everything,
    /// Some units of some items.
    Lines(Vec<(String, i32)>),
    /// The same, perhaps of none, and what is left of shipping.
    WithShipping(Vec<(String, i32)>),
    /// An amount, in the payment's currency.
    Amount(Money),
}

/// How money is given back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct How {
    /// Whether the units go back into stock.
    pub restock: bool,
    /// Why, in the caller's words.
    pub reason: String,
    /// Also money that a dispute has taken: the customer may then get it twice.
    pub disputed_too: bool,
}

/// What is left of one item to be refunded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// The item.
    pub sku: String,
    /// Units captured and not refunded.
    pub quantity: i32,
    /// Units bought.
    pub bought: i32,
    /// Units refunded so far.
    pub refunded: i32,
    /// What all units that were bought came to.
    pub whole: Part,
    /// What was captured for it and not refunded.
    pub left: Part,
}

/// The lines of a refund of `wanted`, and its part of shipping, given what is left of both. Money is never made up: a
/// line gets at most what is left of it, also where an earlier refund of an amount has used some of it up.
pub fn plan(
    payment: PaymentId,
    left: &[Left],
    shipping: Part,
    wanted: &Wanted,
) -> Result<(Vec<Line>, Part), Rejection> {
    let lines = |wanted: &[(String, i32)]| {
        let lines = wanted.iter().enumerate();
        let lines = lines.map(|(index, (sku, quantity))| units(left, index, sku, *quantity));
        lines.collect::<Result<Vec<_>, _>>()
    };
    let (lines, shipping) = match wanted {
        Wanted::Everything => {
            let all = left
                .iter()
                .map(|item| Line::new(item.sku.clone(), item.quantity, item.left))
                .filter(|line| line.quantity > 0 || line.amount_minor > 0);
            (all.collect(), shipping)
        }
        Wanted::Lines(wanted) => (lines(wanted)?, Part::default()),
        Wanted::WithShipping(wanted) => (lines(wanted)?, shipping),
        Wanted::Amount(amount) => allocated(left, shipping, *amount)?,
    };
    if sum_of(&lines, shipping) == 0 {
        return Err(Rejection::NothingLeft(payment));
    }
    Ok((lines, shipping))
}

/// Units in the order in which they were taken: the share of those from the first that is not refunded on.
fn units(left: &[Left], index: usize, sku: &str, quantity: i32) -> Result<Line, Rejection> {
    let item = left.iter().find(|item| item.sku == sku).ok_or_else(|| {
        Invalid::new(
            format!("lines[{index}].sku"),
            "is not an item of this payment",
        )
    })?;
    if quantity > item.quantity {
        return Err(Rejection::QuantityExceeded {
            sku: sku.to_owned(),
            asked: i64::from(quantity),
            left: i64::from(item.quantity),
        });
    }
    let until = |units: i32| item.whole.of_units(units, item.bought);
    let part = if quantity == item.quantity {
        item.left
    } else {
        until(item.refunded + quantity)
            .less(until(item.refunded))
            .within(item.left)
    };
    Ok(Line::new(sku.to_owned(), quantity, part))
}

fn allocated(left: &[Left], shipping: Part, amount: Money) -> Result<(Vec<Line>, Part), Rejection> {
    let parts = left.iter().map(|item| item.left).chain([shipping]);
    let weights: Vec<i64> = parts.map(Part::total_minor).collect();
    let sum: i64 = weights.iter().sum();
    if amount.amount_minor() > sum {
        let left = Money::new(amount.currency(), sum).map_err(|error| error.at("amount"))?;
        return Err(Rejection::AmountExceeded {
            asked: amount,
            left,
        });
    }
    let mut parts = kernel::allocate(amount.amount_minor(), &weights)
        .expect("weights are never negative, and a positive amount within their sum has weight");
    let of_shipping = parts.pop().expect("shipping has the last weight");
    let lines = left
        .iter()
        .zip(parts)
        .filter(|(_, part)| *part > 0)
        .map(|(item, part)| Line::new(item.sku.clone(), 0, item.left.divide(part)));
    Ok((lines.collect(), shipping.divide(of_shipping)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Currency;
    use proptest::prelude::*;

    fn usd(amount_minor: i64) -> Money {
        Money::new(Currency::parse("USD").unwrap(), amount_minor).unwrap()
    }

    fn left(sku: &str, unit_price_minor: i64, quantity: i32, amount_minor: i64) -> Left {
        let net = |net_minor| Part {
            net_minor,
            tax_minor: 0,
        };
        Left {
            sku: sku.into(),
            quantity,
            bought: quantity,
            refunded: 0,
            whole: net(unit_price_minor * i64::from(quantity)),
            left: net(amount_minor),
        }
    }

    /// The lines of a refund of a payment without shipping.
    fn plan(payment: PaymentId, left: &[Left], wanted: &Wanted) -> Result<Vec<Line>, Rejection> {
        let (lines, shipping) = super::plan(payment, left, Part::default(), wanted)?;
        assert_eq!(shipping, Part::default());
        Ok(lines)
    }

    fn amounts(lines: &[Line]) -> Vec<(&str, i32, i64)> {
        lines
            .iter()
            .map(|line| (line.sku.as_str(), line.quantity, line.amount_minor))
            .collect()
    }

    fn payment() -> PaymentId {
        PaymentId::generate(1)
    }

    #[test]
    fn every_state_and_move() {
        let moves = [
            (
                RefundMove::Succeed,
                RefundState::Pending,
                RefundState::Succeeded,
            ),
            (RefundMove::Fail, RefundState::Pending, RefundState::Failed),
            (
                RefundMove::Withdraw,
                RefundState::Pending,
                RefundState::Canceled,
            ),
            (
                RefundMove::Reverse,
                RefundState::Succeeded,
                RefundState::Failed,
            ),
        ];
        for state in RefundState::ALL {
            for (step, from, to) in moves {
                let expected = (state == from).then_some(to);
                assert_eq!(state.after(step), expected, "{state:?} {step:?}");
            }
            assert_eq!(RefundState::parse(state.name()), Some(state));
        }
        let counting = RefundState::ALL.map(RefundState::counts);
        assert_eq!(counting, [true, true, false, false]);
    }

    #[test]
    fn everything_is_all_units_and_all_money() {
        let left = [
            left("A", 100, 2, 150),
            left("B", 50, 0, 0),
            left("C", 10, 0, 5),
            left("D", 10, 1, 0), // Its money went back before it did.
        ];
        let lines = plan(payment(), &left, &Wanted::Everything).unwrap();
        assert_eq!(amounts(&lines), [("A", 2, 150), ("C", 0, 5), ("D", 1, 0)]);
    }

    #[test]
    fn units_cost_their_price_but_never_more_than_is_left() {
        let left = [left("A", 100, 3, 250)];
        let one = plan(payment(), &left, &Wanted::Lines(vec![("A".into(), 1)])).unwrap();
        assert_eq!(amounts(&one), [("A", 1, 100)]);
        let all = plan(payment(), &left, &Wanted::Lines(vec![("A".into(), 3)])).unwrap();
        assert_eq!(amounts(&all), [("A", 3, 250)]);
        let four = plan(payment(), &left, &Wanted::Lines(vec![("A".into(), 4)])).unwrap_err();
        assert_eq!(
            four,
            Rejection::QuantityExceeded {
                sku: "A".into(),
                asked: 4,
                left: 3
            }
        );
        let other = plan(payment(), &left, &Wanted::Lines(vec![("Z".into(), 1)])).unwrap_err();
        assert!(matches!(other, Rejection::Invalid(invalid) if invalid.field == "lines[0].sku"));
    }

    #[test]
    fn an_amount_goes_to_the_lines_in_proportion() {
        let left = [
            left("A", 100, 1, 100),
            left("B", 200, 1, 200),
            left("C", 0, 1, 0),
        ];
        let lines = plan(payment(), &left, &Wanted::Amount(usd(100))).unwrap();
        assert_eq!(amounts(&lines), [("A", 0, 33), ("B", 0, 67)]);
        let all = plan(payment(), &left, &Wanted::Amount(usd(300))).unwrap();
        assert_eq!(amounts(&all), [("A", 0, 100), ("B", 0, 200)]);
        let error = plan(payment(), &left, &Wanted::Amount(usd(301))).unwrap_err();
        assert_eq!(
            error,
            Rejection::AmountExceeded {
                asked: usd(301),
                left: usd(300)
            }
        );
    }

    #[test]
    fn a_refund_of_nothing_is_refused() {
        let left = [left("A", 100, 0, 0), left("FREE", 0, 2, 0)];
        for wanted in [Wanted::Everything, Wanted::Lines(vec![("FREE".into(), 1)])] {
            let error = plan(payment(), &left, &wanted).unwrap_err();
            assert!(matches!(error, Rejection::NothingLeft(_)), "{wanted:?}");
        }
    }

    proptest! {
        /// However refunds of units, of amounts and of everything follow each other, no line and no
        /// sum ever gives back more than was captured, and everything leaves nothing.
        #[test]
        fn refunds_never_exceed_what_was_captured(
            items in prop::collection::vec((0_i64..500, 1_i32..5), 1..6),
            steps in prop::collection::vec((any::<bool>(), 0_usize..6, 1_i64..700), 0..12),
        ) {
            let captured: i64 = items.iter().map(|(price, count)| price * i64::from(*count)).sum();
            prop_assume!(captured > 0);
            let mut left: Vec<Left> = items
                .iter()
                .enumerate()
                .map(|(index, (price, count))| {
                    left(&format!("S{index}"), *price, *count, price * i64::from(*count))
                })
                .collect();
            let mut refunded = 0;
            let mut wanted: Vec<Wanted> = steps
                .into_iter()
                .map(|(by_amount, index, number)| if by_amount {
                    Wanted::Amount(usd(number))
                } else {
                    let quantity = i32::try_from(number % 5 + 1).unwrap();
                    Wanted::Lines(vec![(format!("S{}", index % items.len()), quantity)])
                })
                .collect();
            wanted.push(Wanted::Everything);
            for wanted in wanted {
                let Ok(lines) = plan(payment(), &left, &wanted) else { continue };
                for line in lines {
                    let item = left.iter_mut().find(|item| item.sku == line.sku).unwrap();
                    item.quantity -= line.quantity;
                    item.refunded += line.quantity;
                    item.left = item.left.less(line.part());
                    prop_assert!(line.amount_minor >= 0);
                    prop_assert!(item.quantity >= 0 && item.left.net_minor >= 0, "{item:?}");
                    refunded += line.amount_minor;
                }
            }
            prop_assert_eq!(refunded, captured, "everything leaves nothing");
        }
    }
}
