//! The simulator's settings.

use super::book::Terms;
use super::fault::{Faults, WebhookFaults};
use super::settlement::SettlementConfig;
use crate::provider::Capabilities;
use kernel::Invalid;
use mesh_runtime::config::Secret;
use serde::{Deserialize, Serialize};

/// The simulator's settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimulatorConfig {
    /// Whether it charges in one step, as a provider without manual capture does.
    pub one_step: bool,
    /// How long every call takes at least, in milliseconds.
    pub latency_ms: u64,
    /// How long an authorisation holds, in seconds.
    pub authorization_ttl_s: u32,
    /// How long a reference is remembered as an idempotency key, in seconds; 0: for ever. What is sent again
    /// under a key that was forgotten is done again.
    pub idempotency_window_s: u32,
    /// How long after a command a look-up does not find what it did, in milliseconds.
    pub look_up_lag_ms: u32,
    /// How long a charge with a duplicate, reordered, forged or lost webhook stays pending, and how long a
    /// webhook is held back that is reordered by chance, in milliseconds.
    pub webhook_delay_ms: u32,
    /// How long a charge with a late webhook stays pending, and how late a webhook is that is so by chance,
    /// in milliseconds.
    pub late_webhook_delay_ms: u32,
    /// How long a request is under way that is held up, in milliseconds.
    pub late_effect_ms: u32,
    /// How long banks take, in milliseconds: until a dispute that a token scripts is opened, until a refund that is
    /// to fail later does, until evidence was looked at.
    pub bank_delay_ms: u32,
    /// How long banks wait for evidence, and how long an inquiry stands, in seconds.
    pub dispute_response_s: u32,
    /// How long a slow answer takes, in milliseconds.
    pub slow_ms: u32,
    /// Whether every change is announced by a webhook, as real providers do; else only what becomes of charges
    /// that were pending or waited for the customer.
    pub webhooks_of_all: bool,
    /// What it keeps, and when it pays out.
    pub settlement: SettlementConfig,
    /// The secret that webhooks are signed with; empty: a random one, new at each start.
    pub webhook_secret: Secret,
    /// Where customers are sent to authenticate; the attempt's id is appended as a path segment.
    pub redirect_url: String,
    /// Failures on demand, for tests.
    pub faults: Faults,
    /// What is done to webhooks on demand, for tests.
    pub webhook_faults: WebhookFaults,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            one_step: false,
            latency_ms: 0,
            authorization_ttl_s: 7 * 24 * 3600,
            idempotency_window_s: 0,
            look_up_lag_ms: 0,
            webhook_delay_ms: 500,
            late_webhook_delay_ms: 3_000,
            late_effect_ms: 3_000,
            bank_delay_ms: 500,
            dispute_response_s: 7 * 24 * 3600,
            slow_ms: 2_000,
            webhooks_of_all: false,
            settlement: SettlementConfig::default(),
            webhook_secret: Secret::default(),
            redirect_url: "https://simulator.example/authenticate".to_owned(),
            faults: Faults::default(),
            webhook_faults: WebhookFaults::default(),
        }
    }
}

impl SimulatorConfig {
    /// Refuses what contradicts itself, by the name of the key.
    pub fn validate(&self) -> Result<(), Invalid> {
        self.faults.validate("simulator.faults")?;
        self.webhook_faults.validate("simulator.webhook_faults")
    }

    /// What a simulator with these settings can do.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.terms().capabilities()
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            one_step: self.one_step,
            authorization_ttl_us: i64::from(self.authorization_ttl_s) * 1_000_000,
            idempotency_window_us: match self.idempotency_window_s {
                0 => i64::MAX, // The journal forgets nothing.
                window_s => i64::from(window_s) * 1_000_000,
            },
            look_up_lag_us: i64::from(self.look_up_lag_ms) * 1000,
            webhook_delay_us: i64::from(self.webhook_delay_ms) * 1000,
            late_webhook_delay_us: i64::from(self.late_webhook_delay_ms) * 1000,
            late_effect_us: i64::from(self.late_effect_ms) * 1000,
            redirect_url: self.redirect_url.clone(),
            bank_delay_us: i64::from(self.bank_delay_ms) * 1000,
            dispute_response_us: i64::from(self.dispute_response_s) * 1_000_000,
        }
    }

    pub(super) fn webhook_secret_or_random(&self) -> Vec<u8> {
        let secret = self.webhook_secret.expose();
        if secret.is_empty() {
            rand::random::<[u8; 32]>().to_vec()
        } else {
            secret.into()
        }
    }
}
