//! A customer cancels while nobody knows whether the capture went through; it did, and the provider refuses to give the
//! money back. The payment waits until a person has given it back on the provider's pages.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use payment::provider::simulator::Faults;
use serde_json::json;
use xtask::servers::Servers;

use super::house::{House, Misfortune, Network};
use super::outages::Outage;
use super::person::Person;
use super::{Places, Plan, QUIET_WITHIN};
use crate::orders::{order, put_on_sale, with};
use crate::rest::Rest;

/// How long something may take that is held up on its way to the provider.
const PATIENCE: Duration = Duration::from_mins(1);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Everything is held up on its way to the provider: there is time to cancel before it arrives.
const LATE: Faults = Faults {
    late: 1.0,
    ..Faults::NONE
};

/// The whole of it, with the servers that it needs.
pub async fn refusal(plan: &Plan, folder: &Path) -> anyhow::Result<Outage> {
    let mut outage = Outage::default();
    let servers = Servers::start()?;
    let misfortune = Misfortune {
        commands: LATE,
        ..Misfortune::default()
    };
    let network = Network {
        misfortune,
        ..Network::default()
    };
    let house = House::open(&servers, &plan.programs, folder, network, plan.seed.into()).await?;
    let rest = Rest::new(house.url());
    put_on_sale(&rest, "MUG-1", 1250, 100).await;
    let person = Person::at(&house, &folder.join("simulator.db"))?;
    let order = order("ORDER-1", &[("MUG-1", 1)]);
    let order = with(order, "paymentMethod", "pm_card_refund_declined");
    let payment = rest.post("/v1/payments", &order).await.ok();
    let payment = payment["id"].as_str().unwrap_or_default().to_owned();
    until("a capture is on its way", async || {
        person.sees_capture_coming().await
    })
    .await?;
    let cancel = format!("/v1/payments/{payment}:cancel");
    rest.post(&cancel, &json!({})).await.ok();
    let refused = async || sqlx::Result::Ok(!person.refused().await?.is_empty());
    until("the money is refused", refused).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let state = state(&rest, &payment).await;
    outage.expect(state == "PROCESSING", || {
        format!("{state} before anybody gave it back")
    });

    let places = Places::of(&servers, folder);
    let (quiet, given_back) = person.beside(Box::pin(places.quiet(&servers))).await?;
    outage.expect(quiet?.is_some(), || {
        format!("not quiet within {QUIET_WITHIN:?}")
    });
    outage.expect(given_back == 1, || {
        format!("{given_back} were given back by hand")
    });
    let state = self::state(&rest, &payment).await;
    outage.expect(state == "CANCELED", || {
        format!("{state} after it was given back")
    });
    let violations = places.violations(&servers, None).await?;
    outage.violations.extend(violations);
    Ok(outage)
}

async fn until(what: &str, holds: impl AsyncFn() -> sqlx::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds().await? {
        ensure!(
            begun.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn state(rest: &Rest, payment: &str) -> String {
    let payment = rest.get(&format!("/v1/payments/{payment}")).await.ok();
    payment["state"].as_str().unwrap_or_default().to_owned()
}
