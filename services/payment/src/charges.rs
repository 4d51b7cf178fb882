//! What a purchase costs beside its items: discounts, shipping, taxes; and how much of that falls on each item.
//!
//! The rules, the same for every currency; only the exponent of ISO 4217 differs, for amounts are whole minor units:
//! - Discounts come off the items before tax. A rate is of the items' sum, each discount by itself; all together are at
//!   most that sum.
//! - Shipping is added after discounts.
//! - Taxes come on top of both: a rate is of the items less discounts, plus shipping, each tax by itself (no tax on
//!   taxes). Prices that include tax need no line.
//! - A rate is rounded once for each line, half up, to the minor unit: 0.5 KRW is 1 KRW, 0.005 USD is 0.01 USD, 0.0005 KWD
//!   is 0.001 KWD. There is no rounding to coins (as of CHF 0.05); whoever wants that states the amount.
//! - What falls on an item is divided in proportion by the largest remainder ([`kernel::allocate`]): a discount by what
//!   the items cost, a tax by what is left of them and shipping. So the parts sum to the whole.
//! - What falls on some units of an item is its share in proportion, counted from the units before: the last unit gets
//!   what is left, and all units together get the whole.

use crate::payment::Item;
use crate::rejection::Rejection;
use kernel::{Currency, Invalid, Money};
use serde::{Deserialize, Serialize};

/// A whole, in millionths.
pub const PPM: i64 = 1_000_000;

/// How much a discount or a tax is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// So many millionths; 1 to 1 000 000.
    RatePpm(i64),
    /// So many minor units; above zero.
    AmountMinor(i64),
}

/// A discount or a tax.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChargeLine {
    /// What it is, for people.
    pub title: String,
    /// How much.
    #[serde(flatten)]
    pub size: Size,
    /// What that came to when the prices were taken.
    pub came_to_minor: i64,
}

/// Shipping.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipping {
    /// How, for people.
    pub title: String,
    /// What it costs before tax, in minor units; above zero.
    pub amount_minor: i64,
}

/// Everything beside the items.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Charges {
    /// What comes off.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<ChargeLine>,
    /// What it costs to bring the goods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shipping: Option<Shipping>,
    /// What comes on top.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taxes: Vec<ChargeLine>,
}

/// An amount and the tax on it, in minor units; neither is negative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// Without tax, after discounts.
    pub net_minor: i64,
    /// The tax on it.
    pub tax_minor: i64,
}

/// What falls on what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// On each item, in their order: all units.
    pub items: Vec<Part>,
    /// On shipping.
    pub shipping: Part,
}

impl Charges {
    /// Whether there is nothing beside the items.
    pub fn is_empty(&self) -> bool {
        self.discounts.is_empty() && self.shipping.is_none() && self.taxes.is_empty()
    }

    /// The same for these items: what rates come to, and what is to be paid. An error where that is no amount to pay.
    pub fn price(self, currency: Currency, items: &[Item]) -> Result<(Self, Money), Rejection> {
        let (charges, total) = self.amounts(currency, items)?;
        if total.is_zero() {
            return Err(Rejection::NothingToPay);
        }
        Ok((charges, total))
    }

    /// The same, also where nothing is to be paid.
    pub(crate) fn amounts(
        mut self,
        currency: Currency,
        items: &[Item],
    ) -> Result<(Self, Money), Rejection> {
        let goods_minor = goods(currency, items)?;
        for (index, discount) in self.discounts.iter_mut().enumerate() {
            discount.came_to_minor = discount
                .size
                .of(goods_minor, || format!("discounts[{index}]"))?;
        }
        let off_minor = sum(
            self.discounts.iter().map(|discount| discount.came_to_minor),
            "discounts",
        )?;
        if off_minor > goods_minor {
            let reason = format!("sum up to {off_minor}, more than the items' {goods_minor}");
            return Err(Invalid::new("discounts", reason).into());
        }
        let shipping_minor = self
            .shipping
            .as_ref()
            .map_or(0, |shipping| shipping.amount_minor);
        let net_minor = sum(
            [goods_minor - off_minor, shipping_minor].into_iter(),
            "shipping",
        )?;
        for (index, tax) in self.taxes.iter_mut().enumerate() {
            tax.came_to_minor = tax.size.of(net_minor, || format!("taxes[{index}]"))?;
        }
        let tax_minor = sum(self.taxes.iter().map(|tax| tax.came_to_minor), "taxes")?;
        if net_minor == 0 && tax_minor > 0 {
            return Err(Invalid::new("taxes", "are on nothing: discounts leave no amount").into());
        }
        let total_minor = sum([net_minor, tax_minor].into_iter(), "taxes")?;
        let total = Money::new(currency, total_minor).map_err(|error| error.at("items"))?;
        Ok((self, total))
    }

    /// What falls on each item and on shipping. `items` are those that it was priced for.
    pub fn shares(&self, items: &[Item]) -> Shares {
        let cost = |item: &Item| item.unit_price_minor * i64::from(item.quantity);
        let costs: Vec<i64> = items.iter().map(cost).collect();
        let off = allocate(total(&self.discounts), &costs);
        let mut parts: Vec<Part> = costs
            .iter()
            .zip(&off)
            .map(|(cost, off)| Part {
                net_minor: cost - off,
                tax_minor: 0,
            })
            .collect();
        parts.push(Part {
            net_minor: self
                .shipping
                .as_ref()
                .map_or(0, |shipping| shipping.amount_minor),
            tax_minor: 0,
        });
        let nets: Vec<i64> = parts.iter().map(|part| part.net_minor).collect();
        for (part, tax_minor) in parts.iter_mut().zip(allocate(total(&self.taxes), &nets)) {
            part.tax_minor = tax_minor;
        }
        let shipping = parts.pop().expect("it was pushed above");
        Shares {
            items: parts,
            shipping,
        }
    }
}

impl Part {
    /// With its tax.
    pub fn total_minor(self) -> i64 {
        self.net_minor + self.tax_minor
    }

    /// The share of the first `units` of `quantity`, rounded down: what the last one gets makes the whole.
    #[must_use]
    pub fn of_units(self, units: i32, quantity: i32) -> Self {
        let share = |minor: i64| {
            let share = i128::from(minor) * i128::from(units) / i128::from(quantity.max(1));
            i64::try_from(share).expect("a share is no larger than the whole")
        };
        self.each(share)
    }

    /// What is left of it.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self {
            net_minor: self.net_minor - other.net_minor,
            tax_minor: self.tax_minor - other.tax_minor,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            net_minor: self.net_minor + other.net_minor,
            tax_minor: self.tax_minor + other.tax_minor,
        }
    }

    /// No side below zero, and none above that of `most`.
    #[must_use]
    pub fn within(self, most: Self) -> Self {
        Self {
            net_minor: self.net_minor.clamp(0, most.net_minor.max(0)),
            tax_minor: self.tax_minor.clamp(0, most.tax_minor.max(0)),
        }
    }

    /// An amount, at most the whole of this, divided as this is.
    #[must_use]
    pub fn divide(self, amount_minor: i64) -> Self {
        let parts = allocate(amount_minor, &[self.net_minor, self.tax_minor]);
        Self {
            net_minor: parts[0],
            tax_minor: parts[1],
        }
    }

    fn each(self, of: impl Fn(i64) -> i64) -> Self {
        Self {
            net_minor: of(self.net_minor),
            tax_minor: of(self.tax_minor),
        }
    }
}

impl Size {
    /// What it comes to of a base that is not negative.
    fn of(self, base_minor: i64, field: impl Fn() -> String) -> Result<i64, Rejection> {
        match self {
            Self::AmountMinor(amount_minor) => Ok(amount_minor),
            Self::RatePpm(rate_ppm) => {
                let exact = i128::from(base_minor) * i128::from(rate_ppm);
                let rounded = (exact + i128::from(PPM / 2)) / i128::from(PPM); // Half up.
                i64::try_from(rounded)
                    .map_err(|_| Invalid::new(field(), "comes to more than can be paid").into())
            }
        }
    }
}

/// What all items cost at their prices.
pub fn goods(currency: Currency, items: &[Item]) -> Result<i64, Rejection> {
    let too_large = |_| Invalid::new("items", "sum up to more than can be paid");
    let lines = items
        .iter()
        .map(|item| Money::new(currency, item.unit_price_minor)?.checked_mul(item.quantity.into()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(too_large)?;
    Ok(Money::sum(currency, lines)
        .map_err(too_large)?
        .amount_minor())
}

fn total(lines: &[ChargeLine]) -> i64 {
    lines.iter().map(|line| line.came_to_minor).sum()
}

fn sum(amounts: impl Iterator<Item = i64>, field: &str) -> Result<i64, Rejection> {
    let too_large = || Invalid::new(field, "sum up to more than can be paid");
    let sum: i128 = amounts.map(i128::from).sum();
    i64::try_from(sum)
        .ok()
        .filter(|sum| *sum <= kernel::AMOUNT_MINOR_MAX)
        .ok_or_else(|| too_large().into())
}

/// Nothing has weight only where nothing is to be divided: discounts are at most the items, taxes on something.
fn allocate(total_minor: i64, weights: &[i64]) -> Vec<i64> {
    kernel::allocate(total_minor, weights)
        .expect("what is divided is divided among what has weight")
}

#[cfg(test)]
mod tests;
