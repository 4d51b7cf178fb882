//! A provider that goes wrong in every way it can, and a payment service that is killed meanwhile: nobody is charged
//! twice, nothing is lost, and everything is resolved soon after.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use payment::provider::simulator::{Faults, WebhookFaults};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use xtask::servers::Servers;

use super::house::{House, Misfortune, Network};
use super::person::Person;
use super::trouble::{self, Happened, Kills};
use super::{Places, Plan, QUIET_WITHIN, Report};
use crate::customers::{ALL_CARDS, Customers, STOPPED};
use crate::rest::Rest;

/// Payment and its provider are killed, as often as leaves them time for many payments.
const KILLS: Kills = Kills {
    spared: &["product", "edge"],
    within: Duration::from_secs(10),
    passings_max: 500,
};

/// One command in twenty gets no answer and has no effect, one in twenty gets none and has one, some come late, slow
/// or declined; one webhook in ten is late, comes twice, out of order or with a forgery, and some are lost.
fn network() -> Network {
    Network {
        misfortune: Misfortune {
            commands: Faults {
                unavailable: 0.01,
                unknown_before: 0.05,
                unknown_after: 0.05,
                late: 0.01,
                slow: 0.01,
                declined: 0.01,
                ..Faults::NONE
            },
            webhooks: WebhookFaults {
                late: 0.025,
                duplicated: 0.025,
                reordered: 0.025,
                forged: 0.025,
                lost: 0.02,
                ..WebhookFaults::default()
            },
            webhooks_of_all: true,
        },
        ..Network::default()
    }
}

/// `payments` purchases with every card there is while payment and its provider are killed, then quiet, then every
/// check. The time that it takes is not `plan.duration`.
pub async fn adversary(plan: &Plan, payments: u64, folder: &Path) -> anyhow::Result<Report> {
    let mut random = StdRng::seed_from_u64(plan.seed.into());
    let servers = Servers::start()?;
    let seed = plan.seed.into();
    let house = House::open(&servers, &plan.programs, folder, network(), seed).await?;
    let journal = folder.join("acknowledged.jsonl");
    let rest = Rest::new(house.url());
    let entering = Customers::enter_with(
        &rest,
        plan.customers,
        ALL_CARDS,
        payments,
        STOPPED,
        &mut random,
    );
    let mut customers = entering.await;
    customers.write_to(&journal)?;

    let happened = Happened::default();
    let begun = customers.begun();
    let over = Box::new(move || begun.load(Ordering::Relaxed) >= payments);
    let mut hand = trouble::processes(house, KILLS, over, random.random(), happened.clone());
    let house = hand.calm().await;
    for process in &house.processes {
        process.wait_until_ready().await?;
    }
    customers.finish().await;
    let places = Places::of(&servers, folder);
    let person = Person::at(&house, &folder.join("simulator.db"))?;
    let (quiet_after, by_hand) = person.beside(Box::pin(places.quiet(&servers))).await?;
    let quiet_after = quiet_after?;
    let asked = customers.ask_again().await;

    let mut violations = happened.surprises();
    violations.extend(places.violations(&servers, Some(&journal)).await?);
    if quiet_after.is_none() {
        violations.push(format!("not quiet within {QUIET_WITHIN:?}"));
    }
    let mut counts = happened.counts();
    counts.extend(places.misfortunes().await?);
    counts.insert(
        "refused reversal given back by a person".to_owned(),
        u32::try_from(by_hand)?,
    );
    drop(house);
    hand.release();
    Ok(Report {
        seed: plan.seed,
        happened: counts,
        payments: asked.iter().filter(|asked| asked.is_payment()).count(),
        answers: asked.len(),
        quiet_after,
        violations,
    })
}

impl Places {
    /// What the provider has done wrong, by its own journal.
    async fn misfortunes(&self) -> anyhow::Result<BTreeMap<String, u32>> {
        let mut stores = self.stores().await?;
        let counted = stores.misfortunes().await?;
        stores.close().await?;
        Ok(counted.into_iter().collect())
    }
}
