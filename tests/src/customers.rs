//! Customers who do not give up: they buy, capture and refund while the shop is killed under them, repeat
//! what was not answered under the same key, and remember every answer.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::orders::{manual_order, order, put_on_sale, with};
use crate::rest::Rest;

/// Payment methods and how often each is used, beside the other numbers.
pub type Cards = &'static [(u32, &'static str)];

/// Mostly good ones.
pub const CARDS: Cards = &[
    (7, "pm_card_visa"),
    (1, "pm_card_declined"),
    (1, "pm_card_timeout_after"),
    (1, "pm_card_webhook_duplicate"),
];

/// Whatever the simulator can script, half of them good ones.
pub const ALL_CARDS: Cards = &[
    (24, "pm_card_visa"),
    (4, "pm_card_mastercard"),
    (2, "pm_card_declined"),
    (1, "pm_card_insufficient_funds"),
    (2, "pm_card_authentication_ok"),
    (1, "pm_card_authentication_fail"),
    (2, "pm_card_timeout_before"),
    (2, "pm_card_timeout_after"),
    (2, "pm_card_late"),
    (1, "pm_card_slow"),
    (2, "pm_card_webhook_late"),
    (2, "pm_card_webhook_duplicate"),
    (2, "pm_card_webhook_reordered"),
    (2, "pm_card_webhook_forged"),
    (2, "pm_card_webhook_lost"),
    (2, "pm_card_refund_declined"),
];

/// The variants that they buy.
const SKUS: [&str; 4] = ["MUG-1", "POT-1", "CUP-1", "JUG-1"];

/// A customer waits this long before asking again.
const PAUSE: Duration = Duration::from_millis(20);

/// How long one question may stay unanswered, restarts included.
const PATIENCE: Duration = Duration::from_mins(2);

/// How many answers are asked for again at a time.
const AGAIN_AT_ONCE: usize = 8;

/// What was asked under which key, and the answer that was given.
#[derive(Clone)]
pub struct Acknowledged {
    path: String,
    key: String,
    body: Value,
    /// The answer as it was given.
    pub answer: Value,
}

impl Acknowledged {
    /// Whether a payment was asked for, not a capture, a cancellation or a refund of one.
    pub fn is_payment(&self) -> bool {
        self.path == "/v1/payments"
    }
}

/// Every answer, in memory and in a file for a checker of its own.
#[derive(Default)]
struct Journal {
    all: Vec<Acknowledged>,
    file: Option<File>,
}

impl Journal {
    fn push(&mut self, acknowledged: Acknowledged) {
        if let Some(file) = &mut self.file {
            let line = json!({
                "path": acknowledged.path,
                "key": acknowledged.key,
                "answer": acknowledged.answer,
            });
            writeln!(file, "{line}").expect("the journal takes a line");
        }
        self.all.push(acknowledged);
    }
}

/// The statuses of a shop that is stopped, killed or busy: ask again.
pub const STOPPED: &[u16] = &[409, 499, 503, 504];

/// Those of a shop whose disk fails as well.
pub const DISK_FAILS: &[u16] = &[409, 499, 500, 503, 504];

/// Some customers at work.
pub struct Customers {
    rest: Rest,
    acknowledged: Arc<Mutex<Journal>>,
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Customers {
    /// Puts goods on sale and lets `count` customers in, who ask again after an answer with one of the
    /// statuses in `temporary`.
    pub async fn enter(
        rest: &Rest,
        count: usize,
        temporary: &'static [u16],
        random: &mut StdRng,
    ) -> Customers {
        Customers::enter_with(rest, count, CARDS, u64::MAX, temporary, random).await
    }

    /// The same with other cards, until `payments_max` payments were begun.
    pub async fn enter_with(
        rest: &Rest,
        count: usize,
        cards: Cards,
        payments_max: u64,
        temporary: &'static [u16],
        random: &mut StdRng,
    ) -> Customers {
        for sku in SKUS {
            put_on_sale(rest, sku, 1250, 1_000_000).await;
        }
        let mut customers = Customers {
            rest: rest.clone(),
            acknowledged: Arc::default(),
            stop: Arc::default(),
            begun: Arc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..count {
            let customer = Customer {
                rest: rest.clone(),
                acknowledged: customers.acknowledged.clone(),
                temporary,
                cards,
                random: StdRng::seed_from_u64(random.random()),
            };
            let (stop, begun) = (customers.stop.clone(), customers.begun.clone());
            customers.tasks.spawn(async move {
                let mut customer = customer;
                while !stop.load(Ordering::Relaxed) {
                    let number = begun.fetch_add(1, Ordering::Relaxed);
                    if number >= payments_max {
                        return;
                    }
                    customer.shop(number).await;
                }
            });
        }
        customers
    }

    /// Writes every answer from now on into a file as well, one JSON object a line.
    pub fn write_to(&self, file: &Path) -> std::io::Result<()> {
        self.lock().file = Some(File::create(file)?);
        Ok(())
    }

    /// How many payments were begun so far, and counting.
    pub fn begun(&self) -> Arc<AtomicU64> {
        self.begun.clone()
    }

    /// How many questions were answered so far.
    pub fn answers(&self) -> usize {
        self.lock().all.len()
    }

    /// Lets everybody finish what they are at, and asks everything once more.
    pub async fn leave(mut self) -> Vec<Acknowledged> {
        self.finish().await;
        self.ask_again().await
    }

    /// Lets everybody finish what they are at.
    pub async fn finish(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a customer gets an answer in the end");
        }
    }

    /// Asks everything once more: each answer is still the same and each payment is there. Answers what was
    /// answered.
    pub async fn ask_again(self) -> Vec<Acknowledged> {
        let all = self.lock().all.clone();
        let again = stream::iter(all.iter().map(|acknowledged| self.check(acknowledged)));
        again
            .buffer_unordered(AGAIN_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
        assert_eq!(self.rest.contradictions(), Vec::<String>::new());
        all
    }

    async fn check(&self, acknowledged: &Acknowledged) {
        let Acknowledged {
            path,
            key,
            body,
            answer,
        } = acknowledged;
        let again = self.rest.post_once(path, key, body).await;
        assert_eq!(
            (again.status, again.replayed()),
            (200, true),
            "{key}: {}",
            again.text()
        );
        assert_eq!(again.json(), *answer, "{key}");
        if acknowledged.is_payment() {
            let id = answer["id"].as_str().expect("a payment has an id");
            let now = self.rest.get(&format!("/v1/payments/{id}")).await.ok();
            let paid = answer["state"] == "SUCCEEDED";
            assert!(
                !paid || now["state"] == "SUCCEEDED",
                "{id} was paid, now: {now}"
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

struct Customer {
    rest: Rest,
    acknowledged: Arc<Mutex<Journal>>,
    temporary: &'static [u16],
    cards: Cards,
    random: StdRng,
}

impl Customer {
    /// One order, by any card, and what may come after it.
    async fn shop(&mut self, n: u64) {
        let card = self.cards.choose_weighted(&mut self.random, |card| card.0);
        let token = card.expect("there are cards").1;
        let sku = SKUS[self.random.random_range(0..SKUS.len())];
        let items = [(sku, self.random.random_range(1..4))];
        let order_ref = format!("ORDER-{n}");
        let manual = self.random.random_range(0..4) == 0;
        let order = if manual {
            manual_order(&order_ref, &items)
        } else {
            order(&order_ref, &items)
        };
        let payment = self
            .insist(
                "/v1/payments",
                format!("pay-{n}"),
                with(order, "paymentMethod", token),
            )
            .await;
        let path = format!(
            "/v1/payments/{}",
            payment["id"].as_str().expect("a payment has an id")
        );
        match payment["state"].as_str().expect("a payment has a state") {
            "REQUIRES_CAPTURE" if self.random.random() => {
                self.insist(
                    &format!("{path}:capture"),
                    format!("capture-{n}"),
                    json!({}),
                )
                .await;
            }
            "REQUIRES_CAPTURE" => {
                self.insist(&format!("{path}:cancel"), format!("cancel-{n}"), json!({}))
                    .await;
            }
            "SUCCEEDED" if self.random.random_range(0..3) == 0 => {
                let back = json!({"restock": true});
                self.insist(&format!("{path}/refunds"), format!("refund-{n}"), back)
                    .await;
            }
            "REQUIRES_ACTION" => {
                // The customer is back from the bank; payment may have heard of it before.
                self.ask(
                    &format!("{path}:confirm"),
                    format!("confirm-{n}"),
                    json!({}),
                    &[400],
                )
                .await;
            }
            "PROCESSING" if self.random.random_range(0..4) == 0 => {
                // It may be paid by now, which is an answer, too.
                let refused = &[400];
                self.ask(
                    &format!("{path}:cancel"),
                    format!("cancel-{n}"),
                    json!({}),
                    refused,
                )
                .await;
            }
            _ => {}
        }
    }

    /// Asks until there is an answer. Whatever goes wrong is temporary; a refusal is not expected.
    async fn insist(&self, path: &str, key: String, body: Value) -> Value {
        let answer = self.ask(path, key, body, &[]).await;
        answer.expect("no refusal was expected")
    }

    /// Asks until there is an answer, or a refusal with one of these statuses.
    async fn ask(&self, path: &str, key: String, body: Value, refusals: &[u16]) -> Option<Value> {
        let asking = async {
            loop {
                match self.rest.try_post(path, &key, &body).await {
                    Ok(answer) if answer.status == 200 => return Some(answer.json()),
                    Ok(answer) if refusals.contains(&answer.status) => return None,
                    Ok(answer) => {
                        let temporary = self.temporary.contains(&answer.status);
                        assert!(temporary, "{key}: {} {}", answer.status, answer.text());
                    }
                    Err(_nobody_there) => {}
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, asking).await;
        let answer =
            answer.unwrap_or_else(|_| panic!("{key} has no answer within {PATIENCE:?}"))?;
        let acknowledged = Acknowledged {
            path: path.to_owned(),
            key,
            body,
            answer: answer.clone(),
        };
        self.acknowledged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(acknowledged);
        Some(answer)
    }
}
