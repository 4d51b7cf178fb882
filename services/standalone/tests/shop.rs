//! The shop as a library: started in this process, called over REST.
#![expect(clippy::unwrap_used, reason = "a test")]

use mesh_runtime::Clock;
use payment::provider::Provider as _;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use standalone::{Config, Options, Shop};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

const SKU: &str = "TEA-SEJAK-50";
/// How long a payment may take that resolves by itself.
const RESOLVED: Duration = Duration::from_mins(1);

struct Bench {
    shop: Shop,
    client: Client,
}

fn config() -> Config {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Config {
        listen: any,
        admin_listen: any,
        ephemeral: true,
        ..Config::default()
    }
}

fn config_in(folder: &Path) -> Config {
    Config {
        ephemeral: false,
        data_dir: folder.to_owned(),
        ..config()
    }
}

impl Bench {
    async fn start(config: Config) -> Self {
        let shop = Shop::start(Options::new(config)).await.unwrap();
        Self {
            shop,
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        key: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let url = format!("{}{path}", self.shop.base_url());
        let mut request = self.client.request(method, url);
        if !key.is_empty() {
            request = request.header("Idempotency-Key", key);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")),
        )
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, "", Value::Null).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, key: &str, body: Value) -> Value {
        let (status, body) = self.call(Method::POST, path, key, body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    async fn buy(&self, order: &str, token: &str, capture_method: &str) -> Value {
        let body = json!({
            "orderRef": order, "currencyCode": "KRW", "paymentMethod": token,
            "captureMethod": capture_method, "confirm": true,
            "items": [{"sku": SKU, "quantity": 2}],
        });
        self.post("/v1/payments", order, body).await
    }

    /// The payment once it rests in another state than PROCESSING.
    async fn resolved(&self, id: &str) -> Value {
        let asking = async {
            loop {
                let payment = self.get(&format!("/v1/payments/{id}")).await;
                if payment["state"] != "PROCESSING" {
                    return payment;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(RESOLVED, asking)
            .await
            .expect("a payment resolves by itself")
    }

    async fn on_hand(&self) -> i64 {
        self.get(&format!("/v1/stock/{SKU}")).await["onHand"]
            .as_i64()
            .unwrap()
    }

    /// What the simulator took and has not given back.
    async fn taken_minor(&self) -> i64 {
        let page = self.shop.simulator().transactions(None).await.unwrap();
        let signed = page.transactions.iter();
        let signed = signed.map(|booked| booked.kind.sign() * booked.amount.amount_minor());
        signed.sum()
    }
}

fn id(payment: &Value) -> String {
    payment["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_goes_through_every_part() {
    let bench = Bench::start(config()).await;
    let payment = bench.buy("order-1", "pm_card_visa", "AUTOMATIC").await;
    assert_eq!(payment["state"], "SUCCEEDED");
    assert_eq!(payment["amount"]["amountMinor"], "36000");
    assert_eq!(
        (bench.on_hand().await, bench.taken_minor().await),
        (238, 36_000)
    );
    bench.shop.drain_events().await.unwrap();
    let found = bench
        .get(&format!("/v1/products:batchGet?skus={SKU}"))
        .await;
    let product = &found["products"][0];
    assert_eq!(product["soldQuantity"], "2");
    assert_eq!(
        product["revenue"],
        json!([{"currencyCode": "KRW", "amountMinor": "36000"}])
    );
    let sales = bench.get("/v1/sales:summarize?groupBy=CATEGORY").await;
    assert_eq!(sales["rows"][0]["category"], "Tea");
    assert_eq!(sales["rows"][0]["amount"]["amountMinor"], "36000");
    bench.shop.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn captures_refunds_and_reads_of_payments_work_while_product_is_down() {
    let bench = Bench::start(config()).await;
    let payment = id(&bench.buy("order-1", "pm_card_visa", "MANUAL").await);
    bench.shop.stop_product().await.unwrap();
    let (status, _) = bench
        .call(Method::GET, "/v1/products", "", Value::Null)
        .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let captured = bench
        .post(&format!("/v1/payments/{payment}:capture"), "c", json!({}))
        .await;
    assert_eq!(captured["state"], "SUCCEEDED", "{captured}");
    let body = json!({"lines": [{"sku": SKU, "quantity": 1}], "restock": true});
    let refund = bench
        .post(&format!("/v1/payments/{payment}/refunds"), "r", body)
        .await;
    assert_eq!(refund["state"], "SUCCEEDED", "{refund}");
    assert_eq!(bench.taken_minor().await, 18_000);
    bench.shop.start_product().await.unwrap();
    let caught_up = async {
        while bench.on_hand().await != 239 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(RESOLVED, caught_up)
        .await
        .expect("stock follows what was paid");
    bench.shop.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn products_work_while_payment_is_down() {
    let bench = Bench::start(config()).await;
    bench.shop.stop_payment().await.unwrap();
    let (status, _) = bench
        .call(Method::GET, "/v1/payments", "", Value::Null)
        .await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let listed = bench.get("/v1/products?pageSize=100").await;
    assert_eq!(listed["products"].as_array().unwrap().len(), 61);
    let adjust = json!({"delta": -1, "reason": "breakage"});
    let stock = bench
        .post(&format!("/v1/stock/{SKU}:adjust"), "a", adjust)
        .await;
    assert_eq!(stock["onHand"], 239);
    bench.shop.start_payment().await.unwrap();
    assert_eq!(
        bench.buy("order-1", "pm_card_visa", "AUTOMATIC").await["state"],
        "SUCCEEDED"
    );
    bench.shop.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_come_in_at_the_edge_and_resolve_payments() {
    let bench = Bench::start(config()).await;
    for token in [
        "pm_card_webhook_late",
        "pm_card_webhook_duplicate",
        "pm_card_webhook_reordered",
    ] {
        let payment = bench.buy(token, token, "AUTOMATIC").await;
        let payment = bench.resolved(&id(&payment)).await;
        assert_eq!(payment["state"], "SUCCEEDED", "{payment}");
    }
    assert_eq!(bench.taken_minor().await, 3 * 36_000);
    bench.shop.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(config_in(folder.path())).await;
    let payment = id(&bench.buy("order-1", "pm_card_visa", "AUTOMATIC").await);
    let before = bench.get(&format!("/v1/payments/{payment}")).await;
    bench.shop.stop().await.unwrap();

    let bench = Bench::start(config_in(folder.path())).await;
    assert_eq!(bench.get(&format!("/v1/payments/{payment}")).await, before);
    assert_eq!(
        (bench.on_hand().await, bench.taken_minor().await),
        (238, 36_000)
    );
    assert!(bench.shop.has_sample());
    bench.shop.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_that_was_broken_off_is_completed_and_a_shop_without_one_gets_none() {
    let folder = tempfile::tempdir().unwrap();
    let bench = Bench::start(config_in(folder.path())).await;
    let listed = bench.get("/v1/products?pageSize=1").await;
    let newest = id(&listed["products"][0]);
    let deleted = bench
        .call(
            Method::DELETE,
            &format!("/v1/products/{newest}"),
            "d",
            Value::Null,
        )
        .await;
    assert_eq!(deleted.0, StatusCode::OK, "{}", deleted.1);
    bench.shop.stop().await.unwrap();

    for (state, expected) in [("loaded", 60), ("loading", 60)] {
        std::fs::write(folder.path().join("sample-catalogue"), state).unwrap();
        let bench = Bench::start(config_in(folder.path())).await;
        let listed = bench.get("/v1/products?pageSize=100").await;
        assert_eq!(
            listed["products"].as_array().unwrap().len(),
            expected,
            "{state}"
        );
        bench.shop.stop().await.unwrap();
    }

    let other = tempfile::tempdir().unwrap();
    for sample in [false, true] {
        let bench = Bench::start(Config {
            sample,
            ..config_in(other.path())
        })
        .await;
        let listed = bench.get("/v1/products").await;
        assert_eq!(listed["products"], json!([]), "sample = {sample}");
        bench.shop.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_needs_keys() {
    let everywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let options = Options::new(Config {
        listen: everywhere,
        sample: false,
        ..config()
    });
    let error = Shop::start(options).await.err().expect("refused");
    assert!(format!("{error:#}").contains("--insecure"), "{error:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_that_was_given_is_the_clock_of_every_part() {
    let clock = Clock::manual(1_700_000_000_000_000);
    let options = Options {
        clock,
        ..Options::new(config())
    };
    let shop = Shop::start(options).await.unwrap();
    let bench = Bench {
        shop,
        client: Client::builder().no_proxy().build().unwrap(),
    };
    let payment = bench.buy("order-1", "pm_card_visa", "AUTOMATIC").await;
    assert_eq!(payment["createTime"], "2023-11-14T22:13:20Z");
    bench.shop.stop().await.unwrap();
}
