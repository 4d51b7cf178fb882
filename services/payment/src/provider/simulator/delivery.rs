//! Webhooks on their way: queued with the entry that they announce, delivered in order, repeated
//! with growing pauses, given up in the end.

use super::book::{Entry, Operation, Outcome, Step};
use super::token::{self, Script};
use super::webhook::{self, WebhookSender};
use super::{Simulator, store, unavailable};
use crate::provider::ProviderError;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// How often the queue of webhooks is looked at.
const WEBHOOK_POLL: Duration = Duration::from_millis(100);
/// After how many failures a webhook is dropped; looking up still tells the truth.
pub(super) const WEBHOOK_FAILURES_MAX: u32 = 16;
/// The pause after the first failure; it doubles with each, up to the longest.
pub(super) const WEBHOOK_PAUSE_US: i64 = 200_000;
pub(super) const WEBHOOK_PAUSE_US_MAX: i64 = 60_000_000;

impl Simulator {
    /// Delivers webhooks until `shutdown`.
    pub async fn run(&self, sender: &dyn WebhookSender, shutdown: CancellationToken) {
        loop {
            if let Err(error) = self.deliver_webhooks(sender).await {
                warn!(%error, "webhooks of the simulator wait");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(WEBHOOK_POLL) => {}
            }
        }
    }

    /// Decides the pending charges whose time has come and delivers the webhooks that are due, one
    /// after the other; says how many arrived.
    pub async fn deliver_webhooks(
        &self,
        sender: &dyn WebhookSender,
    ) -> Result<usize, ProviderError> {
        let now_us = self.clock.now_us();
        let due = store::due_charges(self.journal.reader(), now_us)
            .await
            .map_err(unavailable)?;
        for reference in due {
            // Deciding what is due is the first thing that every transaction does.
            self.transact(&reference, &reference, false, |_| {
                Ok(Step {
                    append: None,
                    answer: (),
                })
            })
            .await?;
        }
        let queued = store::due_webhooks(self.journal.reader(), now_us)
            .await
            .map_err(unavailable)?;
        let mut arrived = 0;
        for webhook in queued {
            let signed = webhook::sign(&self.webhook_secret, webhook.body, self.clock.now_us());
            let sent = sender.send(signed).await;
            let mut write = self.journal.begin().await.map_err(unavailable)?;
            match sent {
                Ok(()) => {
                    arrived += 1;
                    store::remove_webhook(&mut write, webhook.sequence).await
                }
                Err(error) if webhook.failures >= WEBHOOK_FAILURES_MAX => {
                    warn!(error, "a webhook was given up");
                    store::remove_webhook(&mut write, webhook.sequence).await
                }
                Err(error) => {
                    debug!(error, "a webhook did not arrive");
                    let pause_us = (WEBHOOK_PAUSE_US << webhook.failures).min(WEBHOOK_PAUSE_US_MAX);
                    let due_at_us = self.clock.now_us() + pause_us;
                    store::postpone_webhook(&mut write, webhook.sequence, due_at_us).await
                }
            }
            .map_err(unavailable)?;
            write.commit().await.map_err(unavailable)?;
        }
        Ok(arrived)
    }

    /// Appends an entry, and queues the webhooks that announce it.
    pub(super) async fn record(
        &self,
        write: &mut mesh_store::Write,
        entry: &Entry,
    ) -> Result<(), sqlx::Error> {
        store::append(write, entry).await?;
        let script = token::script(&entry.payment_method);
        let late = entry.operation == Operation::Authorize
            && matches!(
                script,
                Some(
                    Script::WebhookLate
                        | Script::WebhookDuplicate
                        | Script::WebhookReordered
                        | Script::Authenticate
                        | Script::Authenticated(_)
                )
            )
            && !matches!(entry.outcome, Outcome::Pending | Outcome::ActionRequired);
        if !late {
            return Ok(());
        }
        let now_us = entry.recorded_at_us;
        let decided = event_id(now_us);
        let mut events = vec![(decided.clone(), store::outcome_name(entry.outcome))];
        match script {
            Some(Script::WebhookDuplicate) => events.push(events[0].clone()),
            Some(Script::WebhookReordered) => events.push((event_id(now_us), "pending")),
            _ => {}
        }
        for (event_id, outcome) in events {
            let body = webhook::body(&event_id, outcome, &entry.reference, now_us);
            store::queue_webhook(write, &event_id, &body, now_us).await?;
        }
        Ok(())
    }
}

fn event_id(now_us: i64) -> String {
    format!("evt_{}", kernel::id::uuid_at(now_us).simple())
}
