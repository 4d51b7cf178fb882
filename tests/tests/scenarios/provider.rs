//! Whatever the payment provider does: nothing is charged twice, and what was charged is sold or given back.

use serde_json::json;
use tests::orders::{manual_order, order, put_on_sale, stock, with};
use tests::rest::{Rest, minor};
use tests::shop::{Options, Shop};

async fn state_of(rest: &Rest, id: &str) -> String {
    let payment = rest.get(&format!("/v1/payments/{id}")).await.ok();
    payment["state"].as_str().unwrap().to_owned()
}

async fn becomes(rest: &Rest, id: &str, state: &str) {
    tests::eventually(&format!("the payment is {state}"), || async {
        state_of(rest, id).await == state
    })
    .await;
}

/// Buys with a token and waits for the end; how often the provider was charged and kept the money.
async fn buy(shop: &Shop, token: &str, end: &str) -> i64 {
    let rest = shop.rest();
    let order_ref = format!("ORDER-{token}");
    let order = with(order(&order_ref, &[("MUG-1", 1)]), "paymentMethod", token);
    let payment = rest.post("/v1/payments", &order).await.ok();
    let id = payment["id"].as_str().unwrap();
    if payment["state"] == "REQUIRES_ACTION" {
        assert!(payment["nextAction"]["redirectUrl"].is_string());
        rest.post(&format!("/v1/payments/{id}:confirm"), &json!({}))
            .await
            .ok();
    }
    becomes(rest, id, end).await;
    shop.charges(&order_ref).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_ends_where_it_should_and_charges_at_most_once() {
    let shop = Shop::start().await;
    put_on_sale(shop.rest(), "MUG-1", 1250, 100).await;
    for (token, end, charges) in [
        ("pm_card_visa", "SUCCEEDED", 1),
        ("pm_card_mastercard", "SUCCEEDED", 1),
        ("pm_card_declined", "REQUIRES_CONFIRMATION", 0),
        ("pm_card_insufficient_funds", "REQUIRES_CONFIRMATION", 0),
        ("pm_card_authentication_ok", "SUCCEEDED", 1),
        ("pm_card_authentication_fail", "REQUIRES_CONFIRMATION", 0),
        ("pm_card_timeout_before", "SUCCEEDED", 1),
        ("pm_card_timeout_after", "SUCCEEDED", 1),
        ("pm_card_webhook_duplicate", "SUCCEEDED", 1),
        ("pm_card_webhook_reordered", "SUCCEEDED", 1),
        ("pm_card_webhook_late", "SUCCEEDED", 1),
        ("pm_card_capture_declined", "CANCELED", 0),
    ] {
        assert_eq!(buy(&shop, token, end).await, charges, "{token}");
    }
    tests::eventually("what did not sell is free", || async {
        stock(shop.rest(), "MUG-1").await == (92, 0, 92)
    })
    .await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_during_an_unknown_outcome_is_carried_out_when_it_is_known() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let order = with(
        order("ORDER-1", &[("MUG-1", 1)]),
        "paymentMethod",
        "pm_card_webhook_late",
    );
    let payment = rest.post("/v1/payments", &order).await.ok();
    assert_eq!(payment["state"], "PROCESSING");
    let id = payment["id"].as_str().unwrap();
    let canceling = rest
        .post(&format!("/v1/payments/{id}:cancel"), &json!({}))
        .await
        .ok();
    assert_eq!(
        (
            canceling["state"].as_str(),
            canceling["cancelRequested"].as_bool()
        ),
        (Some("PROCESSING"), Some(true))
    );
    becomes(rest, id, "CANCELED").await;
    assert_eq!(shop.charges("ORDER-1").await, 0);
    tests::eventually("nothing is held", || async {
        stock(rest, "MUG-1").await == (10, 0, 10)
    })
    .await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_charges_in_one_step_sells_and_refunds() {
    let shop = Shop::start_with(Options {
        one_step_provider: true,
        ..Options::default()
    })
    .await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let payment = rest
        .post("/v1/payments", &order("ORDER-1", &[("MUG-1", 2)]))
        .await
        .ok();
    assert_eq!(
        (payment["state"].as_str(), minor(&payment["capturedAmount"])),
        (Some("SUCCEEDED"), 2500)
    );
    assert_eq!(stock(rest, "MUG-1").await, (8, 0, 8));
    let manual = rest
        .post("/v1/payments", &manual_order("ORDER-2", &[("MUG-1", 1)]))
        .await;
    assert_eq!(
        manual.status,
        400,
        "it cannot capture later: {}",
        manual.text()
    );
    let refunds = format!("/v1/payments/{}/refunds", payment["id"].as_str().unwrap());
    let refund = rest.post(&refunds, &json!({"restock": true})).await.ok();
    assert_eq!(refund["state"], "SUCCEEDED");
    tests::eventually("the goods are back", || async {
        stock(rest, "MUG-1").await == (10, 0, 10)
    })
    .await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_away_leaves_a_finished_purchase() {
    let slow = Options {
        provider_latency_ms: 300,
        ..Options::default()
    };
    let shop = Shop::start_with(slow).await;
    let rest = shop.rest().clone();
    put_on_sale(&rest, "MUG-1", 1250, 10).await;
    let order = order("ORDER-1", &[("MUG-1", 1)]);
    let caller = {
        let (rest, order) = (rest.clone(), order.clone());
        mesh::spawn(async move { rest.post_once("/v1/payments", "key-1", &order).await })
    };
    tests::eventually("the purchase is under way", || async {
        !rest
            .list("/v1/payments?pageSize=10", "payments")
            .await
            .is_empty()
    })
    .await;
    caller.abort();
    tests::eventually("the purchase is finished", || async {
        let payments = rest.list("/v1/payments?pageSize=10", "payments").await;
        payments
            .first()
            .is_some_and(|payment| payment["state"] == "SUCCEEDED")
    })
    .await;
    // Whoever comes back with the key gets what became of it.
    tests::eventually("the key has its answer", || async {
        rest.post_once("/v1/payments", "key-1", &order)
            .await
            .replayed()
    })
    .await;
    assert_eq!(shop.charges("ORDER-1").await, 1);
    assert_eq!(stock(&rest, "MUG-1").await, (9, 0, 9));
    shop.close().await;
}
