//! The fault harness: real processes and real servers, killed, cut off and confused while customers buy; then
//! quiet, and every invariant is checked over the databases, the broker and the provider's journal.
//!
//! What is random comes from one seed, which is printed. That does not repeat a run step by step, for the
//! operating system takes part in it, but it repeats what was tried.

pub mod fallback;
pub mod house;
pub mod outages;
mod person;
pub mod provider;
pub mod proxy;
pub mod refusal;
pub mod trouble;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mesh_runtime::Clock;
use payment::provider::simulator::Faults;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use xtask::servers::Servers;

use self::house::{House, Misfortune, Network, Programs};
use self::proxy::Manners;
use self::trouble::{Amounts, Happened, Kills};
use crate::customers::{Customers, STOPPED};
use crate::invariants::{
    Stores, Violations, acknowledged_is_there, check_all, every_event_has_one_effect,
    nothing_is_left_undone, queues_are_empty,
};
use crate::rest::Rest;

/// Everything must have come to rest this long after the last trouble.
pub const QUIET_WITHIN: Duration = Duration::from_mins(1);

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all chance comes from: 32 bits, for it goes into TOML, whose integers end at 2^63 - 1.
    pub seed: u32,
    /// For how long trouble is made.
    pub duration: Duration,
    /// Customers at the same time.
    pub customers: usize,
    /// The services' programs.
    pub programs: Programs,
}

impl Plan {
    /// As much trouble as goes into the time: in 15 minutes 21 broker kills and 11 restarts of PostgreSQL.
    fn amounts(&self) -> Amounts {
        let seconds = u32::try_from(self.duration.as_secs()).unwrap_or(u32::MAX);
        Amounts {
            duration: self.duration,
            broker_kills: 1 + seconds / 45,
            broker_stops: seconds / 180,
            postgres_restarts: 1 + seconds / 90,
            cuts: seconds / 10,
        }
    }
}

/// Bad days on every line, and a provider that does not answer one call in twenty.
fn network() -> Network {
    let slow = Manners {
        delay: 0.02,
        delay_max: Duration::from_millis(100),
        cut: 0.0005,
        double: 0.0,
    };
    Network {
        calls: slow,
        provider: Manners {
            cut: 0.005,
            double: 0.05,
            ..slow
        },
        misfortune: Misfortune {
            commands: Faults {
                unknown_before: 0.025,
                unknown_after: 0.025,
                ..Faults::NONE
            },
            ..Misfortune::default()
        },
        spare: false,
        deliveries: 0.1,
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Where all chance came from.
    pub seed: u32,
    /// How often each kind of trouble happened.
    pub happened: BTreeMap<String, u32>,
    /// Payments that were answered, and answers of all kinds.
    pub payments: usize,
    /// Answers of all kinds.
    pub answers: usize,
    /// Time from the last trouble until nothing was left to do.
    pub quiet_after: Option<Duration>,
    /// What is wrong: empty, or the run has failed.
    pub violations: Violations,
}

impl Report {
    /// How often a process was killed.
    pub fn kills(&self) -> u32 {
        let killed = |name: &&String| name.contains(" killed at ");
        let kills = self.happened.keys().filter(killed);
        kills.map(|name| self.happened[name]).sum()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "faults: SEED={}, {} processes killed",
            self.seed,
            self.kills()
        )?;
        for (what, count) in &self.happened {
            writeln!(f, "  {count:>6}  {what}")?;
        }
        writeln!(f, "  {} payments, {} answers", self.payments, self.answers)?;
        match self.quiet_after {
            Some(after) => writeln!(f, "  quiet after {:.1} s", after.as_secs_f64())?,
            None => writeln!(f, "  not quiet within {} s", QUIET_WITHIN.as_secs())?,
        }
        writeln!(f, "  {} violations", self.violations.len())?;
        for violation in &self.violations {
            writeln!(f, "    {violation}")?;
        }
        Ok(())
    }
}

/// Everything at once: processes killed at fault points and at random moments, servers killed and restarted,
/// connections cut and held up, requests and deliveries doubled, a provider that does not answer.
pub async fn mixed(plan: &Plan, folder: &Path) -> anyhow::Result<Report> {
    let mut random = StdRng::seed_from_u64(plan.seed.into());
    let servers = Servers::start()?;
    let house = House::open(
        &servers,
        &plan.programs,
        folder,
        network(),
        plan.seed.into(),
    )
    .await?;
    let journal = folder.join("acknowledged.jsonl");
    let rest = Rest::new(house.url());
    let mut customers = Customers::enter(&rest, plan.customers, STOPPED, &mut random).await;
    customers.write_to(&journal)?;

    let happened = Happened::default();
    let proxies = house.proxies.clone();
    let cut = Box::new(move |number: usize| proxies.cut(number));
    let amounts = plan.amounts();
    let mut servers = trouble::servers(servers, cut, amounts, random.random(), happened.clone());
    let until = Instant::now() + plan.duration;
    let over = Box::new(move || Instant::now() >= until);
    let seed = random.random();
    let kills = Kills::default();
    let mut processes = trouble::processes(house, kills, over, seed, happened.clone());
    let (calm, house) = tokio::join!(servers.calm(), processes.calm());
    house.proxies.calm();
    for process in &house.processes {
        process.wait_until_ready().await?;
    }
    customers.finish().await;
    let places = Places::of(&calm, folder);
    let quiet_after = places.quiet(&calm).await?;
    let asked = customers.ask_again().await;

    let mut violations = happened.surprises();
    violations.extend(places.violations(&calm, Some(&journal)).await?);
    if quiet_after.is_none() {
        violations.push(format!("not quiet within {QUIET_WITHIN:?}"));
    }
    let mut counts = happened.counts();
    counts.extend(house.counts());
    drop(house);
    drop(calm);
    processes.release();
    servers.release();
    Ok(Report {
        seed: plan.seed,
        happened: counts,
        payments: asked.iter().filter(|asked| asked.is_payment()).count(),
        answers: asked.len(),
        quiet_after,
        violations,
    })
}

/// Where a house keeps its data.
pub struct Places {
    product: String,
    payment: String,
    folder: PathBuf,
}

impl Places {
    /// Those of a house on these servers, with its files in `folder`.
    pub fn of(servers: &Servers, folder: &Path) -> Places {
        let of = |database| servers.postgres().url_of("postgres", database);
        Places {
            product: of("product"),
            payment: of("payment"),
            folder: folder.to_owned(),
        }
    }

    /// Copies of the databases as they are now.
    async fn stores(&self) -> sqlx::Result<Stores> {
        let now_us = Clock::system().now_us();
        Stores::copy(&self.product, &self.payment, &self.folder, now_us).await
    }

    /// Waits until nothing is left to do anywhere; how long that took, if it did in time. What counts is when the
    /// copies were begun: to make and to read those of a large shop takes longer than it takes the shop to come
    /// to rest.
    pub async fn quiet(&self, servers: &Servers) -> anyhow::Result<Option<Duration>> {
        let started = Instant::now();
        loop {
            let waited = started.elapsed();
            if waited >= QUIET_WITHIN {
                return Ok(None);
            }
            if queues_are_empty(&queues(servers)?).is_empty() && self.rests(servers).await? {
                return Ok(Some(waited));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn rests(&self, servers: &Servers) -> anyhow::Result<bool> {
        let mut stores = self.stores().await?;
        let mut undone = nothing_is_left_undone(&mut stores).await?;
        // The broker's own counts lag behind: what has arrived is seen by what it did.
        undone.extend(every_event_has_one_effect(&mut stores).await?);
        let undelivered = stores.undelivered().await? + stores.under_way().await?;
        stores.close().await?;
        let queued = queues_are_empty(&queues(servers)?);
        Ok(undone.is_empty() && undelivered == 0 && queued.is_empty())
    }

    /// What is wrong with the databases, the broker and the provider's journal, and what of the acknowledged
    /// answers in `journal` is not there.
    pub async fn violations(
        &self,
        servers: &Servers,
        journal: Option<&Path>,
    ) -> anyhow::Result<Violations> {
        let mut stores = self.stores().await?;
        let mut violations = check_all(&mut stores).await?;
        if let Some(journal) = journal {
            let acknowledged = std::fs::read_to_string(journal)?;
            violations.extend(acknowledged_is_there(&mut stores, &acknowledged).await?);
        }
        stores.close().await?;
        violations.extend(queues_are_empty(&queues(servers)?));
        Ok(violations)
    }
}

/// The queues of the broker, each with the number of its messages: those that wait, and those that consumers have.
fn queues(servers: &Servers) -> anyhow::Result<Vec<(String, u64)>> {
    let list = ["list_queues", "--no-table-headers", "name", "messages"];
    let said = servers.rabbitmq().ctl(&list)?;
    let lines = said.lines().filter_map(|line| line.split_once('\t'));
    lines
        .map(|(name, messages)| Ok((name.to_owned(), messages.trim().parse()?)))
        .collect()
}
