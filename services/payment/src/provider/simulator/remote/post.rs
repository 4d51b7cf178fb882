//! The simulator's webhooks take the way that a real provider's take: over HTTP, in at the edge.

use super::connect::{HttpClient, http_client, http_url};
use crate::provider::simulator::{Webhook, WebhookSender};
use async_trait::async_trait;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use kernel::Invalid;
use std::time::Duration;

/// How long the receiver may take for one webhook.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long connecting to it may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How much of its answer is read; a longer one costs the connection, not the webhook.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Posts webhooks to a URL.
pub struct Post {
    client: HttpClient,
    url: Uri,
}

impl Post {
    /// To this URL, such as `http://127.0.0.1:8080/v1/webhooks/simulator`.
    pub fn to(url: &str) -> Result<Self, Invalid> {
        Ok(Self {
            client: http_client(CONNECT_TIMEOUT),
            url: http_url("webhook_url", url)?,
        })
    }
}

#[async_trait]
impl WebhookSender for Post {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut request = Request::post(self.url.clone()).body(Full::new(webhook.body))?;
        request.headers_mut().extend(webhook.headers);
        let sent = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            // Read to the end, the connection serves the next one.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await;
            if status.is_success() {
                Ok(())
            } else {
                Err(format!("the webhook was answered with {status}").into())
            }
        };
        tokio::time::timeout(TIMEOUT, sent).await?
    }
}
