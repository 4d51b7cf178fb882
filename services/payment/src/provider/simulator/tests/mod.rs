//! The simulator against a journal on disk: the bench that its tests share.

mod adversary;
mod commands;
mod disputes;
mod scenarios;

use super::*;
use crate::provider::Decline;
use kernel::{Currency, Money};
use mesh_store::Durability;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

const NOW_US: i64 = 1_700_000_000_000_000;

struct Bench {
    simulator: Arc<Simulator>,
    clock: Clock,
    config: SimulatorConfig,
    folder: TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::with(SimulatorConfig::default()).await
    }

    async fn one_step() -> Self {
        Self::with(SimulatorConfig {
            one_step: true,
            ..SimulatorConfig::default()
        })
        .await
    }

    async fn with(config: SimulatorConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_US);
        let simulator = Self::open(&folder, &config, &clock).await;
        Self {
            simulator,
            clock,
            config,
            folder,
        }
    }

    async fn open(folder: &TempDir, config: &SimulatorConfig, clock: &Clock) -> Arc<Simulator> {
        let journal = SqliteConfig {
            path: folder.path().join("simulator.db"),
            durability: Durability::Full,
            ..SqliteConfig::default()
        };
        Arc::new(
            Simulator::open(config, &journal, clock.clone())
                .await
                .unwrap(),
        )
    }

    /// As after a restart of the process.
    async fn reopen(&mut self) {
        self.simulator.close().await.unwrap();
        self.simulator = Self::open(&self.folder, &self.config, &self.clock).await;
    }

    async fn authorize(
        &self,
        reference: &str,
        token: &str,
    ) -> Result<ChargeOutcome, ProviderError> {
        self.simulator.authorize(&authorize(reference, token)).await
    }

    async fn capture(&self, capture: &str, charge: &str, amount_minor: i64) -> Settlement {
        self.simulator
            .capture(&self::capture(capture, charge, amount_minor))
            .await
            .unwrap()
    }

    async fn look_up(&self, reference: &str) -> Option<ChargeOutcome> {
        self.simulator.look_up_charge(reference).await.unwrap()
    }

    /// What was taken and not given back, over the whole journal.
    async fn taken_minor(&self) -> i64 {
        let page = self.simulator.transactions(None).await.unwrap();
        let signed = page.transactions.iter();
        let signed = signed.map(|booked| booked.kind.sign() * booked.amount.amount_minor());
        signed.sum()
    }

    async fn journal_rows(&self) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM journal")
            .fetch_one(self.simulator.journal.reader())
            .await
            .unwrap()
    }
}

fn usd(amount_minor: i64) -> Money {
    Money::new(Currency::parse("USD").unwrap(), amount_minor).unwrap()
}

fn authorize(reference: &str, token: &str) -> Authorize {
    Authorize {
        reference: reference.to_owned(),
        payment_reference: String::new(),
        amount: usd(1000),
        payment_method: token.to_owned(),
        order_ref: "order-1".to_owned(),
        capture: false,
    }
}

fn capture(reference: &str, charge: &str, amount_minor: i64) -> Capture {
    let (reference, charge_reference) = (reference.to_owned(), charge.to_owned());
    Capture {
        reference,
        charge_reference,
        amount: usd(amount_minor),
        last: false,
    }
}

fn refund(reference: &str, charge: &str, amount_minor: i64) -> Refund {
    let (reference, charge_reference) = (reference.to_owned(), charge.to_owned());
    Refund {
        reference,
        charge_reference,
        amount: usd(amount_minor),
    }
}

fn void(charge: &str) -> Void {
    Void {
        charge_reference: charge.to_owned(),
    }
}

fn declined<T>(answer: &T) -> &str
where
    T: AsDecline,
{
    &answer.as_decline().expect("a decline").code
}

trait AsDecline {
    fn as_decline(&self) -> Option<&Decline>;
}

impl AsDecline for ChargeOutcome {
    fn as_decline(&self) -> Option<&Decline> {
        if let Self::Declined(decline) = self {
            Some(decline)
        } else {
            None
        }
    }
}

impl AsDecline for Settlement {
    fn as_decline(&self) -> Option<&Decline> {
        if let Self::Declined(decline) = self {
            Some(decline)
        } else {
            None
        }
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ProviderError>) -> String {
    match result.unwrap_err() {
        ProviderError::Refused { code, .. } => code,
        other => panic!("{other}"),
    }
}

fn is_authorized(outcome: &ChargeOutcome) -> bool {
    matches!(outcome, ChargeOutcome::Authorized { .. })
}

fn is_captured(outcome: &ChargeOutcome) -> bool {
    matches!(outcome, ChargeOutcome::Captured { .. })
}

fn is_done(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::Done { .. })
}

/// Collects webhooks; refuses the first few.
#[derive(Default)]
struct Mailbox {
    refuse: Mutex<u32>,
    received: Mutex<Vec<Webhook>>,
}

#[async_trait]
impl WebhookSender for Mailbox {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut refuse = self.refuse.lock().unwrap();
        if *refuse > 0 {
            *refuse -= 1;
            return Err("not now".into());
        }
        self.received.lock().unwrap().push(webhook);
        Ok(())
    }
}

impl Mailbox {
    /// The events received, verified, with their types.
    fn events(&self, bench: &Bench) -> Vec<(WebhookEvent, String)> {
        let received = self.received.lock().unwrap();
        let read = |webhook: &Webhook| {
            let event = bench
                .simulator
                .verify_webhook(&webhook.headers, &webhook.body, bench.clock.now_us())
                .unwrap();
            let body: serde_json::Value = serde_json::from_slice(&webhook.body).unwrap();
            (event, body["type"].as_str().unwrap().to_owned())
        };
        received.iter().map(read).collect()
    }
}
