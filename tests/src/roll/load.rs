//! Customers in an open loop: requests come at their rate, whatever becomes of those before. None is repeated.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Client, Method, RequestBuilder, redirect, retry};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::orders::order;

/// One request in so many is a purchase.
pub const PURCHASE_EVERY: u64 = 20;
/// Failures that are kept in words.
const FAILURES_MAX: usize = 20;
/// Longer than anything may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests at a time; further ones fail, for a shop that far behind has failed.
const IN_FLIGHT_MAX: usize = 2_000;
/// What customers look at and buy.
const SKU: &str = "ROLL-1";
const STOCK: u32 = 10_000_000;

/// What was asked, and what became of it.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// All requests.
    pub requests: u64,
    /// Purchases among them.
    pub purchases: u64,
    /// Those that were not answered as they should be.
    pub failed: u64,
    /// The first of those in words.
    pub failures: Vec<String>,
    latencies_us: Vec<u64>,
}

impl Tally {
    /// The latency below which so many of a hundred requests were, in milliseconds.
    pub fn percentile_ms(&self, percent: usize) -> f64 {
        let mut ascending = self.latencies_us.clone();
        ascending.sort_unstable();
        let last = ascending.len().saturating_sub(1);
        let place = (ascending.len() * percent / 100).min(last);
        let microseconds = ascending.get(place).copied().unwrap_or(0);
        Duration::from_micros(microseconds).as_secs_f64() * 1e3
    }

    /// Takes what another has counted.
    pub fn add(&mut self, other: Tally) {
        self.requests += other.requests;
        self.purchases += other.purchases;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(FAILURES_MAX);
        self.latencies_us.extend(other.latencies_us);
    }

    fn count(&mut self, is_purchase: bool, took: Duration, outcome: Result<(), String>) {
        self.requests += 1;
        self.purchases += u64::from(is_purchase);
        self.latencies_us
            .push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if let Err(why) = outcome {
            self.failed += 1;
            if self.failures.len() < FAILURES_MAX {
                self.failures.push(why);
            }
        }
    }
}

/// Customers at work.
pub struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    requests: TaskTracker,
}

struct Shared {
    client: Client,
    url: String,
    product: String,
    tally: Mutex<Tally>,
    /// A payment to look at.
    payment: Mutex<String>,
    answered: Notify,
}

impl Load {
    /// Puts something on sale and lets customers in, in the background of this runtime.
    pub async fn start(url: &str, rate: u32) -> anyhow::Result<Load> {
        let client = Client::builder()
            .timeout(ANSWER_TIMEOUT)
            .retry(retry::never())
            .redirect(redirect::Policy::none())
            .build()?;
        let product = json!({
            "title": "Mug", "category": "Things", "variants": [{
                "sku": format!("{SKU}-{}", Uuid::now_v7().simple()), "initialQuantity": STOCK,
                "prices": [{"currencyCode": "USD", "amountMinor": "1250"}],
            }],
        });
        let created = client.post(format!("{url}/v1/products")).json(&product);
        let created: Value = created.send().await?.error_for_status()?.json().await?;
        let id = created["id"].as_str().context("a product has an id")?;
        let sku = product["variants"][0]["sku"].as_str().unwrap_or_default();
        let shared = Arc::new(Shared {
            client,
            url: url.to_owned(),
            product: id.to_owned(),
            tally: Mutex::default(),
            payment: Mutex::default(),
            answered: Notify::new(),
        });
        let load = Load {
            shared,
            stop: CancellationToken::new(),
            requests: TaskTracker::new(),
        };
        let (stop, requests, shared) = (
            load.stop.clone(),
            load.requests.clone(),
            load.shared.clone(),
        );
        let sku = sku.to_owned();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        // A runtime that is late makes up for it: the rate is the customers' own.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        load.requests.spawn(async move {
            let mut number = 0_u64;
            while stop.run_until_cancelled(ticks.tick()).await.is_some() {
                number += 1;
                if requests.len() > IN_FLIGHT_MAX {
                    let late = format!("more than {IN_FLIGHT_MAX} requests at a time");
                    shared.lock().count(false, Duration::ZERO, Err(late));
                    continue;
                }
                let (shared, sku) = (shared.clone(), sku.clone());
                requests.spawn(async move { shared.ask(number, &sku).await });
            }
        });
        Ok(load)
    }

    /// What was counted since the last time.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.shared.lock())
    }

    /// Waits until so many more requests were answered.
    pub async fn answered(&self, count: u64) {
        for _ in 0..count {
            self.shared.answered.notified().await;
        }
    }

    /// Lets everybody finish; what was counted since the last time.
    pub async fn finish(self) -> Tally {
        self.stop.cancel();
        self.requests.close();
        self.requests.wait().await;
        self.take()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, number: u64, sku: &str) {
        let is_purchase = number.is_multiple_of(PURCHASE_EVERY);
        let started = Instant::now();
        let outcome = if is_purchase {
            self.buy(number, sku).await
        } else {
            self.look(number, sku).await
        };
        self.lock().count(is_purchase, started.elapsed(), outcome);
        self.answered.notify_one();
    }

    async fn buy(&self, number: u64, sku: &str) -> Result<(), String> {
        let key = Uuid::now_v7().to_string();
        let order = order(&format!("ROLL-{number}-{key}"), &[(sku, 1)]);
        let request = self.request(Method::POST, "/v1/payments");
        let paid = answer(request.header("Idempotency-Key", key).json(&order)).await?;
        if paid["state"] != "SUCCEEDED" {
            return Err(format!("a purchase ended so: {paid}"));
        }
        let id = paid["id"].as_str().unwrap_or_default().to_owned();
        *self.payment.lock().unwrap_or_else(PoisonError::into_inner) = id;
        Ok(())
    }

    async fn look(&self, number: u64, sku: &str) -> Result<(), String> {
        let payment = self
            .payment
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let path = match number % 3 {
            0 if !payment.is_empty() => format!("/v1/payments/{payment}"),
            1 => format!("/v1/stock/{sku}"),
            _ => format!("/v1/products/{}", self.product),
        };
        answer(self.request(Method::GET, &path)).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }
}

/// The body of a success; else what went wrong, in words.
async fn answer(request: RequestBuilder) -> Result<Value, String> {
    let sent = async {
        let response = request.send().await?;
        let (status, url) = (response.status(), response.url().path().to_owned());
        Ok((status, url, response.bytes().await?))
    };
    let sent: reqwest::Result<_> = sent.await;
    let (status, url, body) = sent.map_err(|error| format!("{:#}", anyhow::Error::new(error)))?;
    if !status.is_success() {
        return Err(format!(
            "{status} {url}: {}",
            String::from_utf8_lossy(&body)
        ));
    }
    serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_counted_and_told() {
        let mut tally = Tally::default();
        for milliseconds in 1..=100 {
            tally.count(
                milliseconds == 1,
                Duration::from_millis(milliseconds),
                Ok(()),
            );
        }
        let mut other = Tally::default();
        other.count(true, Duration::from_secs(1), Err("503".to_owned()));
        tally.add(other);
        assert_eq!((tally.requests, tally.purchases, tally.failed), (101, 2, 1));
        assert_eq!(tally.failures, ["503"]);
        assert!((tally.percentile_ms(50) - 51.0).abs() < 0.1);
        assert!((tally.percentile_ms(100) - 1_000.0).abs() < 0.1);
    }
}
