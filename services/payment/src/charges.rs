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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::PathBuf;

    fn item(unit_price_minor: i64, quantity: i32) -> Item {
        Item {
            sku: "A".into(),
            quantity,
            product_id: String::new(),
            title: String::new(),
            category: String::new(),
            unit_price_minor,
        }
    }

    fn line(size: Size) -> ChargeLine {
        ChargeLine {
            title: "line".into(),
            size,
            came_to_minor: 0,
        }
    }

    fn of(discounts: &[Size], shipping_minor: i64, taxes: &[Size]) -> Charges {
        let lines = |sizes: &[Size]| sizes.iter().map(|size| line(*size)).collect();
        Charges {
            discounts: lines(discounts),
            shipping: (shipping_minor > 0).then(|| Shipping {
                title: "parcel".into(),
                amount_minor: shipping_minor,
            }),
            taxes: lines(taxes),
        }
    }

    fn currency(code: &str) -> Currency {
        Currency::parse(code).unwrap()
    }

    fn came_to(rate_ppm: i64, base_minor: i64) -> i64 {
        Size::RatePpm(rate_ppm).of(base_minor, String::new).unwrap()
    }

    #[test]
    fn rates_are_rounded_half_up_to_the_minor_unit() {
        for (rate_ppm, base_minor, expected) in [
            (190_000, 505, 96), // 95.95
            (100_000, 5, 1),    // 0.5
            (100_000, 4, 0),    // 0.4
            (500_000, 3, 2),    // 1.5
            (499_999, 3, 1),    // 1.499997
            (1, 499_999, 0),
            (1, 500_000, 1),
            (PPM, 123, 123),
            (PPM, kernel::AMOUNT_MINOR_MAX, kernel::AMOUNT_MINOR_MAX),
        ] {
            assert_eq!(
                came_to(rate_ppm, base_minor),
                expected,
                "{rate_ppm} of {base_minor}"
            );
        }
    }

    #[test]
    fn discounts_come_first_and_taxes_last() {
        let items = [item(100, 2), item(250, 1)];
        let charges = of(
            &[Size::RatePpm(100_000), Size::AmountMinor(5)],
            100,
            &[Size::RatePpm(190_000), Size::RatePpm(10_000)],
        );
        let (charges, total) = charges.price(currency("USD"), &items).unwrap();
        let amounts = |lines: &[ChargeLine]| -> Vec<i64> {
            lines.iter().map(|line| line.came_to_minor).collect()
        };
        assert_eq!(amounts(&charges.discounts), [45, 5]);
        assert_eq!(
            amounts(&charges.taxes),
            [95, 5],
            "each of 500, no tax on taxes"
        );
        assert_eq!(total.amount_minor(), 600);
    }

    #[test]
    fn what_is_no_amount_to_pay_is_refused() {
        let items = [item(100, 1)];
        let price = |charges: Charges| charges.price(currency("USD"), &items).unwrap_err();
        let too_much = price(of(
            &[Size::AmountMinor(60), Size::RatePpm(410_000)],
            50,
            &[],
        ));
        assert!(matches!(too_much, Rejection::Invalid(invalid) if invalid.field == "discounts"));
        assert_eq!(
            price(of(&[Size::RatePpm(PPM)], 0, &[])),
            Rejection::NothingToPay
        );
        let on_nothing = price(of(&[Size::RatePpm(PPM)], 0, &[Size::AmountMinor(1)]));
        assert!(matches!(on_nothing, Rejection::Invalid(invalid) if invalid.field == "taxes"));
        let huge = price(of(&[], kernel::AMOUNT_MINOR_MAX, &[]));
        assert!(matches!(huge, Rejection::Invalid(invalid) if invalid.field == "shipping"));
        let (_, shipping) = of(&[Size::RatePpm(PPM)], 7, &[])
            .price(currency("USD"), &items)
            .unwrap();
        assert_eq!(shipping.amount_minor(), 7, "goods may be free");
    }

    fn size() -> impl Strategy<Value = Size> {
        prop_oneof![
            (1..=PPM).prop_map(Size::RatePpm),
            (1_i64..2_000).prop_map(Size::AmountMinor)
        ]
    }

    fn sizes() -> impl Strategy<Value = Vec<Size>> {
        prop::collection::vec(size(), 0..4)
    }

    /// Every part is within its whole, and all parts sum to the total.
    fn sums(items: &[Item], charges: &Charges, total: Money) -> Result<(), TestCaseError> {
        let shares = charges.shares(items);
        let mut sum = shares.shipping;
        for (item, part) in items.iter().zip(&shares.items) {
            let cost = item.unit_price_minor * i64::from(item.quantity);
            prop_assert!((0..=cost).contains(&part.net_minor), "{part:?} of {cost}");
            prop_assert!(part.tax_minor >= 0);
            sum = sum.plus(*part);
        }
        prop_assert_eq!(
            shares.shipping.net_minor,
            charges
                .shipping
                .as_ref()
                .map_or(0, |shipping| shipping.amount_minor)
        );
        prop_assert_eq!(sum.total_minor(), total.amount_minor());
        prop_assert_eq!(sum.tax_minor, super::total(&charges.taxes));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn parts_sum_to_the_whole(
            items in prop::collection::vec((0_i64..100_000, 1_i32..20), 1..8),
            (discounts, shipping, taxes) in (sizes(), 0_i64..3_000, sizes()),
        ) {
            let items: Vec<Item> = items.into_iter().map(|(price, quantity)| item(price, quantity)).collect();
            if let Ok((charges, total)) = of(&discounts, shipping, &taxes).price(currency("KRW"), &items) {
                sums(&items, &charges, total)?;
                // Priced again, nothing changes.
                let again = charges.clone().price(currency("KRW"), &items).unwrap();
                prop_assert_eq!(again, (charges, total));
            }
        }

        #[test]
        fn units_taken_one_after_the_other_sum_to_the_whole(
            net_minor in 0_i64..=kernel::AMOUNT_MINOR_MAX,
            tax_minor in 0_i64..1_000,
            steps in prop::collection::vec(1_i32..7, 1..12),
        ) {
            let whole = Part { net_minor, tax_minor };
            let quantity: i32 = steps.iter().sum();
            let (mut units, mut sum) = (0, Part::default());
            for step in steps {
                let part = whole.of_units(units + step, quantity).less(whole.of_units(units, quantity));
                prop_assert_eq!(part, part.within(whole));
                (units, sum) = (units + step, sum.plus(part));
            }
            prop_assert_eq!(sum, whole);
        }

        #[test]
        fn an_amount_is_divided_without_exceeding_a_side(
            net_minor in 0_i64..10_000, tax_minor in 0_i64..3_000, share in 0_i64..=1_000,
        ) {
            let whole = Part { net_minor, tax_minor };
            prop_assume!(whole.total_minor() > 0);
            let amount_minor = whole.total_minor() * share / 1_000;
            let part = whole.divide(amount_minor);
            prop_assert_eq!(part.total_minor(), amount_minor);
            prop_assert_eq!(part, part.within(whole));
        }
    }

    /// `SHOP_DATA` names the folder of the public reference data; without it a folder beside the workspace is tried.
    #[test]
    fn every_published_currency_is_rounded_to_its_own_minor_unit() {
        let folder = std::env::var_os("SHOP_DATA").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")),
            PathBuf::from,
        );
        let Ok(list) = std::fs::read_to_string(folder.join("iso4217.csv")) else {
            println!(
                "SKIPPED every_published_currency_is_rounded_to_its_own_minor_unit: no iso4217.csv in SHOP_DATA"
            );
            return;
        };
        let mut exponents = std::collections::BTreeSet::new();
        for published in list.lines().skip(1) {
            let mut columns = published.split(',');
            let (code, exponent) = (columns.next().unwrap(), columns.nth(1).unwrap());
            let Ok(exponent) = exponent.parse::<usize>() else {
                continue;
            };
            exponents.insert(exponent);
            let currency = currency(code);
            // An eighth of one unit, which no currency but those with three decimals or more has exactly, and of an odd amount.
            let one = 10_i64.pow(u32::try_from(exponent).unwrap());
            for base in [
                Money::parse_decimal("1", currency).unwrap(),
                Money::new(currency, 2 * one - 1).unwrap(),
            ] {
                let taxed = of(&[], 0, &[Size::RatePpm(125_000)]);
                let items = [item(base.amount_minor(), 1)];
                let (charges, total) = taxed.price(currency, &items).unwrap();
                let tax = charges.taxes[0].came_to_minor;
                let eighths = base.amount_minor() - 8 * tax; // How much was cut off or made up, in eighths.
                assert!((-4..4).contains(&eighths), "{code}: {tax} of {base}");
                let decimals = total.to_decimal();
                let after_the_point = decimals
                    .split_once('.')
                    .map_or(0, |(_, decimals)| decimals.len());
                assert_eq!(after_the_point, exponent, "{code}: {decimals}");
                sums(&items, &charges, total).unwrap();
            }
        }
        assert_eq!(
            exponents.into_iter().collect::<Vec<_>>(),
            [0, 2, 3, 4],
            "the exponents of ISO 4217"
        );
    }
}
