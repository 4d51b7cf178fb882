//! The person that payment waits for where the provider refuses to give money back: gives it back on the provider's own
//! pages, and has payment look.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context as _;
use kernel::{Currency, Money};
use mesh_runtime::config::Secret;
use payment::provider::simulator::{BY_HAND, RemoteConfig, RemoteSimulator, SimulatorConfig};
use payment::provider::{Provider as _, ProviderError, Refund};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::time::timeout;

use super::house::{House, SECRET};
use crate::rest::Rest;

/// How long it waits before it looks again whether there is something to do.
const EVERY: Duration = Duration::from_secs(1);
/// How long it waits for an answer of the provider, which may never come.
const PATIENCE: Duration = Duration::from_secs(1);

/// A reversal that the provider refused.
#[derive(sqlx::FromRow)]
pub(super) struct Refused {
    charge_reference: String,
    order_ref: String,
    currency_code: String,
    amount_minor: i64,
    /// How often giving it back was refused.
    refusals: i64,
    /// Whether the money is back by now.
    is_back: bool,
}

/// Somebody with the provider's pages and a way to ask payment.
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

    /// Does what there is to do until something else is over; its outcome, and how many charges were given back.
    pub(super) async fn beside<T>(
        &self,
        other: impl Future<Output = T>,
    ) -> anyhow::Result<(T, usize)> {
        let (mut other, mut told) = (pin!(other), BTreeSet::new());
        loop {
            tokio::select! {
                outcome = &mut other => return Ok((outcome, told.len())),
                () = tokio::time::sleep(EVERY) => {}
            }
            for refused in self.refused().await? {
                if !refused.is_back {
                    self.give_back(&refused).await?;
                } else if told.insert(refused.charge_reference.clone()) {
                    self.tell(&refused).await?;
                }
            }
        }
    }

    /// Whether a capture is held up on its way to the provider.
    pub(super) async fn sees_capture_coming(&self) -> sqlx::Result<bool> {
        let mut journal = self.open().await?;
        let coming = sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM arrivals WHERE operation = 'capture')",
        );
        let coming = coming.fetch_one(&mut journal).await;
        journal.close().await?;
        coming
    }

    async fn open(&self) -> sqlx::Result<SqliteConnection> {
        SqliteConnectOptions::new()
            .filename(&self.journal)
            .read_only(true)
            .connect()
            .await
    }

    /// The reversals that the provider has refused.
    pub(super) async fn refused(&self) -> sqlx::Result<Vec<Refused>> {
        let mut journal = self.open().await?;
        let refused = sqlx::query_as(
            "WITH refund AS (SELECT charge_reference, sum(outcome = 'declined') AS refusals,
                                    max(outcome = 'refunded') AS is_back
                             FROM journal WHERE operation = 'refund' GROUP BY charge_reference)
             SELECT charge_reference, order_ref, currency_code, amount_minor, refusals, is_back
             FROM journal JOIN refund USING (charge_reference)
             WHERE operation = 'refund' AND outcome = 'declined' AND reference = charge_reference || '-reversal'",
        );
        let refused = refused.fetch_all(&mut journal).await;
        journal.close().await?;
        refused
    }

    /// The provider goes wrong here too: what became of it is seen in its journal. A refusal is final for its reference.
    async fn give_back(&self, refused: &Refused) -> anyhow::Result<()> {
        let (charge, currency) = (&refused.charge_reference, &refused.currency_code);
        let refund = Refund {
            reference: format!("{BY_HAND}{charge}-{}", refused.refusals),
            charge_reference: charge.clone(),
            amount: Money::new(Currency::parse(currency)?, refused.amount_minor)?,
        };
        let answer = timeout(PATIENCE, self.pages.refund(&refund)).await;
        match answer {
            Ok(Err(error @ ProviderError::Refused { .. })) => Err(error.into()),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Has payment look at what it has of the order.
    async fn tell(&self, refused: &Refused) -> anyhow::Result<()> {
        let of_order = format!("order_ref%3D%22{}%22", refused.order_ref);
        let of_order = format!("/v1/payments?filter={of_order}");
        let listed = self.rest.get(&of_order).await.ok();
        let payments = listed["payments"].as_array().context("no list")?;
        for payment in payments {
            let id = payment["id"].as_str().context("a payment without an id")?;
            let path = format!("/v1/payments/{id}:lookUp");
            self.rest.post(&path, &json!({})).await.ok();
        }
        Ok(())
    }
}
