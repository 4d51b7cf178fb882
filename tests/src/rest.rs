//! A client of the REST edge as a customer of the shop would write it: JSON, bytes and headers, and no type
//! of the services.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use uuid::Uuid;

/// Longer than any call may take, so that a shop that hangs fails its test instead of hanging it.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// Calls one shop, with or without an API key. Cheap to clone.
#[derive(Clone)]
pub struct Rest {
    base: String,
    api_key: Option<String>,
    client: Client,
    answered: Arc<Mutex<Answered>>,
}

/// What was answered to which key, and where that was contradicted later.
#[derive(Default)]
struct Answered {
    first: BTreeMap<(Option<String>, String, String, String), Vec<u8>>,
    contradictions: Vec<String>,
}

/// What the shop answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

impl Rest {
    /// Calls the shop at `base`, such as `http://127.0.0.1:8080`.
    pub fn new(base: impl Into<String>) -> Rest {
        let client = Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .build()
            .expect("a client without TLS needs nothing that could fail");
        Rest {
            base: base.into(),
            api_key: None,
            client,
            answered: Arc::default(),
        }
    }

    /// The same shop, called with this API key.
    #[must_use]
    pub fn with_api_key(&self, key: &str) -> Rest {
        Rest {
            api_key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    /// Where the shop is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// A request to be filled in and handed to [`Rest::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends a request. The error is one of transport: nobody answered.
    pub async fn send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.must(self.request(Method::GET, path)).await
    }

    /// POST of JSON under an idempotency key of its own.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_once(path, &Uuid::now_v7().to_string(), body)
            .await
    }

    /// POST of JSON under the given idempotency key.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Answer {
        let answer = self.must(self.keyed(path, key, body)).await;
        self.remember(path, key, body, &answer);
        answer
    }

    /// POST of JSON to a shop that may be killed meanwhile.
    pub async fn try_post(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<Answer> {
        let answer = self.send(self.keyed(path, key, body)).await?;
        self.remember(path, key, body, &answer);
        Ok(answer)
    }

    /// The same shop at another address, after a restart.
    #[must_use]
    pub fn moved_to(&self, base: &str) -> Rest {
        Rest {
            base: base.to_owned(),
            ..self.clone()
        }
    }

    /// Keys that got two different answers for the same request: that must never happen.
    pub fn contradictions(&self) -> Vec<String> {
        self.answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contradictions
            .clone()
    }

    fn remember(&self, path: &str, key: &str, body: &Value, answer: &Answer) {
        if answer.status != 200 {
            return; // Only an answer is repeated; an error may turn into one.
        }
        let mut answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (
            self.api_key.clone(),
            path.to_owned(),
            key.to_owned(),
            body.to_string(),
        );
        let first = answered
            .first
            .entry(id)
            .or_insert_with(|| answer.body.clone());
        if *first != answer.body {
            let first = String::from_utf8_lossy(first).into_owned();
            answered
                .contradictions
                .push(format!("key {key}: {first} and then {}", answer.text()));
        }
    }

    fn keyed(&self, path: &str, key: &str, body: &Value) -> RequestBuilder {
        self.request(Method::POST, path)
            .header("Idempotency-Key", key)
            .json(body)
    }

    /// PATCH of JSON.
    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.must(self.request(Method::PATCH, path).json(body))
            .await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.must(self.request(Method::DELETE, path)).await
    }

    /// POST of a product CSV.
    pub async fn import(&self, currency_code: &str, csv: Vec<u8>) -> Answer {
        let path = format!("/v1/products:import?currencyCode={currency_code}");
        let request = self.request(Method::POST, &path);
        let request = request.header("Content-Type", "text/csv");
        self.must(request.timeout(Duration::from_mins(5)).body(csv))
            .await
    }

    /// All entries of a list, page by page; `path` has a query already.
    pub async fn list(&self, path: &str, entries: &str) -> Vec<Value> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let page = self
                .get(&format!("{path}&pageToken={page_token}"))
                .await
                .ok();
            all.extend(page[entries].as_array().cloned().unwrap_or_default());
            match page["nextPageToken"].as_str() {
                Some(next) if !next.is_empty() => next.clone_into(&mut page_token),
                _ => return all,
            }
        }
    }

    async fn must(&self, request: RequestBuilder) -> Answer {
        self.send(request)
            .await
            .unwrap_or_else(|error| panic!("the shop does not answer: {error:?}"))
    }
}

impl Answer {
    /// The body of a success; anything else fails the test and shows the answer.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The body, which must be JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(HeaderValue::to_str)?.ok()
    }

    /// Whether this answer was given before.
    pub fn replayed(&self) -> bool {
        self.header("idempotency-replayed") == Some("true")
    }

    /// The `reason` of the `google.rpc.ErrorInfo` in an error's details.
    pub fn reason(&self) -> Option<String> {
        let error: Value = serde_json::from_slice(&self.body).ok()?;
        let reasons = details(&error)?
            .iter()
            .filter_map(|detail| detail["reason"].as_str());
        reasons.map(str::to_owned).next()
    }
}

/// The details of an error, whether the status is the body or its `error`.
fn details(error: &Value) -> Option<&Vec<Value>> {
    error["details"]
        .as_array()
        .or_else(|| error["error"]["details"].as_array())
}

/// Percent-encodes a query value.
pub fn query(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("a String takes everything"),
        }
    }
    encoded
}

/// Minor units of an amount in JSON; 0 where there is none.
#[track_caller]
pub fn minor(money: &Value) -> i64 {
    match money["amountMinor"].as_str() {
        Some(digits) => digits.parse().expect("amountMinor is an int64"),
        None => 0,
    }
}

/// A whole number in JSON, which writes int64 as a string and int32 as a number; 0 where there is none.
#[track_caller]
pub fn whole(value: &Value) -> i64 {
    match value {
        Value::String(digits) => digits.parse().expect("a whole number"),
        Value::Number(number) => number.as_i64().expect("a whole number"),
        Value::Null => 0,
        other => panic!("{other} is no number"),
    }
}
