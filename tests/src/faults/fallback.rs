//! Two providers, of which the first is killed and later hangs: payments go to the other one where the first can
//! have heard nothing of them, the rest waits for it, and nobody is charged at both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use xtask::servers::Servers;

use super::house::{House, Network};
use super::outages::Outage;
use super::{Places, Plan, QUIET_WITHIN};
use crate::customers::STOPPED;
use crate::orders::{order, put_on_sale, with};
use crate::rest::Rest;

/// Payments of each phase.
const PAYMENTS: usize = 40;
/// Payments that are created before the first provider goes away, and confirmed meanwhile.
const CREATED_BEFORE: usize = 6;
/// Customers at the same time.
const AT_ONCE: usize = 4;
/// How long a provider that has come back may be left alone before it is asked again.
const ASKED_AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// How long one question may stay unanswered.
const PATIENCE: Duration = Duration::from_mins(2);
/// The pause before it is asked again.
const PAUSE: Duration = Duration::from_millis(50);

const FIRST: &str = "simulator";
const SPARE: &str = "spare";

/// Payments by where they went and how they were answered.
type Seen = BTreeMap<(String, String), usize>;

struct Customers {
    rest: Rest,
    /// Every payment that was answered, by id.
    bought: Vec<String>,
}

/// The first provider is killed for a phase and hangs for another, and comes back after each.
pub async fn fallback(plan: &Plan, folder: &Path) -> anyhow::Result<Outage> {
    let mut outage = Outage::default();
    let servers = Servers::start()?;
    let network = Network {
        spare: true,
        ..Network::default()
    };
    let seed = plan.seed.into();
    let mut house = House::open(&servers, &plan.programs, folder, network, seed).await?;
    let rest = Rest::new(house.url());
    put_on_sale(&rest, "MUG-1", 1250, 100_000).await;
    let bought = Vec::new();
    let mut customers = Customers { rest, bought };

    let seen = customers.buy("before").await;
    outage.say(format!("before: {}", shown(&seen)));
    outage.expect(count(&seen, FIRST, "SUCCEEDED") == PAYMENTS, || {
        format!("with both there, payments went elsewhere: {}", shown(&seen))
    });
    for (phase, hangs) in [("killed", false), ("hanging", true)] {
        let waiting = customers.create(phase).await;
        if hangs {
            house.process(FIRST).pause()?;
        } else {
            house.process_mut(FIRST).kill();
        }
        let seen = customers.buy(phase).await;
        outage.say(format!("{phase}: {}", shown(&seen)));
        let fell_back = count(&seen, SPARE, "SUCCEEDED");
        let stayed = count(&seen, FIRST, "PROCESSING");
        // As many open the circuits of two processes, and one now and then looks whether it is back.
        outage.expect(fell_back >= PAYMENTS / 2 && stayed > 0, || {
            format!("{fell_back} fell back and {stayed} stayed while it was {phase}")
        });
        outage.expect(fell_back + stayed == PAYMENTS, || {
            format!("something else became of a payment while it was {phase}")
        });
        let seen = customers.confirm(phase, &waiting).await;
        outage.say(format!("{phase}, created before: {}", shown(&seen)));
        outage.expect(count(&seen, SPARE, "SUCCEEDED") > 0, || {
            "nothing that was created before fell back".to_owned()
        });
        if hangs {
            house.process(FIRST).resume()?;
        } else {
            house.process_mut(FIRST).start(None)?;
        }
        house.process(FIRST).wait_until_ready().await?;
        let back = customers.is_back(phase).await?;
        outage.expect(back, || {
            format!("new payments did not return after it was {phase}")
        });
    }
    for what in ["circuit opened", "circuit closed"] {
        let printed = ["payment-1", "payment-2"].map(|name| house.process(name).printed());
        let times: usize = printed.iter().map(|text| text.matches(what).count()).sum();
        outage.say(format!("{what} {times} times"));
        outage.expect(times > 0, || format!("no {what}"));
    }
    let places = Places::of(&servers, folder);
    let quiet = places.quiet(&servers).await?;
    outage.expect(quiet.is_some(), || {
        format!("not quiet within {QUIET_WITHIN:?}")
    });
    customers.check(&mut outage, folder).await?;
    outage
        .violations
        .extend(places.violations(&servers, None).await?);
    Ok(outage)
}

impl Customers {
    /// The payments of a phase, a few at a time.
    async fn buy(&mut self, phase: &str) -> Seen {
        let requests = (0..PAYMENTS).map(|number| {
            let key = format!("{phase}-{number}");
            ("/v1/payments".to_owned(), order(&key, &[("MUG-1", 1)]), key)
        });
        self.ask(requests.collect()).await
    }

    /// Payments that nobody has confirmed, by id.
    async fn create(&self, phase: &str) -> Vec<String> {
        let mut created = Vec::new();
        for number in 0..CREATED_BEFORE {
            let order_ref = format!("{phase}-created-{number}");
            let order = with(order(&order_ref, &[("MUG-1", 1)]), "confirm", false);
            let payment = self.rest.post("/v1/payments", &order).await.ok();
            created.push(id(&payment));
        }
        created
    }

    async fn confirm(&mut self, phase: &str, payments: &[String]) -> Seen {
        let requests = payments.iter().map(|id| {
            let path = format!("/v1/payments/{id}:confirm");
            (path, json!({}), format!("{phase}-confirm-{id}"))
        });
        self.ask(requests.collect()).await
    }

    /// Asks each under its key until it is answered.
    async fn ask(&mut self, requests: Vec<(String, Value, String)>) -> Seen {
        let rest = &self.rest;
        let asked = stream::iter(requests).map(|(path, body, key)| async move {
            let asking = answered(rest, &path, &key, &body);
            let answer = tokio::time::timeout(PATIENCE, asking).await;
            answer.unwrap_or_else(|_| panic!("{key} has no answer within {PATIENCE:?}"))
        });
        let answers: Vec<Value> = asked.buffer_unordered(AT_ONCE).collect().await;
        let mut seen = Seen::new();
        for payment in answers {
            let text = |field: &str| payment[field].as_str().unwrap_or_default().to_owned();
            *seen.entry((text("provider"), text("state"))).or_default() += 1;
            self.bought.push(id(&payment));
        }
        seen
    }

    /// Buys until a payment goes to the first provider again and succeeds there.
    async fn is_back(&mut self, phase: &str) -> anyhow::Result<bool> {
        let buying = async {
            for number in 0.. {
                let key = format!("{phase}-after-{number}");
                let order = order(&key, &[("MUG-1", 1)]);
                let seen = self
                    .ask(vec![("/v1/payments".to_owned(), order, key)])
                    .await;
                if count(&seen, FIRST, "SUCCEEDED") > 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        Ok(tokio::time::timeout(ASKED_AGAIN_WITHIN, buying)
            .await
            .is_ok())
    }

    /// Every payment has succeeded, and only the provider that it names has ever heard of it.
    async fn check(&self, outage: &mut Outage, folder: &Path) -> anyhow::Result<()> {
        let mut heard = BTreeMap::new();
        for name in [FIRST, SPARE] {
            heard.insert(name, orders(&folder.join(format!("{name}.db"))).await?);
        }
        let both: Vec<_> = heard[FIRST].intersection(&heard[SPARE]).collect();
        outage.expect(both.is_empty(), || {
            format!("sent to both providers: {both:?}")
        });
        for id in &self.bought {
            let payment = self.rest.get(&format!("/v1/payments/{id}")).await.ok();
            let (state, provider) = (&payment["state"], payment["provider"].as_str());
            let order_ref = payment["orderRef"].as_str().unwrap_or_default();
            let knows = provider.and_then(|name| heard.get(name));
            let known = knows.is_some_and(|orders| orders.contains(order_ref));
            outage.expect(state == "SUCCEEDED" && known, || {
                format!("{id} is {state} at {provider:?}, which knows of it: {known}")
            });
        }
        let counted = [FIRST, SPARE].map(|name| format!("{} orders at {name}", heard[name].len()));
        outage.say(format!("{}, {} at both", counted.join(", "), both.len()));
        Ok(())
    }
}

/// Asks under a key until there is an answer: one that takes too long for its caller is to be had later.
async fn answered(rest: &Rest, path: &str, key: &str, body: &Value) -> Value {
    loop {
        let answer = rest.post_once(path, key, body).await;
        if !STOPPED.contains(&answer.status) {
            return answer.ok();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The orders that a provider's journal knows of, whatever became of them.
async fn orders(journal: &Path) -> sqlx::Result<BTreeSet<String>> {
    let mut journal = SqliteConnectOptions::new()
        .filename(journal)
        .busy_timeout(Duration::from_secs(10))
        .connect()
        .await?;
    let orders: Vec<String> = sqlx::query_scalar("SELECT DISTINCT order_ref FROM journal")
        .fetch_all(&mut journal)
        .await?;
    journal.close().await?;
    Ok(orders.into_iter().collect())
}

fn id(payment: &Value) -> String {
    payment["id"].as_str().unwrap_or_default().to_owned()
}

fn count(seen: &Seen, provider: &str, state: &str) -> usize {
    let key = (provider.to_owned(), state.to_owned());
    seen.get(&key).copied().unwrap_or_default()
}

fn shown(seen: &Seen) -> String {
    let parts = seen
        .iter()
        .map(|((provider, state), count)| format!("{count} {state} at {provider}"));
    parts.collect::<Vec<_>>().join(", ")
}
