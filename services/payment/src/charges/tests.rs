//! Discounts, shipping and taxes: worked examples, and properties over all currencies.

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
