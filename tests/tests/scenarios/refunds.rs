//! Giving money back: in parts, several times, by amount, with and without the goods.

use serde_json::{Value, json};
use tests::orders::{lines, order, put_on_sale, stock, with};
use tests::rest::{Rest, minor, whole};
use tests::shop::Shop;

/// Three mugs at 12.50 and one pot at 30.00: 67.50.
async fn paid(rest: &Rest) -> Value {
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    put_on_sale(rest, "POT-1", 3000, 10).await;
    let paid = rest
        .post(
            "/v1/payments",
            &order("ORDER-1", &[("MUG-1", 3), ("POT-1", 1)]),
        )
        .await
        .ok();
    assert_eq!(paid["state"], "SUCCEEDED");
    paid
}

fn refunds_of(payment: &Value) -> String {
    format!("/v1/payments/{}/refunds", payment["id"].as_str().unwrap())
}

fn parts(refund: &Value) -> Vec<(String, i64, i64)> {
    let lines = refund["lines"].as_array().unwrap().iter();
    lines
        .map(|line| {
            let sku = line["sku"].as_str().unwrap().to_owned();
            (sku, whole(&line["quantity"]), minor(&line["amount"]))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn several_partial_refunds_add_up_to_what_was_captured() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let payment = paid(rest).await;
    let refunds = refunds_of(&payment);

    let goods = json!({"lines": lines(&[("MUG-1", 2)]), "restock": true, "reason": "chipped"});
    let first = rest.post(&refunds, &goods).await.ok();
    assert_eq!(
        (first["state"].as_str(), minor(&first["amount"])),
        (Some("SUCCEEDED"), 2500)
    );
    assert_eq!(parts(&first), [("MUG-1".to_owned(), 2, 2500)]);
    let too_many = rest.post(&refunds, &goods).await;
    assert_eq!(
        (too_many.status, too_many.reason().as_deref()),
        (400, Some("QUANTITY_EXCEEDED"))
    );

    let rest_of_it = rest.post(&refunds, &json!({})).await.ok();
    assert_eq!(minor(&rest_of_it["amount"]), 1250 + 3000);
    let nothing_left = rest.post(&refunds, &json!({})).await;
    assert_eq!(nothing_left.status, 400, "{}", nothing_left.text());
    let listed = rest.list(&format!("{refunds}?pageSize=1"), "refunds").await;
    assert_eq!(listed, [first, rest_of_it]);

    eventually_restocked(rest, "MUG-1", 9).await;
    assert_eq!(
        stock(rest, "POT-1").await,
        (9, 0, 9),
        "not restocked: nobody asked for it"
    );
    shop.drain_events().await;
    let pot = rest.get("/v1/products:batchGet?skus=POT-1").await.ok();
    assert_eq!(whole(&pot["products"][0]["soldQuantity"]), 0);
    let payment = rest
        .get(&format!("/v1/payments/{}", payment["id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(
        (minor(&payment["refundedAmount"]), payment["state"].as_str()),
        (6750, Some("SUCCEEDED"))
    );
    let sales = rest.get("/v1/sales:summarize").await.ok();
    assert_eq!(
        (
            minor(&sales["rows"][0]["amount"]),
            whole(&sales["rows"][0]["quantity"])
        ),
        (0, 0)
    );
    shop.close().await;
}

/// Goods go back after the money has; the refund does not wait for the product service.
async fn eventually_restocked(rest: &Rest, sku: &str, on_hand: i64) {
    tests::eventually("the goods are back", || async {
        stock(rest, sku).await.0 == on_hand
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amount_falls_on_the_lines_in_proportion() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let payment = paid(rest).await;
    let amount =
        |minor: i64| json!({"amount": {"currencyCode": "USD", "amountMinor": minor.to_string()}});
    // 3750 and 3000 of 6750 left: 1000 falls apart into 555.56 and 444.44.
    let refund = rest.post(&refunds_of(&payment), &amount(1000)).await.ok();
    assert_eq!(
        parts(&refund),
        [("MUG-1".to_owned(), 0, 556), ("POT-1".to_owned(), 0, 444)]
    );
    let too_much = rest.post(&refunds_of(&payment), &amount(5751)).await;
    assert_eq!(
        (too_much.status, too_much.reason().as_deref()),
        (400, Some("AMOUNT_EXCEEDED"))
    );
    let all = rest.post(&refunds_of(&payment), &amount(5750)).await.ok();
    assert_eq!(
        parts(&all),
        [("MUG-1".to_owned(), 0, 3194), ("POT-1".to_owned(), 0, 2556)]
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_refund_can_be_asked_for_again() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let order = with(
        order("ORDER-1", &[("MUG-1", 1)]),
        "paymentMethod",
        "pm_card_refund_declined",
    );
    let payment = rest.post("/v1/payments", &order).await.ok();
    for _ in 0..2 {
        let refund = rest.post(&refunds_of(&payment), &json!({})).await.ok();
        assert_eq!(refund["state"], "FAILED", "{refund}");
        assert!(refund["lastError"]["code"].is_string());
    }
    let payment = rest
        .get(&format!("/v1/payments/{}", payment["id"].as_str().unwrap()))
        .await
        .ok();
    assert_eq!(minor(&payment["refundedAmount"]), 0);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_refunds_never_give_back_more_than_was_taken() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let payment = paid(rest).await;
    let refunds = refunds_of(&payment);
    let mug = json!({"lines": lines(&[("MUG-1", 1)])});
    let answers = futures_util::future::join_all((0..20).map(|_| rest.post(&refunds, &mug))).await;
    let given = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers
        .iter()
        .filter(|answer| answer.reason().as_deref() == Some("QUANTITY_EXCEEDED"));
    assert_eq!((given, refused.count()), (3, 17));
    shop.close().await;
}
