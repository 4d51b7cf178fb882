//! The simulator's settings.

use super::book::Terms;
use super::fault::Faults;
use crate::provider::Capabilities;
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
    /// How long a charge with a duplicate or reordered webhook stays pending, in milliseconds.
    pub webhook_delay_ms: u32,
    /// How long a charge with a late webhook stays pending, in milliseconds.
    pub late_webhook_delay_ms: u32,
    /// The secret that webhooks are signed with; empty: a random one, new at each start.
    pub webhook_secret: Secret,
    /// Where customers are sent to authenticate; the attempt's id is appended as a path segment.
    pub redirect_url: String,
    /// Failures on demand, for tests.
    pub faults: Faults,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            one_step: false,
            latency_ms: 0,
            authorization_ttl_s: 7 * 24 * 3600,
            webhook_delay_ms: 500,
            late_webhook_delay_ms: 3_000,
            webhook_secret: Secret::default(),
            redirect_url: "https://simulator.example/authenticate".to_owned(),
            faults: Faults::default(),
        }
    }
}

impl SimulatorConfig {
    /// What a simulator with these settings can do.
    pub(super) fn capabilities(&self) -> Capabilities {
        self.terms().capabilities()
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            one_step: self.one_step,
            authorization_ttl_us: i64::from(self.authorization_ttl_s) * 1_000_000,
            webhook_delay_us: i64::from(self.webhook_delay_ms) * 1000,
            late_webhook_delay_us: i64::from(self.late_webhook_delay_ms) * 1000,
            redirect_url: self.redirect_url.clone(),
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
