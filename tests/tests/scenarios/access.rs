//! Who may do what, and whose payments are whose.

use std::fmt::Write as _;

use mesh_events::Subscription;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tests::orders::{order, put_on_sale};
use tests::rest::Rest;
use tests::shop::{Options, Shop};

/// Key, who it speaks for, and what it may do beyond public methods.
const KEYS: [(&str, &str, &[&str]); 3] = [
    ("key-of-the-operator", "house", &["operator"]),
    ("key-of-alice", "alice", &[]),
    ("key-of-bob", "bob", &[]),
];

fn key_file() -> tempfile::NamedTempFile {
    let mut text = String::new();
    for (key, principal, scopes) in KEYS {
        let hash = hex::encode(Sha256::digest(key));
        writeln!(
            text,
            "[[key]]\nprincipal = {principal:?}\nscopes = {scopes:?}\nsha256 = {hash:?}"
        )
        .unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

struct Clients {
    nobody: Rest,
    operator: Rest,
    alice: Rest,
    bob: Rest,
}

async fn guarded_shop() -> (Shop, Clients, tempfile::NamedTempFile) {
    let file = key_file();
    let keys = Some(file.path().to_owned());
    let shop = Shop::start_with(Options {
        keys,
        ..Options::default()
    })
    .await;
    let nobody = shop.rest().clone();
    let [operator, alice, bob] = KEYS.map(|(key, _, _)| nobody.with_api_key(key));
    put_on_sale(&operator, "MUG-1", 1250, 20).await;
    (
        shop,
        Clients {
            nobody,
            operator,
            alice,
            bob,
        },
        file,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_open_what_they_are_for_and_nothing_else() {
    let (shop, clients, _file) = guarded_shop().await;
    let wrong = clients.nobody.with_api_key("key-of-nobody");
    for path in [
        "/v1/products?pageSize=1",
        "/v1/payments?pageSize=1",
        "/v1/ledger/accounts",
    ] {
        assert_eq!(
            clients.nobody.get(path).await.status,
            401,
            "{path} without a key"
        );
        assert_eq!(wrong.get(path).await.status, 401, "{path} with a wrong key");
    }
    assert_eq!(
        clients.alice.get("/v1/products?pageSize=1").await.status,
        200
    );
    for path in [
        "/v1/ledger/accounts",
        "/v1/ledger/transactions",
        "/v1/sales:summarize",
        "/v1/products:export?currencyCode=USD",
    ] {
        assert_eq!(
            clients.alice.get(path).await.status,
            403,
            "{path} with a client's key"
        );
        assert_eq!(
            clients.operator.get(path).await.status,
            200,
            "{path} with the operator's key"
        );
    }
    let adjust = json!({"delta": 1, "reason": "goods in"});
    assert_eq!(
        clients
            .alice
            .post("/v1/stock/MUG-1:adjust", &adjust)
            .await
            .status,
        403
    );
    assert_eq!(
        clients
            .alice
            .import("USD", b"Handle\n".to_vec())
            .await
            .status,
        403
    );
    let product = json!({"title": "Pot"});
    assert_eq!(
        clients.alice.post("/v1/products", &product).await.status,
        403
    );
    for path in [
        "/v1/reservations",
        "/v1/products:reserve",
        "/commerce.product.v1.ProductService/ReserveStock",
        "/commerce.product.v1.ProductService/CommitReservation",
    ] {
        assert_eq!(
            clients.operator.post(path, &json!({})).await.status,
            404,
            "{path}"
        );
    }
    for path in ["/healthz", "/docs", "/openapi.json", "/"] {
        assert!(
            clients.nobody.get(path).await.status < 400,
            "{path} is for everybody"
        );
    }
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_share_neither_keys_nor_payments() {
    let (shop, clients, _file) = guarded_shop().await;
    let request = order("ORDER-1", &[("MUG-1", 1)]);
    let hers = clients
        .alice
        .post_once("/v1/payments", "same-key", &request)
        .await;
    let his = clients
        .bob
        .post_once("/v1/payments", "same-key", &request)
        .await;
    let (hers, his) = (hers.ok(), his.ok());
    assert_ne!(
        hers["id"], his["id"],
        "another client's key replays nothing, its order is another"
    );
    let of_alice = format!("/v1/payments/{}", hers["id"].as_str().unwrap());
    assert_eq!(clients.alice.get(&of_alice).await.status, 200);
    assert_eq!(clients.operator.get(&of_alice).await.status, 200);
    assert_eq!(clients.bob.get(&of_alice).await.status, 404);
    for verb in ["confirm", "capture", "cancel"] {
        let answer = clients
            .bob
            .post(&format!("{of_alice}:{verb}"), &json!({}))
            .await;
        assert_eq!(answer.status, 404, "{verb}: {}", answer.text());
    }
    assert_eq!(
        clients
            .alice
            .post(&format!("{of_alice}/refunds"), &json!({}))
            .await
            .status,
        403
    );
    let seen = async |client: &Rest| -> Vec<Value> {
        let payments = client.list("/v1/payments?pageSize=10", "payments").await;
        payments
            .into_iter()
            .map(|payment| payment["id"].clone())
            .collect()
    };
    assert_eq!(seen(&clients.alice).await, [hers["id"].clone()]);
    assert_eq!(seen(&clients.bob).await, [his["id"].clone()]);
    assert_eq!(seen(&clients.operator).await.len(), 2);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_back_opens_nothing_any_more() {
    let (shop, clients, file) = guarded_shop().await;
    assert_eq!(
        clients.alice.get("/v1/products?pageSize=1").await.status,
        200
    );
    let text = std::fs::read_to_string(file.path()).unwrap();
    let without_alice: Vec<&str> = text
        .split("[[key]]")
        .filter(|table| !table.contains("\"alice\""))
        .collect();
    // As editors do it: nobody ever reads half a file.
    let replacement = file.path().with_extension("new");
    std::fs::write(&replacement, without_alice.join("[[key]]")).unwrap();
    std::fs::rename(&replacement, file.path()).unwrap();
    tests::eventually("the key is gone", || async {
        clients.alice.get("/v1/products?pageSize=1").await.status == 401
    })
    .await;
    assert_eq!(clients.bob.get("/v1/products?pageSize=1").await.status, 200);
    shop.close().await;
}

/// With a bus that confirms nothing every event stays in its outbox and can be looked at.
#[tokio::test(flavor = "multi_thread")]
async fn trace_and_principal_arrive_at_the_far_end() {
    let file = key_file();
    let mut options = Options {
        keys: Some(file.path().to_owned()),
        ..Options::default()
    };
    options.bus_faults.lose = 1.0;
    let shop = Shop::start_with(options).await;
    let operator = shop.rest().with_api_key(KEYS[0].0);
    put_on_sale(&operator, "MUG-1", 1250, 20).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let alice = shop.rest().with_api_key(KEYS[1].0);
    let request = alice
        .request(reqwest::Method::POST, "/v1/payments")
        .header("Idempotency-Key", "key-1")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&order("ORDER-1", &[("MUG-1", 1)]));
    assert_eq!(
        alice.send(request).await.unwrap().ok()["state"],
        "SUCCEEDED"
    );

    let mut stores = shop.stores().await;
    let traced = stores.kinds_of_trace(trace).await.unwrap();
    for kind in ["product.StockReserved.v1", "payment.PaymentCaptured.v1"] {
        assert!(
            traced.iter().any(|traced| traced == kind),
            "{kind} is not in {traced:?}"
        );
    }
    // A purchase may be finished by a worker after its caller has gone, so towards the product service
    // the payment service speaks for itself.
    assert_eq!(
        stores.principals_of("ReserveStock").await.unwrap(),
        ["payment"]
    );
    assert_eq!(
        stores.principals_of("CreatePayment").await.unwrap(),
        ["alice"]
    );
    shop.abandon().await;
}

/// One trace, from the REST edge through both services and the outbox to whoever consumes.
#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_purchase_arrives_with_its_event() {
    let shop = Shop::start().await;
    put_on_sale(shop.rest(), "MUG-1", 1250, 20).await;
    let subscription = Subscription {
        consumer: "witness".into(),
        kinds: vec!["payment.PaymentCaptured.v1".into()],
        prefetch: 1,
    };
    let mut deliveries = shop.bus().subscribe(subscription).await.unwrap();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = shop
        .rest()
        .request(reqwest::Method::POST, "/v1/payments")
        .header("Idempotency-Key", "key-1")
        .header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"))
        .json(&order("ORDER-1", &[("MUG-1", 1)]));
    shop.rest().send(request).await.unwrap().ok();
    let delivery = deliveries.next().await.unwrap();
    let traceparent = delivery.event.traceparent.clone().unwrap();
    assert!(
        traceparent.starts_with(&format!("00-{trace}-")),
        "{traceparent}"
    );
    delivery.ack().await.unwrap();
    drop(deliveries);
    shop.close().await;
}
