//! Authorised first and captured by command: in parts, for the last time, given up, or never.

use serde_json::json;
use tests::orders::{lines, manual_order, put_on_sale, stock, with};
use tests::rest::{minor, whole};
use tests::shop::{Options, Shop};

const DAY_US: i64 = 24 * 60 * 60 * 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_captured_and_the_rest_is_given_up() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    put_on_sale(rest, "POT-1", 3000, 10).await;
    let order = manual_order("ORDER-1", &[("MUG-1", 4), ("POT-1", 2)]);
    let payment = rest.post("/v1/payments", &order).await.ok();
    assert_eq!(payment["state"], "REQUIRES_CAPTURE");
    assert!(payment["expireTime"].is_string());
    assert_eq!(
        (stock(rest, "MUG-1").await, stock(rest, "POT-1").await),
        ((10, 4, 6), (10, 2, 8))
    );
    let capture = format!("/v1/payments/{}:capture", payment["id"].as_str().unwrap());

    let part = rest
        .post(&capture, &json!({"lines": lines(&[("MUG-1", 1)])}))
        .await
        .ok();
    assert_eq!(
        (part["state"].as_str(), minor(&part["capturedAmount"])),
        (Some("PARTIALLY_CAPTURED"), 1250)
    );
    let too_many = rest
        .post(&capture, &json!({"lines": lines(&[("MUG-1", 4)])}))
        .await;
    assert_eq!(
        (too_many.status, too_many.reason().as_deref()),
        (400, Some("QUANTITY_EXCEEDED"))
    );
    let last = json!({"lines": lines(&[("MUG-1", 1), ("POT-1", 1)]), "final": true});
    let done = rest.post(&capture, &last).await.ok();
    assert_eq!(
        (done["state"].as_str(), minor(&done["capturedAmount"])),
        (Some("SUCCEEDED"), 5500)
    );
    assert_eq!(done["captures"].as_array().unwrap().len(), 2);
    assert_eq!(
        rest.post(&capture, &json!({})).await.reason().as_deref(),
        Some("INVALID_STATE")
    );

    tests::eventually("the rest is free again", || async {
        stock(rest, "MUG-1").await == (8, 0, 8) && stock(rest, "POT-1").await == (9, 0, 9)
    })
    .await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_capture_takes_all_that_is_left() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let payment = rest
        .post("/v1/payments", &manual_order("ORDER-1", &[("MUG-1", 4)]))
        .await
        .ok();
    let capture = format!("/v1/payments/{}:capture", payment["id"].as_str().unwrap());
    let done = rest.post(&capture, &json!({})).await.ok();
    assert_eq!(
        (done["state"].as_str(), minor(&done["capturedAmount"])),
        (Some("SUCCEEDED"), 5000)
    );
    tests::eventually("the goods have left", || async {
        stock(rest, "MUG-1").await == (6, 0, 6)
    })
    .await;
    shop.drain_events().await;
    let mug = rest.get("/v1/products:batchGet?skus=MUG-1").await.ok();
    assert_eq!(whole(&mug["products"][0]["soldQuantity"]), 4);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_gives_the_authorisation_and_the_goods_back() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let payment = rest
        .post("/v1/payments", &manual_order("ORDER-1", &[("MUG-1", 4)]))
        .await
        .ok();
    let at = |verb: &str| format!("/v1/payments/{}:{verb}", payment["id"].as_str().unwrap());
    let canceled = rest.post(&at("cancel"), &json!({})).await.ok();
    assert_eq!(canceled["state"], "CANCELED");
    tests::eventually("the goods are free", || async {
        stock(rest, "MUG-1").await == (10, 0, 10)
    })
    .await;
    assert_eq!(
        rest.post(&at("capture"), &json!({}))
            .await
            .reason()
            .as_deref(),
        Some("INVALID_STATE")
    );
    assert_eq!(shop.charges("ORDER-1").await, 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_capture_cancels_and_puts_the_goods_back() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let order = manual_order("ORDER-1", &[("MUG-1", 4)]);
    let order = with(order, "paymentMethod", "pm_card_capture_declined");
    let payment = rest.post("/v1/payments", &order).await.ok();
    assert_eq!(payment["state"], "REQUIRES_CAPTURE");
    let id = payment["id"].as_str().unwrap();
    rest.post(&format!("/v1/payments/{id}:capture"), &json!({}))
        .await
        .ok();
    tests::eventually(
        "a failed capture is there, and nothing captured",
        || async {
            let payment = rest.get(&format!("/v1/payments/{id}")).await.ok();
            payment["captures"][0]["state"] == "FAILED" && minor(&payment["capturedAmount"]) == 0
        },
    )
    .await;
    rest.post(&format!("/v1/payments/{id}:cancel"), &json!({}))
        .await;
    tests::eventually("the goods are free", || async {
        stock(rest, "MUG-1").await == (10, 0, 10)
    })
    .await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authorisation_that_nobody_captures_expires() {
    let shop = Shop::start_with(Options {
        manual_clock: true,
        ..Options::default()
    })
    .await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let whole_order = rest
        .post("/v1/payments", &manual_order("ORDER-1", &[("MUG-1", 4)]))
        .await
        .ok();
    let partly = rest
        .post("/v1/payments", &manual_order("ORDER-2", &[("MUG-1", 3)]))
        .await
        .ok();
    let id = |payment: &serde_json::Value| payment["id"].as_str().unwrap().to_owned();
    let part = json!({"lines": lines(&[("MUG-1", 1)])});
    rest.post(&format!("/v1/payments/{}:capture", id(&partly)), &part)
        .await
        .ok();
    let waiting = with(manual_order("ORDER-3", &[("MUG-1", 1)]), "confirm", false);
    let waiting = rest.post("/v1/payments", &waiting).await.ok();

    for _ in 0..40 {
        shop.advance(DAY_US);
    }
    for (payment, state) in [
        (&whole_order, "CANCELED"),
        (&partly, "SUCCEEDED"),
        (&waiting, "CANCELED"),
    ] {
        let path = format!("/v1/payments/{}", id(payment));
        tests::eventually(&format!("{} is {state}", payment["orderRef"]), || async {
            rest.get(&path).await.ok()["state"] == state
        })
        .await;
    }
    let expired = rest
        .get(&format!("/v1/payments/{}", id(&whole_order)))
        .await
        .ok();
    assert_eq!(expired["cancellationReason"], "expired");
    let partly = rest
        .get(&format!("/v1/payments/{}", id(&partly)))
        .await
        .ok();
    assert_eq!(minor(&partly["capturedAmount"]), 1250);
    tests::eventually("nothing is held", || async {
        stock(rest, "MUG-1").await == (9, 0, 9)
    })
    .await;
    shop.close().await;
}
