//! The person that payment waits for where the provider refuses to give money back: gives it back on the provider's own
//! pages, and has payment look.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use kernel::{Currency, Money};
use mesh_runtime::config::Secret;
use payment::provider::simulator::{BY_HAND, RemoteConfig, RemoteSimulator, SimulatorConfig};
use payment::provider::{Provider as _, Refund};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

use super::house::{House, SECRET};
use crate::rest::Rest;

/// How often it looks whether there is something to do.
const EVERY: Duration = Duration::from_secs(1);

/// What the provider refused to give back: charge, order, currency and amount.
type Refused = (String, String, String, i64);

pub(super) struct Person {
    pages: RemoteSimulator,
    journal: PathBuf,
    rest: Rest,
}

impl Person {
    /// With the provider's journal for its pages.
    pub(super) fn at(house: &House, journal: &Path) -> anyhow::Result<Self> {
        let remote = RemoteConfig {
            url: format!("http://{}", house.proxies.simulator.address()),
            ..RemoteConfig::default()
        };
        let agreed = SimulatorConfig {
            webhook_secret: Secret::new(SECRET),
            ..SimulatorConfig::default()
        };
        Ok(Self {
            pages: RemoteSimulator::new("simulator", &remote, &agreed)?,
            journal: journal.to_owned(),
            rest: Rest::new(house.url()),
        })
    }

    /// Does what there is to do until something else is over; its outcome, and how many payments it was done for.
    pub(super) async fn beside<T>(
        &self,
        other: impl Future<Output = T>,
    ) -> anyhow::Result<(T, u32)> {
        let (mut other, mut done) = (pin!(other), 0);
        loop {
            tokio::select! {
                outcome = &mut other => return Ok((outcome, done)),
                () = tokio::time::sleep(EVERY) => {}
            }
            for refused in self.refused().await? {
                self.give_back(&refused).await?;
                done += 1;
            }
        }
    }

    async fn refused(&self) -> sqlx::Result<Vec<Refused>> {
        let mut journal = SqliteConnectOptions::new()
            .filename(&self.journal)
            .read_only(true)
            .connect()
            .await?;
        let refused = sqlx::query_as(
            "SELECT charge_reference, order_ref, currency_code, amount_minor FROM journal refused
             WHERE operation = 'refund' AND outcome = 'declined' AND reference = charge_reference || '-reversal'
             AND NOT EXISTS (SELECT 1 FROM journal back WHERE back.charge_reference = refused.charge_reference
                             AND back.outcome = 'refunded')",
        );
        let refused = refused.fetch_all(&mut journal).await;
        journal.close().await?;
        refused
    }

    async fn give_back(&self, refused: &Refused) -> anyhow::Result<()> {
        let (charge, order, currency, amount_minor) = refused;
        let refund = Refund {
            reference: format!("{BY_HAND}{charge}"),
            charge_reference: charge.clone(),
            amount: Money::new(Currency::parse(currency)?, *amount_minor)?,
        };
        self.pages.refund(&refund).await?;
        let of_order = format!("/v1/payments?filter=order_ref%3D%22{order}%22");
        let listed = self.rest.get(&of_order).await.ok();
        let payments = listed["payments"]
            .as_array()
            .context("no list of payments")?;
        for payment in payments {
            let id = payment["id"].as_str().context("a payment without an id")?;
            let path = format!("/v1/payments/{id}:lookUp");
            self.rest.post(&path, &json!({})).await.ok();
        }
        Ok(())
    }
}
