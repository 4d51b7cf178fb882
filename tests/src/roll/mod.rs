//! Rolling restarts under load, on one machine: the same programs and signals as in pods. Two processes each of product,
//! payment and edge; the services behind the mesh, the edges behind HAProxy, all on a private PostgreSQL and RabbitMQ.
//!
//! Harder than a cluster's own way in one point: a replica is away until it is there again, with no third one to take its
//! place. Nothing between the customer and the edge repeats a request, so whatever fails is counted.

pub mod house;
pub mod load;

use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;
use xtask::servers::Servers;

use self::house::House;
use self::load::{Load, Tally};
use crate::faults::house::Programs;
use crate::faults::{Places, QUIET_WITHIN};
use crate::invariants::Violations;

/// What is rolled, in this order.
pub const SERVICES: [&str; 3] = ["product", "payment", "edge"];
/// Answers before anything is restarted, so that connections are open and caches are warm.
const WARM_UP: u64 = 200;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The services' programs.
    pub programs: Programs,
    /// How often each service is rolled: each time, both of its processes are restarted, one after the other.
    pub rolls: u32,
    /// Requests a second, whatever becomes of those before.
    pub rate: u32,
    /// How long a process still takes calls after it was asked to stop.
    pub drain_wait: Duration,
}

/// What became of one service's rolls.
#[derive(Debug)]
pub struct Row {
    /// The service.
    pub service: &'static str,
    /// Processes that were restarted.
    pub restarts: usize,
    /// The longest time from the signal until one of them was back.
    pub away_max: Duration,
    /// What was asked meanwhile.
    pub tally: Tally,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Requests a second.
    pub rate: u32,
    /// By service.
    pub rows: Vec<Row>,
    /// What is wrong in the databases afterwards.
    pub violations: Violations,
}

impl Report {
    /// Requests that were not answered as they should be.
    pub fn failed(&self) -> u64 {
        self.rows.iter().map(|row| row.tally.failed).sum()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "rolling restarts at {} requests/s (reads, and one purchase in {})",
            self.rate,
            load::PURCHASE_EVERY
        )?;
        writeln!(
            f,
            "{:<10}{:>9}{:>11}{:>11}{:>8}{:>10}{:>10}{:>12}",
            "service",
            "restarts",
            "requests",
            "purchases",
            "failed",
            "p50 ms",
            "p99 ms",
            "away max s"
        )?;
        for row in &self.rows {
            let tally = &row.tally;
            writeln!(
                f,
                "{:<10}{:>9}{:>11}{:>11}{:>8}{:>10.1}{:>10.1}{:>12.1}",
                row.service,
                row.restarts,
                tally.requests,
                tally.purchases,
                tally.failed,
                tally.percentile_ms(50),
                tally.percentile_ms(99),
                row.away_max.as_secs_f64()
            )?;
        }
        for failure in self.rows.iter().flat_map(|row| &row.tally.failures) {
            writeln!(f, "    {failure}")?;
        }
        writeln!(
            f,
            "{} failed requests, {} violations",
            self.failed(),
            self.violations.len()
        )?;
        for violation in &self.violations {
            writeln!(f, "    {violation}")?;
        }
        Ok(())
    }
}

/// Rolls every service under load, and checks every invariant afterwards. To be called from a thread that lives as long:
/// the processes end with it.
pub fn roll(plan: &Plan, folder: &Path) -> anyhow::Result<Report> {
    house::install()?;
    let servers = Servers::start()?;
    let mut house = House::open(&servers, plan, folder)?;
    let runtime = Runtime::new()?;
    let load = runtime.block_on(Load::start(&house.url(), plan.rate))?;
    runtime.block_on(load.answered(WARM_UP));
    load.take(); // Not counted.
    let mut rows = Vec::new();
    for service in SERVICES {
        let mut away = Vec::new();
        for _ in 0..plan.rolls {
            away.extend(house.roll(service)?);
        }
        runtime.block_on(load.answered(u64::from(plan.rate) / 2)); // What was restarted last has its share too.
        rows.push(Row {
            service,
            restarts: away.len(),
            away_max: away.into_iter().max().unwrap_or_default(),
            tally: load.take(),
        });
    }
    let rest = runtime.block_on(load.finish());
    if let Some(last) = rows.last_mut() {
        last.tally.add(rest);
    }
    let places = Places::of(&servers, folder);
    let quiet = runtime.block_on(places.quiet(&servers))?;
    let mut violations = runtime.block_on(places.violations(&servers, None))?;
    if quiet.is_none() {
        violations.push(format!("not quiet within {QUIET_WITHIN:?}"));
    }
    drop(house);
    Ok(Report {
        rate: plan.rate,
        rows,
        violations,
    })
}
