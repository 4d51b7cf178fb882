//! Five years of real orders, bought one after the other, and every sum compared with the file's.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::chinook::{Chinook, Sum};
use tests::orders::stock;
use tests::rest::{Rest, minor, whole};
use tests::shop::Shop;

async fn sales(rest: &Rest, groups: &str) -> Vec<Value> {
    let answer = rest
        .get(&format!("/v1/sales:summarize?{groups}"))
        .await
        .ok();
    answer["rows"].as_array().unwrap().clone()
}

fn sum(row: &Value) -> Sum {
    assert_eq!(row["amount"]["currencyCode"], "USD");
    Sum {
        amount_minor: minor(&row["amount"]),
        quantity: whole(&row["quantity"]),
        orders: whole(&row["payments"]),
    }
}

fn text(row: &Value, field: &str) -> String {
    row[field].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sum_over_all_orders_is_that_of_the_file() {
    let Some(chinook) = Chinook::load("every_sum_over_all_orders_is_that_of_the_file") else {
        return;
    };
    let shop = Shop::start().await;
    let rest = shop.rest();
    rest.import("USD", chinook.products_csv.clone()).await.ok();
    for order in &chinook.orders {
        let paid = rest
            .post_once("/v1/payments", &order.order_ref, &order.request())
            .await
            .ok();
        assert_eq!(paid["state"], "SUCCEEDED", "{paid}");
        assert_eq!(minor(&paid["capturedAmount"]), order.amount_minor());
    }
    shop.drain_events().await;
    assert_eq!(chinook.orders.len(), 412);
    let payments = rest.list(
        "/v1/payments?pageSize=1000&filter=state%20%3D%20SUCCEEDED",
        "payments",
    );
    assert_eq!(payments.await.len(), 412);

    let total = chinook.sums(|_, _| ());
    let rows = sales(rest, "").await;
    assert_eq!(
        rows.iter().map(sum).collect::<Vec<_>>(),
        total.into_values().collect::<Vec<_>>()
    );

    let expected = chinook.sums(|order, sku| {
        (
            order.day().to_owned(),
            chinook.products[sku].category.clone(),
        )
    });
    let rows = sales(rest, "groupBy=CATEGORY&groupBy=DAY").await;
    let found: BTreeMap<_, _> = rows
        .iter()
        .map(|row| ((text(row, "day"), text(row, "category")), sum(row)))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(rows.len(), expected.len());

    let listed = rest.list("/v1/products?pageSize=1000", "products").await;
    let by_id: BTreeMap<String, &Value> = listed
        .iter()
        .map(|product| (text(product, "id"), product))
        .collect();
    let expected = chinook.sums(|_, sku| sku.to_owned());
    let rows = sales(rest, "groupBy=PRODUCT").await;
    let found: BTreeMap<_, _> = (rows.iter())
        .map(|row| {
            (
                text(&by_id[&text(row, "productId")]["variants"][0], "sku"),
                sum(row),
            )
        })
        .collect();
    assert_eq!(found, expected);

    for product in &listed {
        let sku = text(&product["variants"][0], "sku");
        let sold = expected.get(&sku).copied().unwrap_or_default();
        assert_eq!(whole(&product["soldQuantity"]), sold.quantity, "{sku}");
        let revenue: i64 = product["revenue"]
            .as_array()
            .into_iter()
            .flatten()
            .map(minor)
            .sum();
        assert_eq!(revenue, sold.amount_minor, "{sku}");
        let left = chinook.products[&sku].quantity - sold.quantity;
        assert_eq!(
            whole(&product["variants"][0]["availableQuantity"]),
            left,
            "{sku}"
        );
    }
    let (sku, sold) = expected.iter().next().unwrap();
    let left = chinook.products[sku].quantity - sold.quantity;
    assert_eq!(stock(rest, sku).await, (left, 0, left));
    ledger_agrees(rest, &chinook).await;
    shop.close().await;
}

/// What was sold stands once on each side of the books, one entry an order.
async fn ledger_agrees(rest: &Rest, chinook: &Chinook) {
    let sold: i64 = chinook
        .orders
        .iter()
        .map(tests::chinook::Order::amount_minor)
        .sum();
    let accounts = rest.get("/v1/ledger/accounts?currencyCode=USD").await.ok();
    let balances: Vec<i64> = accounts["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|account| minor(&account["balance"]))
        .collect();
    assert_eq!(balances.iter().sum::<i64>(), 0);
    assert_eq!(
        balances.iter().filter(|balance| **balance > 0).sum::<i64>(),
        sold,
        "{accounts}"
    );
    let entries = rest
        .list("/v1/ledger/transactions?pageSize=1000", "transactions")
        .await;
    assert_eq!(entries.len(), chinook.orders.len());
}
