//! The way of the simulator's webhooks into the service of the same process. Where the edge is
//! reachable they may as well be posted to it.

use crate::commands::Commands;
use crate::provider::simulator::{Webhook, WebhookSender};
use async_trait::async_trait;

/// Hands webhooks to the service directly.
#[derive(Clone)]
pub struct DirectWebhooks {
    commands: Commands,
    provider: String,
}

impl DirectWebhooks {
    /// Webhooks of `provider` to these commands.
    pub fn new(commands: Commands, provider: impl Into<String>) -> Self {
        Self {
            commands,
            provider: provider.into(),
        }
    }
}

#[async_trait]
impl WebhookSender for DirectWebhooks {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Webhook { headers, body } = webhook;
        Ok(self
            .commands
            .receive_webhook(&self.provider, &headers, &body)
            .await?)
    }
}
