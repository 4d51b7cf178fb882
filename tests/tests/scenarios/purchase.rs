//! One purchase through every part of the shop.

use serde_json::json;
use tests::orders::{order, put_on_sale, stock, with};
use tests::rest::{minor, whole};
use tests::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_moves_stock_money_ledger_and_projections() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let product = put_on_sale(rest, "MUG-1", 1250, 10).await;
    let id = product["id"].as_str().unwrap();

    let payment = rest
        .post("/v1/payments", &order("ORDER-1", &[("MUG-1", 3)]))
        .await
        .ok();
    assert_eq!(payment["state"], "SUCCEEDED");
    assert_eq!(
        payment["amount"],
        json!({"currencyCode": "USD", "amountMinor": "3750"})
    );
    assert_eq!(payment["capturedAmount"], payment["amount"]);
    assert_eq!(payment["items"][0]["title"], "Thing MUG-1");
    assert_eq!(payment["items"][0]["productId"], product["id"]);
    assert_eq!(stock(rest, "MUG-1").await, (7, 0, 7));

    shop.drain_events().await;
    let product = rest.get(&format!("/v1/products/{id}")).await.ok();
    assert_eq!(whole(&product["soldQuantity"]), 3);
    assert_eq!(
        product["revenue"],
        json!([{"currencyCode": "USD", "amountMinor": "3750"}])
    );
    assert_eq!(product["variants"][0]["availableQuantity"], 7);

    let sales = rest
        .get("/v1/sales:summarize?groupBy=PRODUCT&groupBy=CATEGORY")
        .await
        .ok();
    let row = &sales["rows"][0];
    assert_eq!(
        (row["productId"].as_str(), row["category"].as_str()),
        (Some(id), Some("Things"))
    );
    assert_eq!(
        (
            minor(&row["amount"]),
            whole(&row["quantity"]),
            whole(&row["payments"])
        ),
        (3750, 3, 1)
    );

    let accounts = rest.get("/v1/ledger/accounts").await.ok();
    let balances = accounts["accounts"].as_array().unwrap();
    assert_eq!(
        balances
            .iter()
            .map(|account| minor(&account["balance"]))
            .sum::<i64>(),
        0
    );
    assert!(
        balances
            .iter()
            .any(|account| minor(&account["balance"]) == 3750)
    );
    let ledger = rest.get("/v1/ledger/transactions").await.ok();
    assert_eq!(ledger["transactions"].as_array().unwrap().len(), 1);
    assert_eq!(ledger["transactions"][0]["paymentId"], payment["id"]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decline_is_an_answer_and_another_card_pays() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let declined = with(
        order("ORDER-1", &[("MUG-1", 1)]),
        "paymentMethod",
        "pm_card_declined",
    );
    let payment = rest.post("/v1/payments", &declined).await.ok();
    assert_eq!(payment["state"], "REQUIRES_CONFIRMATION");
    assert_eq!(payment["lastError"]["code"], "CARD_DECLINED");
    assert_eq!(
        stock(rest, "MUG-1").await,
        (10, 0, 10),
        "a decline holds nothing"
    );

    let confirm = format!("/v1/payments/{}:confirm", payment["id"].as_str().unwrap());
    let paid = rest
        .post(&confirm, &json!({"paymentMethod": "pm_card_visa"}))
        .await
        .ok();
    assert_eq!(paid["state"], "SUCCEEDED");
    assert!(paid["lastError"].is_null());
    let again = rest
        .post(&confirm, &json!({"paymentMethod": "pm_card_visa"}))
        .await;
    assert_eq!(
        (again.status, again.reason().as_deref()),
        (400, Some("INVALID_STATE"))
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_paid_once_and_a_cancelled_one_may_be_paid_again() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let waiting = with(order("ORDER-1", &[("MUG-1", 1)]), "confirm", false);
    let payment = rest.post("/v1/payments", &waiting).await.ok();
    assert_eq!(payment["state"], "REQUIRES_CONFIRMATION");

    let duplicate = rest
        .post("/v1/payments", &order("ORDER-1", &[("MUG-1", 1)]))
        .await;
    assert_eq!(
        (duplicate.status, duplicate.reason().as_deref()),
        (409, Some("ORDER_REF_TAKEN"))
    );
    assert!(
        duplicate.text().contains(payment["id"].as_str().unwrap()),
        "{}",
        duplicate.text()
    );

    let cancel = format!("/v1/payments/{}:cancel", payment["id"].as_str().unwrap());
    let canceled = rest.post(&cancel, &json!({})).await.ok();
    assert_eq!(canceled["state"], "CANCELED");
    assert_eq!(canceled["cancellationReason"], "requested");
    let paid = rest
        .post("/v1/payments", &order("ORDER-1", &[("MUG-1", 1)]))
        .await
        .ok();
    assert_eq!(paid["state"], "SUCCEEDED");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_is_not_expected_stores_and_charges_nothing() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let expected = json!({"currencyCode": "USD", "amountMinor": "1249"});
    let request = with(
        order("ORDER-1", &[("MUG-1", 1)]),
        "expectedAmount",
        expected,
    );
    let answer = rest.post("/v1/payments", &request).await;
    assert_eq!(
        (answer.status, answer.reason().as_deref()),
        (400, Some("PRICE_CHANGED"))
    );
    assert_eq!(
        rest.list("/v1/payments?pageSize=10", "payments")
            .await
            .len(),
        0
    );
    assert_eq!(stock(rest, "MUG-1").await, (10, 0, 10));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_are_byte_for_byte_and_marked() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let request = order("ORDER-1", &[("MUG-1", 1)]);
    let first = rest.post_once("/v1/payments", "key-1", &request).await;
    assert_eq!(
        (first.status, first.replayed()),
        (200, false),
        "{}",
        first.text()
    );
    let refunds = format!(
        "/v1/payments/{}/refunds",
        first.json()["id"].as_str().unwrap()
    );
    rest.post(&refunds, &json!({})).await.ok(); // The payment is another one now; its first answer is not.
    let replay = rest.post_once("/v1/payments", "key-1", &request).await;
    assert_eq!((replay.status, replay.replayed()), (200, true));
    assert_eq!(replay.text(), first.text());

    // Spelling and order of fields are not part of what was asked.
    let mut respelled = serde_json::Map::new();
    for (name, value) in request.as_object().unwrap().iter().rev() {
        respelled.insert(name.replace("orderRef", "order_ref"), value.clone());
    }
    let replay = rest
        .post_once("/v1/payments", "key-1", &respelled.into())
        .await;
    assert_eq!((replay.replayed(), replay.text()), (true, first.text()));

    let other = rest
        .post_once("/v1/payments", "key-1", &order("ORDER-2", &[("MUG-1", 1)]))
        .await;
    assert_eq!(
        (other.status, other.reason().as_deref()),
        (422, Some("IDEMPOTENCY_KEY_REUSED"))
    );
    let adjust = json!({"delta": 5, "reason": "goods in"});
    let first = rest
        .post_once("/v1/stock/MUG-1:adjust", "key-1", &adjust)
        .await;
    assert_eq!(
        (first.status, first.replayed()),
        (200, false),
        "another method, another scope"
    );
    let replay = rest
        .post_once("/v1/stock/MUG-1:adjust", "key-1", &adjust)
        .await;
    assert_eq!((replay.replayed(), replay.text()), (true, first.text()));
    shop.close().await;
}
