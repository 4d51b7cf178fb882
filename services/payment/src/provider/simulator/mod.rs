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
//! | `pm_card_capture_declined` | authorised, but captures are declined |
//! | `pm_card_refund_declined` | charged, but refunds are declined |
//!
//! It runs in payment's own process, or in one of its own that is reached over HTTP (`remote`).
//!
//! Every other payment method is refused, and not repeated in the message. Deliberately missing: fees,
//! payouts, disputes and customers.

mod book;
mod config;
mod delivery;
mod fault;
pub mod remote;
mod store;
mod token;
mod webhook;

#[cfg(test)]
mod tests;

pub use config::SimulatorConfig;
pub use fault::Faults;
pub use remote::{Post, RemoteConfig, RemoteSimulator};
pub use webhook::{BODY_BYTES_MAX, SIGNATURE_AGE_MAX_US, SIGNATURE_HEADER, Webhook, WebhookSender};

use super::{
    Authorize, Capabilities, Capture, ChargeOutcome, Provider, ProviderError, Refund, Settlement,
    Transaction, TransactionKind, TransactionPage, Void, WebhookError, WebhookEvent,
};
use async_trait::async_trait;
use book::{Book, Entry, Operation, Step, Terms, refused};
use fault::{Dice, Fault};
use http::HeaderMap;
use mesh_runtime::Clock;
use mesh_store::{OpenError, Sqlite, SqliteConfig};
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
    webhook_secret: Vec<u8>,
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
            webhook_secret: config.webhook_secret_or_random(),
            dice: Dice::new(config.faults),
            clock,
        })
    }

    /// Fails commands from now on as said.
    pub fn set_faults(&self, faults: Faults) {
        self.dice.load(faults);
    }

    /// The customer of a charge has authenticated, or failed to. False: it does not wait for that.
    pub async fn authenticate(&self, reference: &str, ok: bool) -> Result<bool, ProviderError> {
        let decided = self
            .transact(reference, reference, false, |book| {
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

    /// A command: what `decide` says on the entries of one charge is on disk before it is answered.
    /// `asked`: whether the answer is how the charge stands.
    async fn command<T>(
        &self,
        charge_reference: &str,
        reference: &str,
        asked: bool,
        decide: impl FnOnce(Book<'_>) -> Result<Step<T>, ProviderError> + Send,
    ) -> Result<Decided<T>, ProviderError> {
        bounded("reference", reference, REFERENCE_CHARACTERS_MAX)?;
        bounded(
            "charge_reference",
            charge_reference,
            REFERENCE_CHARACTERS_MAX,
        )?;
        self.wait().await;
        let fault = self.dice.roll();
        match fault {
            Some(Fault::Unavailable) => return Err(injected_unavailable()),
            Some(Fault::UnknownBefore) => return Err(lost()),
            Some(Fault::UnknownAfter) | None => {}
        }
        let decided = self
            .transact(charge_reference, reference, asked, decide)
            .await?;
        if fault == Some(Fault::UnknownAfter) {
            Err(lost())
        } else {
            Ok(decided)
        }
    }

    async fn transact<T>(
        &self,
        charge_reference: &str,
        reference: &str,
        asked: bool,
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
        let settled = book.settle(charge_reference, asked);
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
        let appended = step.as_ref().is_ok_and(|step| step.append.is_some());
        if appended || settled.is_some() {
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
        if script == Some(Script::TimeoutBefore) && self.interrupt(&request.reference).await? {
            return Err(lost());
        }
        let reference = &request.reference;
        let decided = self
            .command(reference, reference, true, |book| book.authorize(request))
            .await?;
        if decided.new && script == Some(Script::TimeoutAfter) {
            return Err(lost());
        }
        Ok(decided.answer)
    }

    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError> {
        self.command(
            &request.charge_reference,
            &request.reference,
            false,
            |book| book.capture(request),
        )
        .await
        .map(|decided| decided.answer)
    }

    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        let reference = &request.charge_reference;
        let decided = self
            .command(reference, reference, false, |book| book.void(request))
            .await?;
        Ok(decided.answer)
    }

    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError> {
        self.command(
            &request.charge_reference,
            &request.reference,
            false,
            |book| book.refund(request),
        )
        .await
        .map(|decided| decided.answer)
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
            .transact(reference, reference, true, |book| {
                Ok(Step { append: None, answer: book.charge_outcome(reference) })
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
        Ok(entry.as_ref().map(book::settlement))
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
        let after = from.map_or(Ok(0), str::parse).map_err(|_| {
            refused(
                "CURSOR_INVALID",
                "not a place that an earlier page said the next one begins at",
            )
        })?;
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
}

fn transaction((sequence, entry): (i64, Entry)) -> Transaction {
    let kind = match entry.operation {
        Operation::Refund => TransactionKind::Refund,
        Operation::Authorize | Operation::Capture | Operation::Void => TransactionKind::Capture,
    };
    Transaction {
        id: format!("sim_{sequence}"),
        kind,
        reference: entry.reference,
        charge_reference: entry.charge_reference,
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
