//! The protocol as its documentation has it, spoken without the client.

use crate::far::{Far, KEY, VISA, authorize, client, is_unavailable};
use payment::provider::Provider as _;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

struct Caller {
    http: Client,
    far: Far,
}

impl Caller {
    async fn new() -> Self {
        let http = Client::builder().no_proxy().build().unwrap();
        let far = Far::new().await;
        Self { http, far }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: impl Into<String>,
    ) -> (StatusCode, Value) {
        let request = self
            .http
            .request(method, format!("{}{path}", self.far.url()))
            .bearer_auth(KEY)
            .body(body.into());
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap())
    }

    async fn refused(
        &self,
        method: Method,
        path: &str,
        body: impl Into<String>,
    ) -> (u16, String, String) {
        let (status, answer) = self.call(method, path, body).await;
        let text = |name: &str| answer["error"][name].as_str().unwrap().to_owned();
        (status.as_u16(), text("code"), text("message"))
    }
}

fn charge(reference: &str) -> Value {
    json!({
        "reference": reference,
        "amount": {"currency_code": "USD", "amount_minor": 1000},
        "payment_method": VISA,
        "order_ref": "order-1",
        "capture": true,
    })
}

#[tokio::test]
async fn the_documented_calls_answer_as_documented() {
    let caller = Caller::new().await;
    let done = |method, path: &'static str, body: Value| {
        let caller = &caller;
        async move {
            let body = if body.is_null() {
                String::new()
            } else {
                body.to_string()
            };
            let (status, answer) = caller.call(method, path, body).await;
            assert_eq!(status, StatusCode::OK, "{path}: {answer}");
            answer
        }
    };
    let capabilities = done(Method::GET, "/v1/capabilities", Value::Null).await;
    assert_eq!(capabilities["manual_capture"], true);
    let captured = json!({"charge": {"state": "captured", "provider_ref": "sim_charge_att_1"}});
    assert_eq!(
        done(Method::POST, "/v1/charges", charge("att_1")).await,
        captured
    );
    assert_eq!(
        done(Method::GET, "/v1/charges/att_1", Value::Null).await,
        captured
    );
    let absent = done(Method::GET, "/v1/charges/att_9", Value::Null).await;
    assert_eq!(absent, json!({"charge": null}));
    let refund = json!({"reference": "re_1", "charge_reference": "att_1",
        "amount": {"currency_code": "USD", "amount_minor": 300}});
    let refunded = json!({"settlement": {"state": "done", "provider_ref": "sim_refund_re_1"}});
    assert_eq!(done(Method::POST, "/v1/refunds", refund).await, refunded);
    assert_eq!(
        done(Method::GET, "/v1/settlements/re_1", Value::Null).await,
        refunded
    );
    let page = done(Method::GET, "/v1/transactions", Value::Null).await;
    let kinds: Vec<_> = page["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["kind"])
        .collect();
    assert_eq!(kinds, ["capture", "refund"]);
    assert_eq!(page["next"], Value::Null);
    let rest = done(Method::GET, "/v1/transactions?from=1", Value::Null).await;
    assert_eq!(rest["transactions"][0], page["transactions"][1]);
}

#[tokio::test]
async fn a_mistake_is_named_and_nothing_is_done() {
    let caller = Caller::new().await;
    let post = |body: String| caller.refused(Method::POST, "/v1/charges", body);
    for (body, named) in [
        ("not JSON".to_owned(), "expected"),
        ("{}".to_owned(), "reference"),
        (
            charge("att_1").to_string().replace("order_ref", "order"),
            "order",
        ),
        (
            charge("att_1").to_string().replace("1000", "\"1000\""),
            "invalid type",
        ),
        (
            charge("att_1").to_string().replace("USD", "XXY"),
            "amount.currency_code",
        ),
    ] {
        let (status, code, message) = post(body).await;
        assert_eq!((status, code.as_str()), (400, "INVALID_REQUEST"));
        assert!(message.contains(named), "{named}: {message}");
    }
    let (status, code, _) = post(" ".repeat(16 * 1024 + 1)).await;
    assert_eq!((status, code.as_str()), (413, "BODY_TOO_LARGE"));
    let (status, code, _) = post(charge("att_1").to_string().replace(VISA, "pm_card_x")).await;
    assert_eq!((status, code.as_str()), (422, "PAYMENT_METHOD_UNKNOWN"));
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/v1/charges"),
        (Method::DELETE, "/v1/charges/att_1"),
        (Method::POST, "/v2/charges"),
        (Method::GET, "/v1/charges/att_1/more"),
    ] {
        let (status, code, message) = caller.refused(method, path, "").await;
        assert_eq!((status, code.as_str()), (404, "NO_SUCH_CALL"));
        assert!(message.ends_with(path), "{message}");
    }
    assert_eq!(caller.far.simulator.look_up_charge("att_1").await, Ok(None));
}

#[tokio::test]
async fn what_is_to_go_wrong_is_told_while_it_runs() {
    let caller = Caller::new().await;
    let told = json!({"commands": {"seed": 3, "unavailable": 1.0}, "webhooks": {"lost": 0.5}});
    let (status, answer) = caller
        .call(Method::PUT, "/v1/faults", told.to_string())
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(answer["commands"]["unavailable"], 1.0);
    assert_eq!(answer["webhooks"]["lost"], 0.5);
    let charge = || charge("att_1").to_string();
    let (status, code, _) = caller.refused(Method::POST, "/v1/charges", charge()).await;
    assert_eq!((status, code.as_str()), (503, "UNAVAILABLE"));
    for (wrong, named) in [
        (json!({"commands": {"late": 2.0}}), "commands.late"),
        (json!({"webhooks": {"late": 0.7, "lost": 0.7}}), "webhooks"),
        (json!({"charges": {}}), "charges"),
    ] {
        let refused = caller
            .refused(Method::PUT, "/v1/faults", wrong.to_string())
            .await;
        assert_eq!((refused.0, refused.1.as_str()), (400, "INVALID_REQUEST"));
        assert!(refused.2.contains(named), "{named}: {}", refused.2);
    }
    let (status, ..) = caller.refused(Method::POST, "/v1/charges", charge()).await;
    assert_eq!(status, 503, "what was refused has changed nothing");
    let (status, _) = caller.call(Method::PUT, "/v1/faults", "{}").await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = caller.call(Method::POST, "/v1/charges", charge()).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn without_the_key_nothing_is_done() {
    let caller = Caller::new().await;
    let url = format!("{}/v1/charges", caller.far.url());
    for key in [None, Some(""), Some("sim_kez"), Some("sim_key_")] {
        let mut request = caller.http.post(&url).body(charge("att_1").to_string());
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["code"], "UNAUTHENTICATED");
    }
    // A wrong key is not the customer's fault: no card was declined.
    let remote = client(&caller.far.url(), "sim_kez", &caller.far.config);
    let answer = remote.authorize(&authorize("att_1", VISA)).await;
    assert!(is_unavailable(&answer), "{answer:?}");
    assert_eq!(caller.far.simulator.look_up_charge("att_1").await, Ok(None));
}
