//! Many at once: one key, or one product.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::ground::on_servers;
use tests::orders::{order, put_on_sale, stock};
use tests::rest::{Answer, Rest};
use tests::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_posts_with_one_key_charge_once() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10_000).await;
    let request = order("ORDER-1", &[("MUG-1", 2)]);
    let answers =
        join_all((0..1000).map(|_| rest.post_once("/v1/payments", "one-key", &request))).await;

    let conflicts: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 409)
        .collect();
    // PostgreSQL's connections may all be busy: then nothing was stored, and the caller is told to come back.
    let busy = |answer: &&Answer| answer.status == 503;
    assert!(on_servers() || !answers.iter().any(|answer| busy(&answer)));
    assert!(
        conflicts
            .iter()
            .all(|answer| answer.reason().as_deref() == Some("REQUEST_IN_FLIGHT"))
    );
    let answered: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status != 409 && !busy(answer))
        .collect();
    let bodies: BTreeSet<_> = answered
        .iter()
        .map(|answer| (answer.status, answer.text()))
        .collect();
    assert_eq!(bodies.len(), 1, "answers differ: {bodies:#?}");
    assert_eq!(answered[0].status, 200, "{}", answered[0].text());
    assert_eq!(
        answered.iter().filter(|answer| !answer.replayed()).count(),
        1
    );
    println!(
        "{} the same answer, {} in flight",
        answered.len(),
        conflicts.len()
    );

    assert_eq!(
        rest.list("/v1/payments?pageSize=10", "payments")
            .await
            .len(),
        1
    );
    assert_eq!(shop.charges("ORDER-1").await, 1);
    assert_eq!(stock(rest, "MUG-1").await, (9_998, 0, 9_998));
    let replay = rest.post_once("/v1/payments", "one-key", &request).await;
    assert_eq!(
        (replay.text(), replay.replayed()),
        (answered[0].text(), true)
    );
    let other = rest
        .post_once(
            "/v1/payments",
            "one-key",
            &order("ORDER-1", &[("MUG-1", 3)]),
        )
        .await;
    assert_eq!(
        (other.status, other.reason().as_deref()),
        (422, Some("IDEMPOTENCY_KEY_REUSED"))
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_buyers_of_fifty_buy_fifty() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 50).await;
    let orders: Vec<_> = (0..200)
        .map(|n| order(&format!("ORDER-{n}"), &[("MUG-1", 1)]))
        .collect();
    let payments = join_all(orders.iter().map(|order| buy(rest, order))).await;
    let succeeded = payments
        .iter()
        .filter(|payment| payment["state"] == "SUCCEEDED")
        .count();
    let sold_out = payments
        .iter()
        .filter(|payment| payment["lastError"]["code"] == "OUT_OF_STOCK");
    assert_eq!((succeeded, sold_out.count()), (50, 150));
    assert_eq!(stock(rest, "MUG-1").await, (0, 0, 0));

    rest.post(
        "/v1/stock/MUG-1:adjust",
        &json!({"delta": 1, "reason": "goods in"}),
    )
    .await
    .ok();
    let late = payments
        .iter()
        .find(|payment| payment["state"] == "REQUIRES_CONFIRMATION")
        .unwrap();
    let confirm = format!("/v1/payments/{}:confirm", late["id"].as_str().unwrap());
    assert_eq!(
        rest.post(&confirm, &json!({})).await.ok()["state"],
        "SUCCEEDED"
    );
    shop.close().await;
}

/// Buys as a customer does who is told by a busy shop that nothing was stored: asks again, under the same key.
async fn buy(rest: &Rest, order: &Value) -> Value {
    let key = order["orderRef"].as_str().unwrap();
    tests::eventually(&format!("{key} is answered"), || async {
        rest.post_once("/v1/payments", key, order).await.status != 503
    })
    .await;
    rest.post_once("/v1/payments", key, order).await.ok()
}
