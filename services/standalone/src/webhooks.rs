//! The simulator's webhooks take the way that a real provider's take: over HTTP, in at the edge.

use async_trait::async_trait;
use payment::provider::simulator::{Webhook, WebhookSender};
use std::time::Duration;

/// How long the edge may take for one webhook.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Posts webhooks to a URL.
pub(crate) struct Post {
    client: reqwest::Client,
    url: String,
}

impl Post {
    /// To the edge at `base`, such as `http://127.0.0.1:8080`.
    pub(crate) fn to(base: &str) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Self {
            client,
            url: format!("{base}/v1/webhooks/simulator"),
        })
    }
}

#[async_trait]
impl WebhookSender for Post {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let request = self
            .client
            .post(&self.url)
            .headers(webhook.headers)
            .body(webhook.body);
        request.send().await?.error_for_status()?;
        Ok(())
    }
}
