//! One server away for a while, and what the services do meanwhile: without the broker they go on, without the
//! database they say so at once, and both come back by themselves.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use xtask::servers::Servers;

use super::house::{House, Network};
use super::{Places, Plan, queues};
use crate::customers::Customers;
use crate::invariants::{Violations, queues_are_empty};
use crate::orders::{order, put_on_sale};
use crate::rest::{Answer, Rest};

/// How much a service may grow while events wait: they are in the database, not in memory.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// How long after the broker's return nothing may be left of the backlog.
const DRAINED_WITHIN: Duration = Duration::from_mins(5);
/// How long after the database's return a call must succeed.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);
/// Calls that are made while the database is away.
const CALLS: usize = 10;
const SERVICES: [&str; 3] = ["product", "payment-1", "payment-2"];

/// What was seen, line by line, and what was wrong with it.
#[derive(Debug, Default)]
pub struct Outage {
    /// What was measured.
    pub lines: Vec<String>,
    /// What is wrong: empty, or the run has failed.
    pub violations: Violations,
}

impl Outage {
    pub(super) fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    pub(super) fn expect(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(otherwise());
        }
    }
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "  {} violations", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "    {violation}")?;
        }
        Ok(())
    }
}

/// The broker is away for `plan.duration` while customers buy: each write is answered, the services stay ready
/// with a warning and do not grow, and the events go out once it is back.
pub async fn broker(plan: &Plan, folder: &Path) -> anyhow::Result<Outage> {
    let mut random = StdRng::seed_from_u64(plan.seed.into());
    let mut outage = Outage::default();
    let mut servers = Servers::start()?;
    let network = Network::default();
    let house = House::open(&servers, &plan.programs, folder, network, plan.seed.into()).await?;
    // No status is temporary: whoever is not answered fails the run.
    let rest = Rest::new(house.url());
    let mut customers = Customers::enter(&rest, plan.customers, &[], &mut random).await;
    tokio::time::sleep(plan.duration / 10).await;

    servers.rabbitmq_mut().kill();
    let (before, away) = (customers.answers(), Instant::now());
    let memory = || SERVICES.map(|name| house.process(name).memory_kib().unwrap_or_default());
    tokio::time::sleep(plan.duration / 5).await;
    let small = memory();
    for name in SERVICES {
        let (status, report) = house.process(name).readiness().await?;
        let warned = report["checks"].as_array().is_some_and(|checks| {
            let broker = checks.iter().find(|check| check["name"] == "broker");
            broker.is_some_and(|broker| broker["ready"] == false)
        });
        outage.expect(status == 200 && warned, || {
            format!("{name} is {status} without the broker: {report}")
        });
    }
    tokio::time::sleep(plan.duration.mul_f64(0.8)).await;
    let answers = customers.answers() - before;
    let seconds = away.elapsed().as_secs_f64();
    outage.say(format!(
        "broker away for {seconds:.0} s: {answers} writes answered, {:.0}/s",
        f64::from(u32::try_from(answers)?) / seconds
    ));
    for ((name, small), large) in SERVICES.iter().zip(small).zip(memory()) {
        outage.say(format!("{name}: {small} KiB, later {large} KiB"));
        outage.expect(large < small + GROWTH_KIB_MAX, || {
            format!("{name} has grown from {small} to {large} KiB")
        });
    }
    customers.finish().await;
    let waiting = waiting(&servers).await?;
    servers.rabbitmq_mut().start_again()?;
    let back = Instant::now();
    while self::waiting(&servers).await? > 0 && back.elapsed() < DRAINED_WITHIN {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let took = back.elapsed().as_secs_f64();
    let rate = f64::from(u32::try_from(waiting)?) / took;
    outage.say(format!(
        "{waiting} events waited, published {took:.1} s after its return: {rate:.0}/s"
    ));
    while !queues_are_empty(&queues(&servers)?).is_empty() && back.elapsed() < DRAINED_WITHIN {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let took = back.elapsed();
    outage.say(format!(
        "consumed {:.1} s after its return",
        took.as_secs_f64()
    ));
    outage.expect(took < DRAINED_WITHIN, || {
        "the queues are not empty".to_owned()
    });
    let places = Places::of(&servers, folder);
    let quiet = places.quiet(&servers).await?;
    outage.expect(quiet.is_some(), || "it did not come to rest".to_owned());
    customers.ask_again().await;
    outage
        .violations
        .extend(places.violations(&servers, None).await?);
    Ok(outage)
}

/// Events in both outboxes.
async fn waiting(servers: &Servers) -> anyhow::Result<i64> {
    let mut sum = 0;
    for database in ["product", "payment"] {
        let url = servers.postgres().url_of("postgres", database);
        let mut connection = PgConnection::connect(&url).await?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM mesh_outbox")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        sum += count;
    }
    Ok(sum)
}

/// The database is away: calls fail at once with UNAVAILABLE and RetryInfo, the processes stay up, and go on as
/// soon as it is back.
pub async fn postgres(plan: &Plan, folder: &Path) -> anyhow::Result<Outage> {
    let mut outage = Outage::default();
    let mut servers = Servers::start()?;
    let network = Network::default();
    let house = House::open(&servers, &plan.programs, folder, network, plan.seed.into()).await?;
    let rest = Rest::new(house.url());
    let product = put_on_sale(&rest, "MUG-1", 1250, 1_000).await;
    let read = format!(
        "/v1/products/{}",
        product["id"].as_str().unwrap_or_default()
    );
    let ids = SERVICES.map(|name| house.process(name).id());

    servers.postgres_mut().stop_immediately();
    let mut slowest = Duration::ZERO;
    for number in 0..CALLS {
        for write in [true, false] {
            let started = Instant::now();
            let answer = if write {
                buy(&rest, &format!("away-{number}")).await?
            } else {
                rest.send(rest.request(reqwest::Method::GET, &read)).await?
            };
            slowest = slowest.max(started.elapsed());
            let said = retry_after(&answer);
            outage.expect(answer.status == 503 && said.is_some(), || {
                format!("{} {} without the database", answer.status, answer.text())
            });
        }
    }
    outage.say(format!(
        "{} calls without the database: 503 with RetryInfo, the slowest after {} ms",
        2 * CALLS,
        slowest.as_millis()
    ));
    servers.postgres_mut().start_again()?;
    let back = Instant::now();
    let mut recovered = false;
    while !recovered && back.elapsed() < RECOVERED_WITHIN {
        let bought = buy(&rest, "back").await?;
        let shown = rest.send(rest.request(reqwest::Method::GET, &read)).await?;
        recovered = bought.status == 200 && shown.status == 200;
    }
    outage.say(format!(
        "a purchase and a read {} ms after its return",
        back.elapsed().as_millis()
    ));
    outage.expect(recovered, || {
        format!("not back within {RECOVERED_WITHIN:?}")
    });
    let now = SERVICES.map(|name| house.process(name).id());
    outage.expect(ids == now, || "a process has ended".to_owned());
    let places = Places::of(&servers, folder);
    let quiet = places.quiet(&servers).await?;
    outage.expect(quiet.is_some(), || "it did not come to rest".to_owned());
    outage
        .violations
        .extend(places.violations(&servers, None).await?);
    Ok(outage)
}

async fn buy(rest: &Rest, key: &str) -> reqwest::Result<Answer> {
    rest.try_post("/v1/payments", key, &order(key, &[("MUG-1", 1)]))
        .await
}

/// When to ask again, from the details of an error.
fn retry_after(answer: &Answer) -> Option<String> {
    let error: Value = serde_json::from_slice(&answer.body).ok()?;
    let details = error["details"].as_array()?;
    let delays = details
        .iter()
        .filter_map(|detail| detail["retryDelay"].as_str());
    delays.map(str::to_owned).next()
}
