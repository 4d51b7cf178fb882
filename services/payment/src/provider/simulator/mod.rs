//! A provider without a bank behind it: durable, honest about time-outs, scripted by tokens.
//!
//! Every charge, capture, void and refund is a row of an append-only journal in a file of its own,
//! on disk before it is answered, so what the simulator "took" can be compared with what payment
//! believes. The token decides what happens:
//!
//! | token | what happens |
//! |---|---|
//! | `pm_card_visa`, `pm_card_mastercard` | success |
//! | `pm_card_declined`, `pm_card_insufficient_funds` | declined |
//! | `pm_card_authentication_required` | the customer must act; [`Simulator::authenticate`] decides |
//! | `pm_card_authentication_ok`, `pm_card_authentication_fail` | the customer must act, and has, well or not, when the charge is next asked about: `:confirm` again |
//! | `pm_card_timeout_before` | the first request is lost without effect: unknown, then not found |
//! | `pm_card_timeout_after` | the first answer is lost after the effect: unknown, then found |
//! | `pm_card_webhook_late` | pending for long, then a webhook |
//! | `pm_card_webhook_duplicate` | pending, then the same webhook twice |
//! | `pm_card_webhook_reordered` | pending, then the outcome's webhook before the one of "pending" |
//! | `pm_card_webhook_forged` | pending, then a webhook that is signed by somebody else, and the true one |
//! | `pm_card_webhook_lost` | pending, then no webhook |
//! | `pm_card_late` | the first request is held up on its way in: unknown, not found, then found |
//! | `pm_card_slow` | success, after `slow_ms` |
//! | `pm_card_capture_declined` | authorised, but captures are declined |
//! | `pm_card_refund_declined` | charged, but refunds are declined, unless their reference begins with [`BY_HAND`] |
//! | `pm_card_refund_fails_later` | refunds succeed, and the bank returns them after `bank_delay_ms` |
//! | `pm_card_dispute_won` | after `bank_delay_ms` the bank takes the money back; evidence wins it, silence loses it |
//! | `pm_card_dispute_lost` | the same, and lost whatever is handed in |
//! | `pm_card_inquiry` | after `bank_delay_ms` the bank asks; after `dispute_response_s` it asks no more |
//! | `pm_card_inquiry_escalates` | the bank asks, and after `dispute_response_s` takes the money back; then as won |
//!
//! Beside what tokens script, commands and webhooks fail by the probabilities of [`Faults`] and
//! [`WebhookFaults`], the same ones for the same seed. What was done on purpose is noted beside the journal.
//!
//! It runs in payment's own process, or in one of its own that is reached over HTTP (`remote`).
//!
//! Fees and payouts are made from the journal (`settlement`).
//!
//! Every other payment method is refused, and not repeated in the message. Deliberately missing: customers.

mod bank;
mod book;
mod command;
mod config;
mod delivery;
mod disputes;
mod entry;
mod fault;
mod lists;
pub mod remote;
mod settlement;
mod store;
mod token;
mod webhook;

#[cfg(test)]
mod tests;

pub use bank::Decision;
pub use config::SimulatorConfig;
pub use fault::{Faults, WebhookFaults};
pub use remote::{Post, RemoteConfig, RemoteSimulator};
pub use settlement::{FeeRule, SettlementConfig};
pub use token::BY_HAND;
pub use webhook::{BODY_BYTES_MAX, SIGNATURE_AGE_MAX_US, SIGNATURE_HEADER, Webhook, WebhookSender};

use super::{
    AcceptDispute, Authorize, Capabilities, Capture, ChargeOutcome, Provider, ProviderError,
    Refund, Settlement, SettlementPage, SubmitEvidence, Transaction, TransactionKind,
    TransactionPage, Void, WebhookError, WebhookEvent,
};
use crate::dispute::SeenDispute;
use async_trait::async_trait;
use book::{Book, Step, Terms, refused};
use entry::{Command, Entry, Outcome};
use fault::{Dice, Fault};
use http::HeaderMap;
use lists::{SINCE, no_place, since_of};
use mesh_runtime::Clock;
use mesh_store::{OpenError, Sqlite, SqliteConfig};
use settlement::Place;
use std::time::Duration;
use token::Script;

/// The simulator's name as a provider.
pub const NAME: &str = "simulator";

const REFERENCE_CHARACTERS_MAX: usize = 64;
const ORDER_REF_CHARACTERS_MAX: usize = 100;

/// The simulator; see the module.
pub struct Simulator {
    journal: Sqlite,
    terms: Terms,
    latency: Duration,
    slow: Duration,
    webhook_secret: Vec<u8>,
    webhooks_of_all: bool,
    settlement: SettlementConfig,
    dice: Dice,
    clock: Clock,
}

impl Simulator {
    /// Opens or creates the journal.
    pub async fn open(
        config: &SimulatorConfig,
        journal: &SqliteConfig,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        Ok(Self {
            journal: store::open(journal).await?,
            terms: config.terms(),
            latency: Duration::from_millis(config.latency_ms),
            slow: Duration::from_millis(config.slow_ms.into()),
            webhook_secret: config.webhook_secret_or_random(),
            webhooks_of_all: config.webhooks_of_all,
            settlement: config.settlement.clone(),
            dice: Dice::new(config.faults, config.webhook_faults),
            clock,
        })
    }

    /// Fails commands from now on as said.
    pub fn set_faults(&self, faults: Faults) {
        self.dice.load(faults);
    }

    /// Does to webhooks from now on as said.
    pub fn set_webhook_faults(&self, faults: WebhookFaults) {
        self.dice.load_webhooks(faults);
    }

    /// The customer of a charge has authenticated, or failed to. False: it does not wait for that.
    pub async fn authenticate(&self, reference: &str, ok: bool) -> Result<bool, ProviderError> {
        let decided = self
            .transact(reference, reference, Occasion::default(), |book| {
                let append = book.authenticate(reference, ok);
                Ok(Step {
                    answer: append.is_some(),
                    append,
                })
            })
            .await?;
        Ok(decided.answer)
    }

    /// Whether the journal can be read.
    pub async fn ready(&self) -> Result<(), sqlx::Error> {
        let newest = store::newest_settlement(self.journal.reader(), NAME);
        newest.await.map(drop)
    }

    /// Closes the journal. Not closing loses nothing.
    pub async fn close(&self) -> Result<(), sqlx::Error> {
        self.journal.close().await
    }

    async fn transact<T>(
        &self,
        charge_reference: &str,
        reference: &str,
        occasion: Occasion<'_>,
        decide: impl FnOnce(Book<'_>) -> Result<Step<T>, ProviderError> + Send,
    ) -> Result<Decided<T>, ProviderError> {
        let mut write = self.journal.begin().await.map_err(unavailable)?;
        let now_us = self.clock.now_us();
        let mut entries = store::entries(&mut write, charge_reference, reference)
            .await
            .map_err(unavailable)?;
        let book = Book {
            entries: &entries,
            terms: &self.terms,
            now_us,
        };
        let settled = book.settle(charge_reference, occasion.asked);
        if let Some(entry) = &settled {
            self.record(&mut write, entry).await.map_err(unavailable)?;
            entries.push(entry.clone());
        }
        let book = Book {
            entries: &entries,
            terms: &self.terms,
            now_us,
        };
        let step = decide(book);
        if let Ok(Step {
            append: Some(entry),
            ..
        }) = &step
        {
            self.record(&mut write, entry).await.map_err(unavailable)?;
        }
        if let Some((command, fault)) = occasion.fault {
            store::note_fault(&mut write, command, fault, now_us)
                .await
                .map_err(unavailable)?;
        }
        if let Some(sequence) = occasion.arrival {
            store::arrived(&mut write, sequence)
                .await
                .map_err(unavailable)?;
        }
        let appended = step.as_ref().is_ok_and(|step| step.append.is_some());
        let noted = occasion.fault.is_some() || occasion.arrival.is_some();
        if appended || settled.is_some() || noted {
            write
                .commit()
                .await
                .map_err(|error| ProviderError::Unknown(error.to_string()))?;
        } else {
            write.rollback().await;
        }
        step.map(|step| Decided {
            answer: step.answer,
            new: appended,
        })
    }

    fn book<'a>(&'a self, entries: &'a [Entry]) -> Book<'a> {
        Book {
            entries,
            terms: &self.terms,
            now_us: self.clock.now_us(),
        }
    }

    /// Whether this is the first request under a reference; the next one is not.
    async fn interrupt(&self, reference: &str) -> Result<bool, ProviderError> {
        let mut write = self.journal.begin().await.map_err(unavailable)?;
        let first = store::interrupt(&mut write, reference)
            .await
            .map_err(unavailable)?;
        write.commit().await.map_err(unavailable)?;
        Ok(first)
    }

    async fn wait(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency).await;
        }
    }
}

/// What belongs to a transaction beside what is decided in it.
#[derive(Clone, Copy, Default)]
struct Occasion<'a> {
    /// Whether the answer is how the charge stands.
    asked: bool,
    /// What is done to the command on purpose, to be noted with its effect.
    fault: Option<(&'a Command, Fault)>,
    /// The place of a request that has arrived with this.
    arrival: Option<i64>,
}

/// A look-up.
const ASKED: Occasion<'static> = Occasion {
    asked: true,
    fault: None,
    arrival: None,
};

/// An answer, and whether it was made just now.
struct Decided<T> {
    answer: T,
    new: bool,
}

#[async_trait]
impl Provider for Simulator {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        self.terms.capabilities()
    }

    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError> {
        bounded("reference", &request.reference, REFERENCE_CHARACTERS_MAX)?;
        bounded("order_ref", &request.order_ref, ORDER_REF_CHARACTERS_MAX)?;
        let script = token::script(&request.payment_method);
        let command = Command::Authorize(request.clone());
        let held_up = matches!(script, Some(Script::TimeoutBefore | Script::Late));
        if held_up && self.interrupt(&request.reference).await? {
            if script == Some(Script::Late) {
                self.hold_up(&command).await?;
            }
            return Err(lost());
        }
        let decided = self
            .command(command, |book, declined| book.authorize(request, declined))
            .await?;
        if script == Some(Script::Slow) {
            tokio::time::sleep(self.slow).await;
        }
        if decided.new && script == Some(Script::TimeoutAfter) {
            return Err(lost());
        }
        Ok(decided.answer)
    }

    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError> {
        let command = Command::Capture(request.clone());
        let decided = self.command(command, |book, _| book.capture(request));
        Ok(decided.await?.answer)
    }

    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        let command = Command::Void(request.clone());
        let decided = self.command(command, |book, _| book.void(request));
        Ok(decided.await?.answer)
    }

    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError> {
        let command = Command::Refund(request.clone());
        let decided = self.command(command, |book, _| book.refund(request));
        Ok(decided.await?.answer)
    }

    async fn look_up_charge(
        &self,
        reference: &str,
    ) -> Result<Option<ChargeOutcome>, ProviderError> {
        self.wait().await;
        if self.dice.roll_look_up() {
            return Err(injected_unavailable());
        }
        let decided = self
            .transact(reference, reference, ASKED, |book| {
                Ok(Step::answer(book.charge_outcome(reference)))
            })
            .await
            // Asking twice is harmless, so nothing about a question is unknown.
            .map_err(|error| ProviderError::Unavailable(error.to_string()))?;
        Ok(decided.answer)
    }

    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        self.wait().await;
        if self.dice.roll_look_up() {
            return Err(injected_unavailable());
        }
        let entry = store::newest_settlement(self.journal.reader(), reference)
            .await
            .map_err(unavailable)?;
        let shown = entry.filter(|entry| self.terms.shows(entry, self.clock.now_us()));
        Ok(shown.as_ref().map(book::settlement))
    }

    async fn look_up_disputes(
        &self,
        charge_reference: &str,
    ) -> Result<Vec<SeenDispute>, ProviderError> {
        self.disputes_of(charge_reference).await
    }

    async fn submit_evidence(
        &self,
        request: &SubmitEvidence,
    ) -> Result<SeenDispute, ProviderError> {
        self.hand_in(request).await
    }

    async fn accept_dispute(&self, request: &AcceptDispute) -> Result<SeenDispute, ProviderError> {
        self.give_up(request).await
    }

    /// Its webhooks name our references.
    async fn reference_of(&self, charge_ref: &str) -> Result<Option<String>, ProviderError> {
        Ok(Some(charge_ref.to_owned()))
    }

    fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now_us: i64,
    ) -> Result<WebhookEvent, WebhookError> {
        webhook::verify(&self.webhook_secret, headers, body, now_us)
    }

    async fn transactions(&self, from: Option<&str>) -> Result<TransactionPage, ProviderError> {
        self.wait().await;
        let after = match from.map(since_of) {
            None => 0,
            Some(Some(at_us)) => self.before(at_us).await?,
            Some(None) => from
                .and_then(|from| from.parse().ok())
                .ok_or_else(no_place)?,
        };
        let movements = store::movements(self.journal.reader(), after)
            .await
            .map_err(unavailable)?;
        let full = i64::try_from(movements.len()).is_ok_and(|count| count == store::ROWS_MAX);
        let next = movements
            .last()
            .filter(|_| full)
            .map(|(sequence, _)| sequence.to_string());
        let transactions = movements.into_iter().map(transaction).collect();
        Ok(TransactionPage { transactions, next })
    }

    async fn settlements(&self, from: Option<&str>) -> Result<SettlementPage, ProviderError> {
        self.wait().await;
        let place = match from.map(since_of) {
            None => Place::Fees { after: 0, day: 0 },
            Some(Some(at_us)) => Place::Fees {
                after: self.before(at_us).await?,
                day: settlement::day_number(at_us) - 1, // Paid out when the day was over.
            },
            Some(None) => from.and_then(Place::parse).ok_or_else(no_place)?,
        };
        match place {
            Place::Fees { after, day } => self.fees(after, day).await,
            Place::Payouts { day } => self.payouts(day).await,
        }
    }

    fn since(&self, at_us: i64) -> String {
        format!("{SINCE}{at_us}")
    }
}

/// The reference that a caller gave: what was done again under a key that was forgotten is listed under it too.
fn asked_for(reference: &str) -> &str {
    reference
        .split_once('#')
        .map_or(reference, |(asked, _)| asked)
}

/// What an entry that moved money says.
fn moved(outcome: Outcome) -> TransactionKind {
    match outcome {
        Outcome::Refunded => TransactionKind::Refund,
        Outcome::RefundFailed => TransactionKind::RefundReversal,
        Outcome::NeedsResponse => TransactionKind::Dispute,
        Outcome::Won => TransactionKind::DisputeReversal,
        _ => TransactionKind::Capture,
    }
}

fn transaction((sequence, entry): (i64, Entry)) -> Transaction {
    Transaction {
        id: format!("sim_{sequence}"),
        kind: moved(entry.outcome),
        reference: asked_for(&entry.reference).to_owned(),
        charge_reference: asked_for(&entry.charge_reference).to_owned(),
        order_ref: entry.order_ref,
        amount: entry.amount,
        booked_at_us: entry.recorded_at_us,
    }
}

fn bounded(field: &str, value: &str, max: usize) -> Result<(), ProviderError> {
    kernel::text::bounded(field, value, 1, max)
        .map_err(|invalid| refused("INVALID", &invalid.to_string()))
}

/// Before a commit a failure of the journal has no effect.
fn unavailable(error: sqlx::Error) -> ProviderError {
    ProviderError::Unavailable(error.to_string())
}

fn injected_unavailable() -> ProviderError {
    ProviderError::Unavailable("the simulator is told to be away".to_owned())
}

fn lost() -> ProviderError {
    ProviderError::Unknown("the connection was lost".to_owned())
}
