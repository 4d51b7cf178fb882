//! Services that are down, buses that misbehave, shops that stop in the middle.

use std::time::Duration;

use futures_util::future::join_all;
use rand::Rng;
use serde_json::{Value, json};
use tests::chance::random;
use tests::orders::{lines, manual_order, order, put_on_sale, stock, with};
use tests::rest::{Rest, minor, whole};
use tests::shop::{Options, Shop};

#[tokio::test(flavor = "multi_thread")]
async fn payments_go_on_while_the_product_service_is_down() {
    let mut shop = Shop::start().await;
    let rest = shop.rest().clone();
    put_on_sale(&rest, "MUG-1", 1250, 20).await;
    let paid = rest
        .post("/v1/payments", &order("PAID", &[("MUG-1", 3)]))
        .await
        .ok();
    let held = rest
        .post("/v1/payments", &manual_order("HELD", &[("MUG-1", 2)]))
        .await
        .ok();
    let at = |payment: &Value, rest: &str| {
        format!("/v1/payments/{}{rest}", payment["id"].as_str().unwrap())
    };
    shop.stop_product().await;

    let captured = rest.post(&at(&held, ":capture"), &json!({})).await.ok();
    assert_eq!(
        (
            captured["state"].as_str(),
            minor(&captured["capturedAmount"])
        ),
        (Some("SUCCEEDED"), 2500)
    );
    let back = json!({"lines": lines(&[("MUG-1", 1)]), "restock": true});
    assert_eq!(
        rest.post(&at(&paid, "/refunds"), &back).await.ok()["state"],
        "SUCCEEDED"
    );
    assert_eq!(
        rest.get(&at(&paid, "")).await.ok()["refundedAmount"]["amountMinor"],
        "1250"
    );
    assert_eq!(
        rest.list("/v1/payments?pageSize=10", "payments")
            .await
            .len(),
        2
    );
    assert_eq!(
        whole(&rest.get("/v1/sales:summarize").await.ok()["rows"][0]["quantity"]),
        4
    );
    assert_eq!(rest.get("/v1/ledger/accounts").await.status, 200);
    let refused = rest
        .post("/v1/payments", &order("NEW", &[("MUG-1", 1)]))
        .await;
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(rest.get("/v1/products?pageSize=1").await.status, 503);

    shop.start_product().await;
    tests::eventually("the stock has caught up", || async {
        stock(&rest, "MUG-1").await == (16, 0, 16)
    })
    .await;
    shop.drain_events().await;
    let mug = rest.get("/v1/products:batchGet?skus=MUG-1").await.ok();
    assert_eq!(whole(&mug["products"][0]["soldQuantity"]), 4);
    let retried = rest
        .post("/v1/payments", &order("NEW", &[("MUG-1", 1)]))
        .await
        .ok();
    assert_eq!(retried["state"], "SUCCEEDED");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_goes_on_while_the_payment_service_is_down() {
    let mut shop = Shop::start().await;
    let rest = shop.rest().clone();
    let mug = put_on_sale(&rest, "MUG-1", 1250, 20).await;
    shop.stop_payment().await;
    assert_eq!(rest.get("/v1/payments?pageSize=1").await.status, 503);

    let path = format!("/v1/products/{}", mug["id"].as_str().unwrap());
    let renamed = rest
        .patch(&path, &json!({"title": "Cup", "etag": mug["etag"]}))
        .await
        .ok();
    assert_eq!(renamed["title"], "Cup");
    assert_eq!(
        rest.patch(&path, &json!({"title": "Pot", "etag": mug["etag"]}))
            .await
            .status,
        409
    );
    assert_eq!(
        rest.get("/v1/products:search?query=cup").await.ok()["products"][0]["id"],
        mug["id"]
    );
    let adjust = json!({"delta": -5, "reason": "broken"});
    assert_eq!(
        rest.post("/v1/stock/MUG-1:adjust", &adjust).await.ok()["onHand"],
        15
    );
    assert!(rest.delete(&path).await.ok()["deleteTime"].is_string());
    assert_eq!(
        rest.list("/v1/products?pageSize=10", "products")
            .await
            .len(),
        0
    );
    rest.post(&format!("{path}:undelete"), &json!({}))
        .await
        .ok();
    let exported = rest.get("/v1/products:export?currencyCode=USD").await;
    assert!(exported.text().contains("MUG-1"));
    let csv =
        "Handle,Title,Variant SKU,Variant Inventory Qty,Variant Price\npot,Pot,POT-1,5,30.00\n";
    assert_eq!(
        rest.import("USD", csv.as_bytes().to_vec()).await.ok()["created"],
        1
    );

    shop.start_payment().await;
    let paid = rest
        .post("/v1/payments", &order("PAID", &[("POT-1", 1)]))
        .await
        .ok();
    assert_eq!(paid["state"], "SUCCEEDED");
    shop.close().await;
}

/// The checker compares every projection with its recomputation when the shop closes.
#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_loses_repeats_delays_and_reorders_changes_no_figure() {
    let mut random = random("a_bus_that_loses_repeats_delays_and_reorders");
    let mut options = Options::default();
    options.bus_faults.lose = 0.2;
    options.bus_faults.duplicate = 0.3;
    options.bus_faults.delay = 0.3;
    options.bus_faults.delay_max = Duration::from_millis(100);
    options.bus_faults.reorder = 0.5;
    options.bus_faults.seed = random.random();
    let shop = Shop::start_with(options).await;
    let rest = shop.rest();
    for sku in ["MUG-1", "POT-1", "CUP-1"] {
        put_on_sale(rest, sku, 1250, 1000).await;
    }
    let orders = (0..40).map(|n| {
        let sku = ["MUG-1", "POT-1", "CUP-1"][random.random_range(0..3)];
        (
            order(&format!("ORDER-{n}"), &[(sku, random.random_range(2..5))]),
            random.random::<bool>(),
        )
    });
    let buy = async |(order, back): (Value, bool)| -> i64 {
        let paid = rest.post("/v1/payments", &order).await.ok();
        assert_eq!(paid["state"], "SUCCEEDED");
        if !back {
            return whole(&paid["items"][0]["quantity"]);
        }
        let path = format!("/v1/payments/{}/refunds", paid["id"].as_str().unwrap());
        let one = json!({"lines": lines(&[(paid["items"][0]["sku"].as_str().unwrap(), 1)])});
        assert_eq!(rest.post(&path, &one).await.ok()["state"], "SUCCEEDED");
        whole(&paid["items"][0]["quantity"]) - 1
    };
    let sold: i64 = join_all(orders.map(buy)).await.into_iter().sum();
    shop.drain_events().await;
    let products = rest.list("/v1/products?pageSize=10", "products").await;
    assert_eq!(
        products
            .iter()
            .map(|product| whole(&product["soldQuantity"]))
            .sum::<i64>(),
        sold
    );
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_fails_at_random_charges_each_order_once() {
    let mut random = random("a_provider_that_fails_at_random");
    let mut options = Options::default();
    options.provider_faults.seed = random.random();
    options.provider_faults.unavailable = 0.15;
    options.provider_faults.unknown_before = 0.15;
    options.provider_faults.unknown_after = 0.15;
    let shop = Shop::start_with(options).await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 1000).await;
    let orders: Vec<Value> = (0..30)
        .map(|n| order(&format!("ORDER-{n}"), &[("MUG-1", 1)]))
        .collect();
    let payments = join_all(orders.iter().map(|order| rest.post("/v1/payments", order))).await;
    for payment in payments.iter().map(tests::rest::Answer::ok) {
        ends_well(rest, &payment).await;
    }
    for n in 0..30 {
        assert_eq!(shop.charges(&format!("ORDER-{n}")).await, 1, "ORDER-{n}");
    }
    shop.close().await;
}

async fn ends_well(rest: &Rest, payment: &Value) {
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    tests::eventually(&format!("{path} has succeeded"), || async {
        rest.get(&path).await.ok()["state"] == "SUCCEEDED"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_in_the_middle_loses_nothing() {
    let slow = Options {
        provider_latency_ms: 150,
        ..Options::default()
    };
    let shop = Shop::start_with(slow).await;
    let rest = shop.rest().clone();
    put_on_sale(&rest, "MUG-1", 1250, 1000).await;
    let orders: Vec<(String, Value)> = (0..20)
        .map(|n| {
            (
                format!("key-{n}"),
                order(&format!("ORDER-{n}"), &[("MUG-1", 1)]),
            )
        })
        .collect();
    let buyers: Vec<_> = (orders.iter().cloned())
        .map(|(key, order)| {
            let rest = rest.clone();
            mesh::spawn(async move { rest.try_post("/v1/payments", &key, &order).await })
        })
        .collect();
    tests::eventually("purchases are under way", || async {
        rest.list("/v1/payments?pageSize=100", "payments")
            .await
            .len()
            >= 5
    })
    .await;
    let shop = shop.restart().await;
    let mut acknowledged = 0;
    for (buyer, (key, order)) in join_all(buyers).await.into_iter().zip(&orders) {
        let before = buyer.unwrap();
        let answered = before.ok().filter(|answer| answer.status == 200);
        tests::eventually(&format!("{key} has its answer"), || async {
            shop.rest()
                .post_once("/v1/payments", key, order)
                .await
                .status
                == 200
        })
        .await;
        let after = shop.rest().post_once("/v1/payments", key, order).await;
        assert!(after.replayed());
        if let Some(before) = answered {
            acknowledged += 1;
            assert_eq!(before.text(), after.text());
        }
        ends_well(shop.rest(), &after.ok()).await;
    }
    println!("{acknowledged} of 20 were answered before the stop");
    assert_eq!(stock(shop.rest(), "MUG-1").await, (980, 0, 980));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_after_a_one_step_charge_is_refunded() {
    let options = Options {
        one_step_provider: true,
        provider_latency_ms: 400,
        manual_clock: false,
        ..Options::default()
    };
    let shop = Shop::start_with(options).await;
    let rest = shop.rest().clone();
    put_on_sale(&rest, "MUG-1", 1250, 10).await;
    let request = order("ORDER-1", &[("MUG-1", 2)]);
    let buyer = {
        let (rest, request) = (rest.clone(), request.clone());
        mesh::spawn(async move { rest.post("/v1/payments", &request).await })
    };
    // While the provider charges, the hold is taken away behind payment's back, as an operator of the
    // product service might: committing it is then refused.
    let reservation = reservation_of(&shop).await;
    let mut products = shop.product_client();
    let release = proto::commerce::product::v1::ReleaseReservationRequest {
        id: reservation,
        request_id: "released-by-hand".to_owned(),
    };
    products.release_reservation(release).await.unwrap();
    let payment = buyer.await.unwrap().ok();
    let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap());
    tests::eventually("it is canceled and the money given back", || async {
        let payment = rest.get(&path).await.ok();
        payment["state"] == "CANCELED" && minor(&payment["capturedAmount"]) == 0
    })
    .await;
    assert_eq!(shop.charges("ORDER-1").await, 0);
    assert_eq!(stock(&rest, "MUG-1").await, (10, 0, 10));
    let again = with(request, "orderRef", "ORDER-2");
    assert_eq!(
        rest.post("/v1/payments", &again).await.ok()["state"],
        "SUCCEEDED"
    );
    shop.close().await;
}

/// The hold of the purchase that is under way.
async fn reservation_of(shop: &Shop) -> String {
    let found = tokio::sync::Mutex::new(None);
    tests::eventually("the stock is held", || async {
        let held = shop.stores().await.held_reservations().await;
        *found.lock().await = held.unwrap().pop();
        found.lock().await.is_some()
    })
    .await;
    found.into_inner().expect("it was waited for")
}
