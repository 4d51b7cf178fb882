//! Webhooks on their way: queued with the entry that they announce, delivered in order, repeated
//! with growing pauses, given up in the end; and what is done to them on purpose.

use super::book::Step;
use super::entry::{Entry, Operation, Outcome};
use super::fault::WebhookFault;
use super::token::{self, Script};
use super::webhook::{self, Delivered, Planned, Queued, WebhookSender};
use super::{Occasion, Simulator, bank, store, unavailable};
use crate::provider::ProviderError;
use futures_util::{StreamExt as _, stream};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

/// How often the queue of webhooks is looked at.
const WEBHOOK_POLL: Duration = Duration::from_millis(100);
/// How many webhooks are under way at a time.
const AT_ONCE_MAX: usize = 8;
/// After how many failures a webhook is dropped; looking up still tells the truth.
pub(super) const WEBHOOK_FAILURES_MAX: u32 = 16;
/// The pause after the first failure; it doubles with each, up to the longest.
pub(super) const WEBHOOK_PAUSE_US: i64 = 200_000;
pub(super) const WEBHOOK_PAUSE_US_MAX: i64 = 60_000_000;

impl Simulator {
    /// Carries out what has become due until `shutdown`, and delivers webhooks; without a sender they wait.
    pub async fn run(&self, sender: Option<&dyn WebhookSender>, shutdown: CancellationToken) {
        loop {
            let done = match sender {
                Some(sender) => self.deliver_webhooks(sender).await.map(drop),
                None => self.carry_out_due().await,
            };
            if let Err(error) = done {
                warn!(%error, "what is due at the simulator waits");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(WEBHOOK_POLL) => {}
            }
        }
    }

    /// Carries out the requests that were held up and arrive by now, and decides the pending charges whose time
    /// has come.
    pub async fn carry_out_due(&self) -> Result<(), ProviderError> {
        let now_us = self.clock.now_us();
        let arrivals = store::arrivals(self.journal.reader(), now_us).await;
        for (sequence, command) in arrivals.map_err(unavailable)? {
            self.arrive(sequence, &command).await?;
        }
        let due = store::due_charges(self.journal.reader(), now_us)
            .await
            .map_err(unavailable)?;
        for reference in due {
            // Deciding what is due is the first thing that every transaction does.
            self.transact(&reference, &reference, Occasion::default(), |_| {
                Ok(Step {
                    append: None,
                    answer: (),
                })
            })
            .await?;
        }
        Ok(())
    }

    /// Carries out what is due and delivers the webhooks that are, a few at a time, begun in order; says how many
    /// were accepted.
    pub async fn deliver_webhooks(
        &self,
        sender: &dyn WebhookSender,
    ) -> Result<usize, ProviderError> {
        self.carry_out_due().await?;
        let queued = store::due_webhooks(self.journal.reader(), self.clock.now_us())
            .await
            .map_err(unavailable)?;
        let mut delivered = stream::iter(queued)
            .map(|webhook| self.deliver(sender, webhook))
            .buffer_unordered(AT_ONCE_MAX);
        let mut accepted = 0;
        while let Some(delivered) = delivered.next().await {
            if delivered.map_err(unavailable)? == Some(Delivered::Accepted) {
                accepted += 1;
            }
        }
        Ok(accepted)
    }

    /// Sends a webhook and notes what became of it; nothing where it is sent again later.
    async fn deliver(
        &self,
        sender: &dyn WebhookSender,
        webhook: Queued,
    ) -> Result<Option<Delivered>, sqlx::Error> {
        let forger = rand::random::<[u8; 32]>();
        let secret = if webhook.forged {
            &forger[..]
        } else {
            &self.webhook_secret
        };
        let signed = webhook::sign(secret, webhook.body, self.clock.now_us());
        let sent = sender.send(signed).await;
        let delivered = match sent {
            Ok(()) => {
                if webhook.forged {
                    error!("a forged webhook was accepted");
                }
                Some(Delivered::Accepted)
            }
            Err(error) if webhook.forged => {
                debug!(error, "a forged webhook was refused");
                Some(Delivered::Refused)
            }
            Err(error) if webhook.failures >= WEBHOOK_FAILURES_MAX => {
                warn!(error, "a webhook was given up");
                Some(Delivered::Refused)
            }
            Err(error) => {
                debug!(error, "a webhook did not arrive");
                None
            }
        };
        let mut write = self.journal.begin().await?;
        if let Some(delivered) = delivered {
            store::end_webhook(&mut write, webhook.sequence, delivered).await?;
        } else {
            let pause_us = (WEBHOOK_PAUSE_US << webhook.failures).min(WEBHOOK_PAUSE_US_MAX);
            let due_at_us = self.clock.now_us() + pause_us;
            store::postpone_webhook(&mut write, webhook.sequence, due_at_us).await?;
        }
        write.commit().await?;
        Ok(delivered)
    }

    /// Appends an entry, and queues the webhooks that announce it.
    pub(super) async fn record(
        &self,
        write: &mut mesh_store::Write,
        entry: &Entry,
    ) -> Result<(), sqlx::Error> {
        store::append(write, entry).await?;
        if let Some(later) = bank::follows(entry, &self.terms) {
            store::append(write, &later).await?;
        }
        for webhook in self.webhooks_of(entry) {
            store::queue_webhook(write, &webhook).await?;
        }
        Ok(())
    }

    /// The webhooks that announce an entry, in the order in which they are due at the same time.
    fn webhooks_of(&self, entry: &Entry) -> Vec<Planned> {
        if matches!(
            entry.outcome,
            Outcome::Pending | Outcome::ActionRequired | Outcome::Scheduled | Outcome::Submitted
        ) {
            return Vec::new(); // Nothing has been decided yet.
        }
        let script = token::script(&entry.payment_method)
            .filter(|script| entry.operation == Operation::Authorize && script.announces());
        let by_a_bank =
            entry.operation == Operation::Dispute || entry.outcome == Outcome::RefundFailed;
        if script.is_none() && !by_a_bank && !self.webhooks_of_all {
            return Vec::new();
        }
        let now_us = entry.recorded_at_us;
        let plan = |outcome, due_at_us, fault| {
            let event_id = event_id(now_us);
            Planned {
                body: webhook::body(&event_id, outcome, entry),
                event_id,
                due_at_us,
                fault,
            }
        };
        let outcome = store::outcome_name(entry.outcome);
        let opposite = match entry.outcome {
            Outcome::Declined | Outcome::Voided => "captured",
            _ => "declined",
        };
        let scripted = script.and_then(Script::webhook_fault);
        let fault = match script {
            Some(Script::WebhookLate) => None, // It is late enough.
            _ => scripted.or_else(|| self.dice.roll_webhook()),
        };
        match fault {
            Some(WebhookFault::Late) => {
                vec![plan(
                    outcome,
                    now_us + self.terms.late_webhook_delay_us,
                    fault,
                )]
            }
            Some(WebhookFault::Duplicated) => vec![plan(outcome, now_us, fault); 2],
            Some(WebhookFault::Reordered) => {
                let held_back_us = match scripted {
                    Some(_) => 0, // Its token says that the older one comes after it, no more.
                    None => self.terms.webhook_delay_us,
                };
                let due_at_us = now_us + held_back_us;
                vec![
                    plan(outcome, due_at_us, fault),
                    plan("pending", due_at_us, fault),
                ]
            }
            Some(WebhookFault::Forged) => {
                vec![plan(opposite, now_us, fault), plan(outcome, now_us, None)]
            }
            Some(WebhookFault::Lost) | None => vec![plan(outcome, now_us, fault)],
        }
    }
}

fn event_id(now_us: i64) -> String {
    format!("evt_{}", kernel::id::uuid_at(now_us).simple())
}
