//! Card numbers, keys, secrets and payment tokens through every field, parameter and header that the API documents, in a
//! shop whose log is turned up and whose spans are exported. Afterwards all that it keeps and told is searched: files,
//! log, events, spans.
//!
//! Fields are taken from the shop's own OpenAPI description, so that a new one is tried without a line here. The events
//! are what the outbox held, kept by a trigger that this test puts there. One file, for it is one test: what is planted
//! and what is searched are read together.

#[path = "../../../mesh/runtime/tests/one_trace/collector.rs"]
mod collector;

use std::fmt::Write as _;
use std::path::Path;

use collector::Collector;
use hmac::{Hmac, Mac as _};
use prost::Message as _;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tests::canaries::{Canary, Place, files, search};
use tests::eventually;
use tests::orders::{manual_order, order, with};
use tests::process::ShopProcess;
use tests::rest::Rest;
use xtask::servers::free_address;

/// Numbers that networks publish for tests; 13, 15 and 16 digits.
const CARDS: [&str; 3] = ["4000056655665556", "378734493671000", "4222222222222"];
const STRIPE_KEY: &str = "sk_live_canary51HqJ2eZvKYlo2C";
const STRIPE_WEBHOOK: &str = "whsec_canary8yTz0Qe1";
const TOSS_KEY: &str = "live_sk_canaryD5GePWvyJnrK0W0k6q8gLzN97Eoq";
const SIMULATOR_WEBHOOK: &str = "simulator-canary-bA7Kp2";
const OPERATOR_KEY: &str = "canary-key-of-the-house-x93Kd";
const CLIENT_KEY: &str = "canary-key-of-the-web-shop-p27Qm";
const STRANGER_KEY: &str = "canary-key-of-nobody-t55Wz";
/// A token that the simulator does not know.
const TOKEN: &str = "pm_canary_token_1LkJ92";
/// What must be found, so that a search that finds nothing has looked.
const CONTROL: &str = "CONTROL-ORDER-7341";

fn canaries() -> Vec<Canary> {
    let nowhere = |name, text: &str| Canary {
        name,
        text: text.to_owned(),
        allowed: &[],
    };
    let cards = CARDS.map(|card| nowhere("a card number", card));
    let secrets = [
        nowhere("Stripe's key", STRIPE_KEY),
        nowhere("the secret of Stripe's webhooks", STRIPE_WEBHOOK),
        nowhere("Toss's key", TOSS_KEY),
        nowhere("the secret of the simulator's webhooks", SIMULATOR_WEBHOOK),
        nowhere("the operator's API key", OPERATOR_KEY),
        nowhere("a client's API key", CLIENT_KEY),
        nowhere("an API key that is none", STRANGER_KEY),
    ];
    // A payment keeps its token and tells it in its events, and the provider has it; nobody else does.
    let token = Canary {
        name: "a payment token",
        text: TOKEN.to_owned(),
        allowed: &["payment.db", "simulator.db", "event"],
    };
    cards.into_iter().chain(secrets).chain([token]).collect()
}

fn config(keys: &Path) -> String {
    format!(
        r#"
        [telemetry]
        filter = "debug,payment=trace,product=trace,edge=trace,mesh=trace,mesh_events=trace,mesh_store=trace,standalone=trace"
        [edge.keys]
        file = "{}"
        [payment]
        worker_poll_ms = 50
        [payment.saga]
        pauses_max = 0
        provider_give_up_s = 1
        [[payment.routes]]
        currencies = ["EUR"]
        providers = [{{ name = "stripe" }}]
        [[payment.routes]]
        currencies = ["KRW"]
        providers = [{{ name = "toss" }}]
        [payment.stripe]
        url = "http://127.0.0.1:9"    # The port of discard: nobody answers, and the log says so.
        secret_key = "{STRIPE_KEY}"
        webhook_secrets = ["{STRIPE_WEBHOOK}"]
        [payment.toss]
        url = "http://127.0.0.1:9"
        secret_key = "{TOSS_KEY}"
        [simulator]
        webhook_secret = "{SIMULATOR_WEBHOOK}"
        "#,
        keys.display()
    )
}

fn key_file() -> String {
    let mut text = String::new();
    for (key, principal, scopes) in [
        (OPERATOR_KEY, "house", r#"["operator"]"#),
        (CLIENT_KEY, "web-shop", "[]"),
    ] {
        let hash = hex::encode(Sha256::digest(key));
        writeln!(
            text,
            "[[key]]\nprincipal = \"{principal}\"\nscopes = {scopes}\nsha256 = \"{hash}\""
        )
        .unwrap();
    }
    text
}

/// A field of a request: where it is, and its name or its path in the body.
enum Field {
    Path(String),
    Query(String),
    Header(String),
    Body(Vec<String>),
}

/// The texts that an operation takes.
fn fields(api: &Value, operation: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let name = parameter["name"].as_str().unwrap().to_owned();
        let schema = resolved(api, &parameter["schema"]);
        let item = if schema["type"] == "array" {
            resolved(api, &schema["items"])
        } else {
            schema
        };
        if is_text(item) {
            fields.push(match parameter["in"].as_str().unwrap() {
                "path" => Field::Path(name),
                "query" => Field::Query(name),
                _ => Field::Header(name),
            });
        }
    }
    let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
    texts(api, schema, &mut Vec::new(), &mut fields);
    fields
}

/// A number in a text is no free text; nor is a barcode, which is a number of up to 14 digits with a check digit.
fn is_text(schema: &Value) -> bool {
    schema["type"] == "string" && schema["enum"].is_null() && schema["format"] != "int64"
}

fn resolved<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    let name = schema["$ref"]
        .as_str()
        .and_then(|path| path.strip_prefix('#'));
    name.map_or(schema, |path| api.pointer(path).unwrap())
}

fn texts(api: &Value, schema: &Value, path: &mut Vec<String>, out: &mut Vec<Field>) {
    let schema = resolved(api, schema);
    if path.len() > 4 || path.last().is_some_and(|name| name == "barcode") {
        return;
    }
    if is_text(schema) {
        out.push(Field::Body(path.clone()));
    }
    if schema["type"] == "array" {
        path.push("0".to_owned());
        texts(api, &schema["items"], path, out);
        path.pop();
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        texts(api, schema, path, out);
        path.pop();
    }
}

/// A body that would be good but for the field.
fn body(path: &str, number: usize, payment: &str) -> Value {
    match path {
        "/v1/payments" => order(&format!("ORDER-{number}"), &[("MUG-1", 1)]),
        "/v1/products" => product(&format!("SKU-{number}")),
        path if path.ends_with("/refunds") => {
            json!({"amount": {"currencyCode": "USD", "amountMinor": "1"}})
        }
        _ => json!({"id": payment}),
    }
}

/// Puts a value at a path, with lists and objects on the way as they are needed.
fn put(value: &mut Value, path: &[String], text: &str) {
    let Some((first, rest)) = path.split_first() else {
        *value = text.into();
        return;
    };
    if first == "0" {
        if !value.is_array() {
            *value = json!([null]);
        }
        put(&mut value[0], rest, text);
    } else {
        if !value.is_object() {
            *value = json!({});
        }
        put(&mut value[first.as_str()], rest, text);
    }
}

fn product(sku: &str) -> Value {
    let price =
        |currency: &str, minor: &str| json!({"currencyCode": currency, "amountMinor": minor});
    json!({
        "title": format!("Thing {sku}"),
        "category": "Things",
        "variants": [{
            "sku": sku,
            "prices": [price("USD", "1250"), price("EUR", "1150"), price("KRW", "16000")],
            "initialQuantity": 5000,
        }],
    })
}

/// A canary in each field of each operation, one at a time; says in how many.
async fn through_every_field(rest: &Rest, payment: &str, product: &str, canary: &str) -> usize {
    let api = rest.get("/openapi.json").await.ok();
    let mut tried = 0;
    for (path, operations) in api["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            if path.ends_with(":watch") {
                continue; // Does not end; its parameters are those of the stream's first answer.
            }
            for field in fields(&api, operation) {
                tried += 1;
                let mut to = path.clone();
                if let Field::Path(name) = &field {
                    to = to.replace(&format!("{{{name}}}"), canary);
                }
                for (name, value) in [
                    ("id", payment),
                    ("paymentId", payment),
                    ("payment_id", payment),
                    ("sku", "MUG-1"),
                    ("provider", "stripe"),
                    ("eventId", "evt_1"),
                    ("event_id", "evt_1"),
                ] {
                    let value = if name == "id" && path.starts_with("/v1/products") {
                        product
                    } else {
                        value
                    };
                    to = to.replace(&format!("{{{name}}}"), value);
                }
                let mut request = rest.request(method.clone(), &to);
                if let Field::Query(name) = &field {
                    request = request.query(&[(name, canary)]);
                }
                if let Field::Header(name) = &field {
                    request = request.header(name, canary);
                }
                if !operation["requestBody"].is_null() {
                    let mut body = body(path, tried, payment);
                    if let Field::Body(at) = &field {
                        put(&mut body, at, canary);
                    }
                    request = request.json(&body);
                }
                let answer = rest.send(request).await.unwrap();
                assert!(
                    answer.status < 500 || answer.status == 503,
                    "{method} {to}: {}",
                    answer.text()
                );
            }
        }
    }
    tried
}

/// A canary in each header that clients, proxies and browsers send.
async fn through_every_header(rest: &Rest, canary: &str) {
    for name in [
        "accept",
        "accept-language",
        "baggage",
        "cookie",
        "content-type",
        "forwarded",
        "from",
        "grpc-timeout",
        "idempotency-key",
        "if-match",
        "origin",
        "referer",
        "stripe-signature",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-b3-traceid",
        "x-correlation-id",
        "x-forwarded-for",
        "x-principal",
        "x-real-ip",
        "x-request-id",
        "x-simulator-signature",
    ] {
        for (method, path) in [
            (Method::GET, "/v1/payments"),
            (Method::POST, "/v1/payments"),
            (Method::POST, "/v1/webhooks/stripe"),
        ] {
            let request = rest.request(method.clone(), path).header(name, canary);
            let request = if method == Method::POST {
                request.body("{}")
            } else {
                request
            };
            let answer = rest.send(request).await.unwrap();
            assert!(
                answer.status < 500,
                "{method} {path} with {name}: {}",
                answer.text()
            );
        }
    }
    let nobody = Rest::new(rest.base());
    for name in ["authorization", "x-api-key"] {
        for value in [canary.to_owned(), format!("Bearer {canary}")] {
            let request = nobody
                .request(Method::GET, "/v1/payments")
                .header(name, value);
            assert_eq!(nobody.send(request).await.unwrap().status, 401);
        }
    }
}

/// What is told in a body that is no JSON, in a name, and in a webhook that the provider has signed.
async fn where_no_field_is(rest: &Rest, canary: &str) {
    let json = format!("{{\"{canary}\": \"{canary}\", {canary}");
    let whole = json!({canary: canary});
    for body in [json, whole.to_string(), canary.to_owned()] {
        let request = rest
            .request(Method::POST, "/v1/payments")
            .header("content-type", "application/json");
        assert_eq!(rest.send(request.body(body)).await.unwrap().status, 400);
    }
    for path in [
        format!("/v1/{canary}"),
        format!("/v1/payments?{canary}={canary}"),
        format!("/v1/payments/{canary}:{canary}"),
    ] {
        assert!((400..500).contains(&rest.get(&path).await.status), "{path}");
    }
    let csv = format!(
        "Handle,Title,Variant SKU,Variant Price\n{canary},{canary},{canary},1.00\n{canary}\n"
    );
    let imported = rest.import("USD", csv.into_bytes()).await;
    assert!(imported.status < 500, "{}", imported.text());

    let event = json!({
        "id": format!("evt_{}", canary.len()),
        "type": "payment_intent.succeeded",
        "data": {"object": {"id": "pi_1", "object": "payment_intent", "metadata": {}, "card": {"number": canary}}},
    })
    .to_string();
    let now_s = mesh_runtime::Clock::system().now_us() / 1_000_000;
    for secret in [STRIPE_WEBHOOK, canary] {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{now_s}.{event}").as_bytes());
        let signature = format!("t={now_s},v1={}", hex::encode(mac.finalize().into_bytes()));
        let request = rest
            .request(Method::POST, "/v1/webhooks/stripe")
            .header("stripe-signature", signature);
        let answer = rest.send(request.body(event.clone())).await.unwrap();
        assert_eq!(
            answer.status,
            if secret == STRIPE_WEBHOOK { 200 } else { 401 },
            "{}",
            answer.text()
        );
    }
    for provider in ["simulator", "toss", canary] {
        let body = json!({"eventType": canary, "data": {"paymentKey": canary, "orderId": canary}})
            .to_string();
        let request = rest.request(Method::POST, &format!("/v1/webhooks/{provider}"));
        assert!(rest.send(request.body(body)).await.unwrap().status < 500);
    }
}

async fn open(data: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(data.join("payment.db"));
    options
        .busy_timeout(std::time::Duration::from_secs(10))
        .connect()
        .await
        .unwrap()
}

/// Keeps each event beside the outbox, which forgets what it has published.
async fn keep_events(data: &Path) {
    let mut database = open(data).await;
    for statement in [
        "CREATE TABLE events_kept AS SELECT kind, aggregate_id, traceparent, body FROM mesh_outbox",
        "CREATE TRIGGER events_are_kept AFTER INSERT ON mesh_outbox BEGIN INSERT INTO events_kept \
         SELECT NEW.kind, NEW.aggregate_id, NEW.traceparent, NEW.body; END",
    ] {
        sqlx::query(statement).execute(&mut database).await.unwrap();
    }
    database.close().await.unwrap();
}

/// The events as places, out of the file that they were kept in.
async fn events(data: &Path) -> Vec<Place> {
    let mut database = open(data).await;
    let kept = sqlx::query_as(
        "SELECT kind, aggregate_id || coalesce(traceparent, ''), body FROM events_kept",
    );
    let kept: Vec<(String, String, Vec<u8>)> = kept.fetch_all(&mut database).await.unwrap();
    database.close().await.unwrap();
    let place = |(kind, head, body): (String, String, Vec<u8>)| {
        Place::new(format!("event {kind}"), [head.into_bytes(), body].concat())
    };
    kept.into_iter().map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn canaries_are_found_nowhere() {
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let (keys, toml) = (
        folder.path().join("keys.toml"),
        folder.path().join("shop.toml"),
    );
    std::fs::write(&keys, key_file()).unwrap();
    std::fs::write(&toml, config(&keys)).unwrap();
    let listen = free_address().unwrap().to_string();
    let telling = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str())];
    let shop = ShopProcess::start_with(
        env!("CARGO_BIN_EXE_shop"),
        &data,
        &listen,
        &toml,
        &log,
        &telling,
    );
    let shop = shop.await.unwrap();
    keep_events(&data).await;
    let (house, client) = (
        shop.rest().with_api_key(OPERATOR_KEY),
        shop.rest().with_api_key(CLIENT_KEY),
    );

    // A shop that is used: purchases that go well and do not, at providers that answer and do not.
    let mug = house.post("/v1/products", &product("MUG-1")).await.ok();
    let bought = client
        .post("/v1/payments", &order(CONTROL, &[("MUG-1", 3)]))
        .await
        .ok();
    assert_eq!(bought["state"], "SUCCEEDED");
    let payment = bought["id"].as_str().unwrap();
    let by_token = with(order("TOKEN-1", &[("MUG-1", 1)]), "paymentMethod", TOKEN);
    let asked = client.post("/v1/payments", &by_token).await.ok();
    assert_eq!(asked["paymentMethod"], TOKEN, "it did reach the payment");
    client
        .post("/v1/payments", &manual_order("MANUAL-1", &[("MUG-1", 2)]))
        .await
        .ok();
    for currency in ["EUR", "KRW"] {
        let order = with(order(currency, &[("MUG-1", 1)]), "currencyCode", currency);
        client
            .post("/v1/payments", &with(order, "paymentMethod", TOKEN))
            .await
            .ok();
    }
    let refund =
        json!({"lines": [{"sku": "MUG-1", "quantity": 1}], "restock": true, "reason": "broken"});
    house
        .post(&format!("/v1/payments/{payment}/refunds"), &refund)
        .await
        .ok();

    let product = mug["id"].as_str().unwrap();
    for canary in CARDS.into_iter().chain([STRANGER_KEY]) {
        if canary != STRANGER_KEY {
            let tried = through_every_field(&house, payment, product, canary).await;
            assert!(tried > 60, "only {tried} fields");
            where_no_field_is(&house, canary).await;
        }
        let value = if canary == STRANGER_KEY {
            format!("Bearer {canary}")
        } else {
            canary.to_owned()
        };
        through_every_header(&house, &value).await;
    }
    eventually("what providers did not answer is given up", || async {
        let open = client
            .get("/v1/payments?filter=state%20%3D%20PROCESSING")
            .await
            .ok();
        open["payments"].as_array().unwrap().is_empty()
    })
    .await;
    let status = shop.interrupt().await;
    assert!(status.success(), "{status}");

    let (_, spans) = collector.received().await;
    let span = |span: &opentelemetry_proto::tonic::trace::v1::Span| {
        Place::new(format!("span {}", span.name), span.encode_to_vec())
    };
    let mut places = events(&data).await;
    places.extend(spans.iter().map(span));
    places.extend(files(&data).unwrap());
    places.push(Place::new("log", std::fs::read(&log).unwrap()));
    let canaries = canaries();
    let hits = search(&canaries, &places);
    assert!(hits.is_empty(), "{hits:#?}");

    it_has_looked(&places, payment);
    a_leak_is_found(&canaries, &places);
}

/// Where a canary would be, something harmless that went the same way is found.
fn it_has_looked(places: &[Place], payment: &str) {
    let control = |text: &str| {
        [Canary {
            name: "control",
            text: text.to_owned(),
            allowed: &[],
        }]
    };
    let order = search(&control(CONTROL), places);
    for place in [
        "payment.db: ",
        "simulator.db: ",
        "event payment.PaymentCreated.v1: ",
    ] {
        assert!(
            order.iter().any(|hit| hit.starts_with(place)),
            "not in {place}: {order:?}"
        );
    }
    let token = search(&control(TOKEN), places);
    assert!(
        token.iter().any(|hit| hit.starts_with("payment.db")),
        "{token:?}"
    );
    let payment = search(&control(payment), places);
    for place in [
        "product.db: ",
        "log: ",
        "event payment.PaymentCaptured.v1: ",
    ] {
        assert!(
            payment.iter().any(|hit| hit.starts_with(place)),
            "not in {place}: {payment:?}"
        );
    }
    assert!(
        places
            .iter()
            .any(|place| place.name.starts_with("span POST /v1/payments"))
    );
    assert!(
        places
            .iter()
            .any(|place| place.name.ends_with("PaymentService/CreatePayment"))
    );
}

/// Each canary, once in each kind of place, is a hit where it may not be.
fn a_leak_is_found(canaries: &[Canary], places: &[Place]) {
    for kind in [
        "payment.db",
        "product.db",
        "simulator.db",
        "log",
        "event ",
        "span ",
    ] {
        let place = places.iter().find(|place| place.name.starts_with(kind));
        let place = place.unwrap_or_else(|| panic!("no {kind}"));
        for canary in canaries {
            let mut leaking = place.clone();
            let middle = leaking.bytes.len() / 2;
            leaking.bytes.splice(middle..middle, canary.text.bytes());
            let hits = search(std::slice::from_ref(canary), &[leaking]);
            let allowed = canary
                .allowed
                .iter()
                .any(|begin| place.name.starts_with(begin));
            assert_eq!(
                hits.len(),
                usize::from(!allowed),
                "{} in {kind}",
                canary.name
            );
        }
    }
}
