//! Five years of real orders, a third of them given back: the books against the file, and against themselves.

use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tests::chinook::Chinook;
use tests::rest::{Rest, minor};
use tests::shop::Shop;

/// How many orders of a hundred are refunded.
const REFUNDED_PERCENT: u32 = 30;

/// What was sold and given back, in cents, from the file alone.
#[derive(Default)]
struct Expected {
    sold_minor: i64,
    refunded_minor: i64,
    entries: usize,
}

/// Buys every order, and gives some back: whole, or one unit of one line. The sums are the file's.
async fn replay(rest: &Rest, chinook: &Chinook, random: &mut StdRng) -> Expected {
    let mut expected = Expected::default();
    for order in &chinook.orders {
        let paid = rest
            .post_once("/v1/payments", &order.order_ref, &order.request())
            .await
            .ok();
        assert_eq!(paid["state"], "SUCCEEDED", "{paid}");
        expected.sold_minor += order.amount_minor();
        expected.entries += 1;
        if random.random_range(0..100) >= REFUNDED_PERCENT {
            continue;
        }
        let (sku, price_minor, _) = &order.lines[random.random_range(0..order.lines.len())];
        let (wanted, back_minor) = if random.random() {
            (json!({}), order.amount_minor())
        } else {
            (
                json!({"lines": [{"sku": sku, "quantity": 1}]}),
                *price_minor,
            )
        };
        let refunds = format!("/v1/payments/{}/refunds", paid["id"].as_str().unwrap());
        let refund = rest
            .post_once(&refunds, &order.order_ref, &wanted)
            .await
            .ok();
        assert_eq!(refund["state"], "SUCCEEDED", "{refund}");
        expected.refunded_minor += back_minor;
        expected.entries += 1;
    }
    expected
}

fn balances(trial: &Value) -> BTreeMap<String, i64> {
    let accounts = trial["accounts"].as_array().unwrap().iter();
    accounts
        .map(|account| {
            (
                account["id"].as_str().unwrap().to_owned(),
                minor(&account["balance"]),
            )
        })
        .collect()
}

/// The sums of the exported file by account.
fn exported(file: &[u8]) -> BTreeMap<String, i64> {
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for row in csv::Reader::from_reader(file).deserialize() {
        let row: BTreeMap<String, String> = row.unwrap();
        *sums.entry(row["account"].clone()).or_default() +=
            row["amount_minor"].parse::<i64>().unwrap();
    }
    sums
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trial_balance_of_all_orders_is_that_of_the_file() {
    let Some(chinook) = Chinook::load("the_trial_balance_of_all_orders_is_that_of_the_file") else {
        return;
    };
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let shop = Shop::start().await;
    let rest = shop.rest();
    rest.import("USD", chinook.products_csv.clone()).await.ok();
    let expected = replay(rest, &chinook, &mut StdRng::seed_from_u64(seed)).await;
    shop.drain_events().await;
    assert!(expected.refunded_minor > 0, "seed {seed}");

    let trial = rest.get("/v1/ledger:trialBalance").await.ok();
    let usd = &trial["balances"].as_array().unwrap()[..];
    assert_eq!(usd.len(), 1, "{trial}");
    assert_eq!(usd[0]["currencyCode"], "USD");
    assert_eq!(minor(&usd[0]["sum"]), 0, "{trial}");
    let (sold, refunded) = (expected.sold_minor, expected.refunded_minor);
    let by_account = [
        ("assets:provider:simulator", sold - refunded),
        ("income:refunds", refunded),
        ("income:sales", -sold),
    ];
    let by_account: BTreeMap<_, _> = by_account.map(|(name, sum)| (name.to_owned(), sum)).into();
    assert_eq!(balances(&usd[0]), by_account, "seed {seed}");
    assert_eq!(minor(&usd[0]["debits"]), sold);

    let file = rest.get("/v1/ledger:export").await;
    assert_eq!(file.status, 200);
    let file = file.body;
    assert_eq!(exported(&file), by_account, "seed {seed}");
    let lines = file.split(|byte| *byte == b'\n').count() - 1;
    assert_eq!(lines, 1 + 2 * expected.entries);
    shop.close().await;
}
