//! A stand-in for Toss Payments that keeps its documented rules: the amount must be the one that the customer agreed
//! to, a key is confirmed once, an idempotency key answers the same again, and nothing is canceled twice.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// `Basic` of `test_sk_1:`.
const AUTHORIZATION: &str = "Basic dGVzdF9za18xOg==";

type Answer = (u16, Value);

#[derive(Default)]
struct Books {
    /// Payments by key, as Toss shows them.
    payments: BTreeMap<String, Value>,
    /// Answers by idempotency key.
    answers: BTreeMap<String, Answer>,
    /// What the next confirmation answers instead, and whether it is carried out all the same.
    next: Option<(Answer, bool)>,
    confirmations: usize,
    /// Lines of the settlements.
    settled: Vec<Value>,
    /// Transactions, and from when on they were asked for.
    booked: Vec<Value>,
    starts: Vec<String>,
}

/// The stand-in; it ends with the runtime of its test.
#[derive(Clone, Default)]
pub(crate) struct StandIn(Arc<Mutex<Books>>);

impl StandIn {
    /// Starts it; the URL is where it listens.
    pub(crate) async fn start() -> (Self, String) {
        let toss = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/v1/payments/confirm", post(confirm))
            .route("/v1/payments/{key}", get(by_key))
            .route("/v1/payments/orders/{order}", get(by_order))
            .route("/v1/payments/{key}/cancel", post(cancel))
            .route("/v1/settlements", get(settlements))
            .route("/v1/transactions", get(transactions))
            .with_state(toss.clone());
        mesh::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (toss, url)
    }

    /// A customer has agreed to pay in Toss's window.
    pub(crate) fn agreed(&self, key: &str, order: &str, amount: i64) {
        let payment = json!({
            "paymentKey": key, "orderId": order, "status": "IN_PROGRESS", "currency": "KRW",
            "totalAmount": amount, "balanceAmount": amount, "cancels": null, "failure": null,
        });
        self.books().payments.insert(key.to_owned(), payment);
    }

    /// The bank tells of a payment: a deposit came, or its time is over.
    pub(crate) fn becomes(&self, key: &str, status: &str) {
        self.books().payments.get_mut(key).unwrap()["status"] = status.into();
    }

    /// The next confirmation is answered so; `done`: it takes the money all the same.
    pub(crate) fn next_confirmation(&self, status: u16, code: &str, done: bool) {
        self.books().next = Some((no(status, code), done));
    }

    /// How often money was taken.
    pub(crate) fn confirmations(&self) -> usize {
        self.books().confirmations
    }

    /// What is left of a payment.
    pub(crate) fn balance(&self, key: &str) -> i64 {
        self.books().payments[key]["balanceAmount"]
            .as_i64()
            .unwrap()
    }

    /// A line of the settlements, by the day on which it is paid out.
    pub(crate) fn settled(&self, key: &str, order: &str, amount: i64, part: i64, day: &str) {
        self.books().settled.push(json!({
            "mId": "tosspayments", "paymentKey": "key", "transactionKey": key, "orderId": order, "currency": "KRW",
            "method": "카드", "amount": amount, "interestFee": 0,
            "fees": [{"type": "BASE", "fee": amount - part}], "payOutAmount": part,
            "approvedAt": "2023-11-10T10:00:00+09:00", "soldDate": "2023-11-10", "paidOutDate": day,
        }));
    }

    /// A transaction as Toss lists it.
    pub(crate) fn booked(&self, key: &str, order: &str, status: &str, amount: i64) {
        self.books().booked.push(json!({
            "mId": "tosspayments", "transactionKey": key, "paymentKey": "key", "orderId": order, "method": "카드",
            "status": status, "transactionAt": "2023-11-14T10:00:00+09:00", "currency": "KRW", "amount": amount,
        }));
    }

    /// From when on transactions were asked for.
    pub(crate) fn starts(&self) -> Vec<String> {
        self.books().starts.clone()
    }

    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }

    fn find(&self, wanted: impl Fn(&Value) -> bool) -> Answer {
        let books = self.books();
        // The latest payment of an order: keys sort by the time that tests give them.
        let found = books.payments.values().rfind(|payment| wanted(payment));
        found.map_or_else(
            || no(404, "NOT_FOUND_PAYMENT"),
            |payment| (200, payment.clone()),
        )
    }
}

fn no(status: u16, code: &str) -> Answer {
    (status, json!({"code": code, "message": "정확한 이유"}))
}

fn respond((status, body): Answer) -> Response {
    (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response()
}

/// Answers a command once for each idempotency key.
async fn command(
    toss: &StandIn,
    request: Request<Body>,
    carry_out: impl FnOnce(&mut Books, &Value) -> Answer,
) -> Response {
    let (parts, body) = request.into_parts();
    if !is_ours(&parts.headers) {
        return respond(no(401, "UNAUTHORIZED_KEY"));
    }
    let body: Value = serde_json::from_slice(&to_bytes(body, 1 << 20).await.unwrap()).unwrap();
    let key = parts.headers["idempotency-key"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!((1..=300).contains(&key.len()), "Toss takes 300 characters");
    let mut books = toss.books();
    if let Some(known) = books.answers.get(&key) {
        return respond(known.clone());
    }
    let answer = carry_out(&mut books, &body);
    books.answers.insert(key, answer.clone());
    respond(answer)
}

fn is_ours(headers: &HeaderMap) -> bool {
    headers
        .get("authorization")
        .is_some_and(|value| value == AUTHORIZATION)
}

async fn confirm(State(toss): State<StandIn>, request: Request<Body>) -> Response {
    command(&toss, request, |books, body| {
        let told = books.next.take();
        if let Some((answer, false)) = told {
            return answer;
        }
        let order = body["orderId"].as_str().unwrap();
        assert!(
            (6..=64).contains(&order.len()),
            "Toss takes 6 to 64 characters"
        );
        let key = body["paymentKey"].as_str().unwrap();
        let Some(payment) = books.payments.get_mut(key) else {
            return no(404, "NOT_FOUND_PAYMENT_SESSION");
        };
        if payment["orderId"] != body["orderId"] || payment["totalAmount"] != body["amount"] {
            return no(400, "INVALID_REQUEST");
        }
        if payment["status"] != "IN_PROGRESS" {
            return no(400, "ALREADY_PROCESSED_PAYMENT");
        }
        let deposit = key.starts_with("vbank");
        payment["status"] = if deposit {
            "WAITING_FOR_DEPOSIT"
        } else {
            "DONE"
        }
        .into();
        let payment = payment.clone();
        books.confirmations += 1;
        told.map_or((200, payment), |(answer, _)| answer)
    })
    .await
}

async fn cancel(
    State(toss): State<StandIn>,
    Path(key): Path<String>,
    request: Request<Body>,
) -> Response {
    command(&toss, request, |books, body| {
        let Some(payment) = books.payments.get_mut(&key) else {
            return no(404, "NOT_FOUND_PAYMENT");
        };
        let balance = payment["balanceAmount"].as_i64().unwrap();
        if balance == 0 {
            return no(400, "ALREADY_CANCELED_PAYMENT");
        }
        let amount = body["cancelAmount"].as_i64().unwrap_or(balance);
        if amount > balance {
            return no(403, "NOT_CANCELABLE_AMOUNT");
        }
        let left = balance - amount;
        payment["balanceAmount"] = left.into();
        payment["status"] = if left == 0 {
            "CANCELED"
        } else {
            "PARTIAL_CANCELED"
        }
        .into();
        let mut cancels = payment["cancels"].as_array().cloned().unwrap_or_default();
        cancels.push(json!({
            "cancelReason": body["cancelReason"], "cancelAmount": amount,
            "transactionKey": format!("txn_{}", cancels.len() + 1),
        }));
        payment["cancels"] = cancels.into();
        (200, payment.clone())
    })
    .await
}

async fn by_key(State(toss): State<StandIn>, Path(key): Path<String>) -> Response {
    respond(toss.find(|payment| payment["paymentKey"] == key.as_str()))
}

async fn by_order(State(toss): State<StandIn>, Path(order): Path<String>) -> Response {
    respond(toss.find(|payment| payment["orderId"] == order.as_str()))
}

type Asked = Query<BTreeMap<String, String>>;

async fn settlements(State(toss): State<StandIn>, Query(asked): Asked) -> Response {
    assert_eq!(asked["dateType"], "paidOutDate");
    let (page, size): (usize, usize) = (
        asked["page"].parse().unwrap(),
        asked["size"].parse().unwrap(),
    );
    let (start, end) = (asked["startDate"].as_str(), asked["endDate"].as_str());
    assert!(start.len() == 10 && end.len() == 10, "days");
    let books = toss.books();
    let within = books.settled.iter().filter(|line| {
        let day = line["paidOutDate"].as_str().unwrap();
        (start..=end).contains(&day)
    });
    let lines: Vec<&Value> = within.skip((page - 1) * size).take(size).collect();
    respond((200, json!(lines)))
}

async fn transactions(State(toss): State<StandIn>, Query(asked): Asked) -> Response {
    let mut books = toss.books();
    books.starts.push(asked["startDate"].clone());
    let limit: usize = asked["limit"].parse().unwrap();
    let after = asked.get("startingAfter");
    let first = after.map_or(0, |key| {
        let place = books
            .booked
            .iter()
            .position(|one| one["transactionKey"] == key.as_str());
        place.unwrap() + 1
    });
    let page: Vec<&Value> = books.booked.iter().skip(first).take(limit).collect();
    respond((200, json!(page)))
}
