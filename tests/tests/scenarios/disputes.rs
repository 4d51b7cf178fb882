//! Disputes and refunds that come back, by whoever runs the shop over REST.

use serde_json::{Value, json};
use tests::eventually;
use tests::orders::{order, put_on_sale, stock, with};
use tests::rest::{Rest, minor, whole};
use tests::shop::Shop;

async fn bought(rest: &Rest, token: &str) -> Value {
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let order = with(order("ORDER-1", &[("MUG-1", 2)]), "paymentMethod", token);
    let bought = rest.post("/v1/payments", &order).await.ok();
    assert_eq!(bought["state"], "SUCCEEDED");
    bought
}

/// The payment's only dispute, once it is in a state.
async fn disputed(rest: &Rest, payment: &Value, state: &str) -> Value {
    let list = format!("/v1/disputes?paymentId={}", payment["id"].as_str().unwrap());
    eventually(state, || async {
        rest.get(&list).await.ok()["disputes"][0]["state"] == state
    })
    .await;
    rest.get(&list).await.ok()["disputes"][0].clone()
}

async fn balance(rest: &Rest, account: &str) -> i64 {
    let accounts = rest.get("/v1/ledger/accounts").await.ok();
    let mut accounts = accounts["accounts"].as_array().unwrap().iter();
    let found = accounts.find(|of| of["id"] == account);
    found.map_or(0, |of| minor(&of["balance"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_is_handed_in_and_the_money_comes_back() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let payment = bought(rest, "pm_card_dispute_won").await;
    let dispute = disputed(rest, &payment, "NEEDS_RESPONSE").await;
    assert_eq!(minor(&dispute["amount"]), 2500);
    assert_eq!(dispute["provider"], "simulator");
    assert_eq!(balance(rest, "expenses:disputes").await, 2500);
    let path = format!("/v1/disputes/{}", dispute["id"].as_str().unwrap());
    let refunds = format!("/v1/payments/{}/refunds", payment["id"].as_str().unwrap());
    let refused = rest.post(&refunds, &json!({})).await;
    assert_eq!(refused.reason().as_deref(), Some("DISPUTED"));

    let hand_in = format!("{path}:submitEvidence");
    let file = |data: &str, kind: &str| json!({"files": [{"kind": kind, "contentType": "application/pdf", "data": data}]});
    for (bad, field) in [
        (json!({}), "evidence"),
        (
            json!({"explanation": "card 4111 1111 1111 1111"}),
            "explanation",
        ),
        (file("TVo=", "RECEIPT"), "files[0].data"),
        (file("JVBERi0=", "KIND_UNSPECIFIED"), "files[0].kind"),
    ] {
        let answer = rest.post(&hand_in, &bad).await;
        assert_eq!(answer.status, 400, "{bad}");
        assert!(answer.text().contains(field), "{}", answer.text());
    }
    let mut good = file("JVBERi0xLjc=", "RECEIPT");
    good["explanation"] = "sent on the 3rd".into();
    let handed_in = rest.post(&hand_in, &good).await.ok();
    assert_eq!(handed_in["response"], "SUBMITTED");
    assert_eq!(handed_in["evidence"].as_array().unwrap().len(), 2);
    assert_eq!(handed_in["evidence"][1]["contentType"], "application/pdf");
    let twice = rest.post(&hand_in, &good).await;
    assert_eq!(twice.reason().as_deref(), Some("DISPUTE_STATE"));
    disputed(rest, &payment, "WON").await;
    assert_eq!(balance(rest, "expenses:disputes").await, 0);
    let won = rest.get("/v1/disputes?state=WON").await.ok();
    assert_eq!(won["disputes"].as_array().unwrap().len(), 1);
    let refund = rest.post(&refunds, &json!({})).await.ok();
    assert_eq!(refund["state"], "SUCCEEDED");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispute_is_given_up() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let payment = bought(rest, "pm_card_dispute_won").await;
    let dispute = disputed(rest, &payment, "NEEDS_RESPONSE").await;
    let accept = format!("/v1/disputes/{}:accept", dispute["id"].as_str().unwrap());
    assert_eq!(rest.post(&accept, &json!({})).await.ok()["state"], "LOST");
    let missing = rest
        .get("/v1/disputes/dsp_01h455vb4pex5vsknk084sn02q")
        .await;
    assert_eq!(
        (missing.status, missing.reason().as_deref()),
        (404, Some("DISPUTE_NOT_FOUND"))
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_comes_back_is_in_no_figure_any_more() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    let payment = bought(rest, "pm_card_refund_fails_later").await;
    let refunds = format!("/v1/payments/{}/refunds", payment["id"].as_str().unwrap());
    let all = json!({"restock": true});
    let refund = rest.post(&refunds, &all).await.ok();
    assert_eq!(refund["state"], "SUCCEEDED");
    let path = format!("/v1/refunds/{}", refund["id"].as_str().unwrap());
    eventually("the bank returns it", || async {
        rest.get(&path).await.ok()["state"] == "FAILED"
    })
    .await;
    assert!(rest.get(&path).await.ok()["reverseTime"].is_string());
    shop.drain_events().await;
    let item = &payment["items"][0];
    let product = format!("/v1/products/{}", item["productId"].as_str().unwrap());
    let product = rest.get(&product).await.ok();
    assert_eq!(whole(&product["soldQuantity"]), 2);
    assert_eq!(minor(&product["revenue"][0]), 2500);
    let sales = rest.get("/v1/sales:summarize").await.ok();
    assert_eq!(minor(&sales["rows"][0]["amount"]), 2500);
    assert_eq!(
        stock(rest, "MUG-1").await,
        (10, 0, 10),
        "the goods are there"
    );
    let again = rest.post(&refunds, &json!({})).await.ok();
    assert_eq!(
        (again["state"].as_str(), minor(&again["amount"])),
        (Some("SUCCEEDED"), 2500)
    );
    eventually("the bank returns it again", || async {
        let of = format!("/v1/refunds/{}", again["id"].as_str().unwrap());
        rest.get(&of).await.ok()["state"] == "FAILED"
    })
    .await;
    shop.close().await;
}
