//! What operators look at: webhooks that came in, and payments whose outcome stays unknown.
//!
//! Apart from [`super::Store`], for no payment needs it to be carried out.

use crate::error::Error;
use crate::payment::Payment;
use async_trait::async_trait;
use kernel::PaymentId;

/// A webhook's event as it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredWebhook {
    /// Who sent it.
    pub provider: String,
    /// The provider's id of it.
    pub event_id: String,
    /// What of ours it named; empty: nothing.
    pub reference: String,
    /// When it came first.
    pub received_at_us: i64,
}

/// Which webhooks, and where the page begins.
#[derive(Debug, Clone)]
pub struct WebhooksQuery {
    /// Only of this provider.
    pub provider: Option<String>,
    /// After this time and event, newest first.
    pub after: Option<(i64, String)>,
    /// At most so many.
    pub limit: i64,
}

/// What operators look at. Shared as `Arc<dyn Desk>`.
#[async_trait]
pub trait Desk: Send + Sync {
    /// A page of webhooks, newest first.
    async fn webhooks(&self, query: &WebhooksQuery) -> Result<Vec<StoredWebhook>, Error>;

    /// One webhook.
    async fn webhook(&self, provider: &str, event_id: &str)
    -> Result<Option<StoredWebhook>, Error>;

    /// The payment that an attempt, a capture or a refund belongs to.
    async fn payment_of(&self, reference: &str) -> Result<Option<PaymentId>, Error>;

    /// A page of payments of which something was begun before a time and is still under way, by the time
    /// that they were created at.
    async fn unresolved(
        &self,
        before_us: i64,
        after: Option<(i64, String)>,
        limit: i64,
    ) -> Result<Vec<Payment>, Error>;
}
