//! What clients get wrong: each is answered by a 4xx that names what is wrong, and leaves no trace.

mod bodies;
mod payments;
mod products;
mod questions;

use reqwest::Method;
use serde_json::Value;
use tests::orders::{order, put_on_sale, with};
use tests::rest::{Answer, Rest};
use tests::shop::Shop;

/// One bad request. `names` are the words of which the answer must have one.
struct Case {
    what: String,
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    status: u16,
    names: &'static str,
}

const JSON: (&str, &str) = ("content-type", "application/json");

const PAYMENTS: &str = "/v1/payments";

/// A good order with one field changed.
fn changed(field: &str, value: Value) -> Value {
    with(order("A", &[("MUG-1", 1)]), field, value)
}

/// What the shop holds while it is asked for nonsense.
struct Stage {
    product: String,
    paid: String,
    next_page: String,
}

impl Stage {
    async fn set(rest: &Rest) -> Stage {
        let product = put_on_sale(rest, "MUG-1", 1250, 10).await;
        put_on_sale(rest, "CUP-1", 900, 10).await;
        let paid = rest
            .post("/v1/payments", &order("PAID", &[("MUG-1", 2)]))
            .await
            .ok();
        let page = rest.get("/v1/products?pageSize=1").await.ok();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Stage {
            product: text(&product["id"]),
            paid: text(&paid["id"]),
            next_page: text(&page["nextPageToken"]),
        }
    }
}

fn case(method: Method, path: &str, body: Vec<u8>, status: u16, names: &'static str) -> Case {
    let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
    let what = format!("{method} {} {shown}", &path[..path.len().min(200)]);
    let headers = if body.is_empty() {
        vec![]
    } else {
        vec![(JSON.0, JSON.1.to_owned())]
    };
    Case {
        what,
        method,
        path: path.to_owned(),
        headers,
        body,
        status,
        names,
    }
}

fn get(path: &str, status: u16, names: &'static str) -> Case {
    case(Method::GET, path, Vec::new(), status, names)
}

fn post(path: &str, body: &Value, status: u16, names: &'static str) -> Case {
    case(
        Method::POST,
        path,
        body.to_string().into_bytes(),
        status,
        names,
    )
}

fn raw(path: &str, body: &[u8], status: u16, names: &'static str) -> Case {
    case(Method::POST, path, body.to_vec(), status, names)
}

impl Case {
    fn header(mut self, name: &'static str, value: &str) -> Case {
        self.headers.retain(|(given, _)| *given != name);
        self.headers.push((name, value.to_owned()));
        self.what = format!(
            "{} with {name}: {}",
            self.what,
            &value[..value.len().min(40)]
        );
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_by_name_and_leaves_no_trace() {
    let shop = Shop::start().await;
    let stage = Stage::set(shop.rest()).await;
    shop.drain_events().await;
    let before = shop.row_counts().await;
    let mut cases = Vec::new();
    cases.extend(bodies::that_are_not_json());
    cases.extend(bodies::with_wrong_fields());
    cases.extend(bodies::with_wrong_values());
    cases.extend(payments::with_bad_references());
    cases.extend(payments::with_bad_items());
    cases.extend(payments::with_bad_terms());
    cases.extend(payments::commands(&stage));
    cases.extend(products::all(&stage));
    cases.extend(questions::about_products(&stage));
    cases.extend(questions::about_the_rest());
    cases.extend(questions::routes(&stage));
    assert!(cases.len() >= 60, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let answer = ask(shop.rest(), case).await;
        if let Some(failure) = judge(case, &answer) {
            failures.push(failure);
        }
    }
    println!("{} cases, {} failures", cases.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    shop.drain_events().await;
    assert_eq!(
        shop.row_counts().await,
        before,
        "a refused request left something behind"
    );
    shop.close().await;
}

async fn ask(rest: &Rest, case: &Case) -> Answer {
    let mut request = rest.request(case.method.clone(), &case.path);
    for (name, value) in &case.headers {
        request = request.header(*name, value);
    }
    let answer = rest.send(request.body(case.body.clone())).await;
    answer.unwrap_or_else(|error| panic!("{}: {error:?}", case.what))
}

fn judge(case: &Case, answer: &Answer) -> Option<String> {
    let text = answer.text();
    let said = text.to_lowercase();
    let named = case
        .names
        .split('|')
        .any(|name| said.contains(&name.to_lowercase()));
    let structured = serde_json::from_slice::<Value>(&answer.body)
        .is_ok_and(|error| error["message"].is_string() || error["error"]["message"].is_string());
    let right = answer.status == case.status && named && structured;
    (!right).then(|| {
        format!(
            "{}\n    expected {} naming {}, got {} {text}",
            case.what, case.status, case.names, answer.status
        )
    })
}
