//! Toss Payments: the customer authenticates in Toss's window first, and our confirmation then takes the money in one
//! step.
//!
//! | of ours | at Toss |
//! |---|---|
//! | the payment's id | `orderId`: the shop's page gives it to Toss's window, with the payment's amount |
//! | `paymentMethod` of `:confirm` | `paymentKey`, which Toss's window gives back |
//! | a charge | the confirmation of that key, with the amount that is stored here; Toss refuses another one |
//! | a refund | a cancellation, with our reference as its reason: by that it is found again |
//! | a deposit into a virtual account | pending until Toss says so; its webhook is a hint |
//!
//! Takes won (KRW) only. Deliberately missing: billing keys, refunds into a bank account that the customer names
//! (virtual accounts), escrow, and disputes, for which Toss documents no interface.

mod answer;
mod client;
mod config;
mod messages;
mod settlement;
mod webhook;

pub use config::TossConfig;

use super::https::{Caller, asked};
use super::{
    AcceptDispute, Authorize, Capabilities, Capture, ChargeOutcome, Provider, ProviderError,
    References, Refund, Settlement, SettlementPage, SubmitEvidence, Transaction, TransactionKind,
    TransactionPage, Void, WebhookError, WebhookEvent, secret,
};
use crate::dispute::SeenDispute;
use answer::Problem;
use async_trait::async_trait;
use client::{Client, segment};
use http::HeaderMap;
use kernel::{Currency, Invalid, Money, day};
use mesh_runtime::Clock;
use messages::{Booked, Cancel, Confirm, Payment, Settled, Status};
use settlement::Place;
use std::sync::Arc;
use std::time::Duration;

/// Its name as a provider.
pub const NAME: &str = "toss";

/// How long Toss remembers an idempotency key: 15 days.
const IDEMPOTENCY_WINDOW_US: i64 = 15 * 24 * 3_600 * 1_000_000;
/// How many transactions are asked for at once.
const PAGE: usize = 100;
/// How long a time is as Toss takes it, and its day.
const TIME_CHARACTERS: usize = 19;
const DAY_CHARACTERS: usize = 10;
/// Between the two names that are noted for a charge; neither contains it.
const BETWEEN: char = ' ';

/// Toss Payments; see the module.
pub struct Toss {
    client: Client,
    references: Arc<dyn References>,
    clock: Clock,
    transactions_from: String,
}

/// What Toss calls a charge.
struct Names {
    order_id: String,
    payment_key: String,
}

impl Toss {
    /// Connects to nothing yet. A missing key is an error that names it.
    pub fn new(
        config: &TossConfig,
        references: Arc<dyn References>,
        clock: Clock,
    ) -> Result<Self, Invalid> {
        const WHY: &str = "provider \"toss\" is configured";
        let key_file = config.secret_key_file.as_deref();
        let key = secret::one("toss.secret_key", &config.secret_key, key_file, WHY)?;
        let from_us = day::parse_start("toss.transactions_from", &config.transactions_from)?;
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms.into());
        let caller = Caller::new("toss.url", &config.url, connect_timeout)?;
        Ok(Self {
            client: Client::new(caller, "toss.secret_key", &key)?,
            references,
            clock,
            transactions_from: day::of(from_us),
        })
    }

    async fn names(&self, reference: &str) -> Result<Option<Names>, ProviderError> {
        let noted = self.references.find(NAME, reference).await?;
        let names = noted.and_then(|noted| {
            let (order_id, payment_key) = noted.split_once(BETWEEN)?;
            Some(Names {
                order_id: order_id.to_owned(),
                payment_key: payment_key.to_owned(),
            })
        });
        Ok(names)
    }

    async fn require(&self, reference: &str) -> Result<Names, ProviderError> {
        self.names(reference)
            .await?
            .ok_or_else(|| ProviderError::Refused {
                code: "CHARGE_NOT_FOUND".to_owned(),
                message: "nothing was ever confirmed under this reference".to_owned(),
            })
    }

    /// A payment; nothing where Toss does not know it.
    async fn payment(&self, path: &str) -> Result<Option<Payment>, ProviderError> {
        match self.client.get(path).await {
            Ok(payment) => Ok(Some(payment)),
            Err(problem) if problem.is("NOT_FOUND_PAYMENT") => Ok(None),
            Err(problem) => Err(asked(problem.refused())),
        }
    }

    /// The payment of a charge, by our own reference. An order that the customer began anew has another key; a
    /// key that belongs to another order is no payment of this one, however well it was paid.
    async fn look_up(&self, names: &Names) -> Result<Option<Payment>, ProviderError> {
        let order = format!("/v1/payments/orders/{}", segment(&names.order_id));
        match self.payment(&order).await? {
            Some(payment) if payment.key == names.payment_key => Ok(Some(payment)),
            Some(_) | None => {
                let key = format!("/v1/payments/{}", segment(&names.payment_key));
                let payment = self.payment(&key).await?;
                Ok(payment.filter(|payment| payment.order_id == names.order_id))
            }
        }
    }

    async fn cancel(
        &self,
        names: &Names,
        reference: &str,
        amount: Option<i64>,
    ) -> Result<Settlement, ProviderError> {
        let path = format!("/v1/payments/{}/cancel", segment(&names.payment_key));
        let body = Cancel {
            cancel_reason: reference,
            cancel_amount: amount,
        };
        let canceled: Result<Payment, Problem> = self.client.post(&path, &body, reference).await;
        let answered = match canceled {
            Ok(payment) => answer::refund(&payment, reference),
            // By this very command, perhaps, long ago.
            Err(problem) if problem.is("ALREADY_CANCELED_PAYMENT") => {
                let payment = self.look_up(names).await;
                let payment = payment.map_err(|error| ProviderError::Unknown(error.to_string()))?;
                match payment.and_then(|payment| answer::refund(&payment, reference)) {
                    Some(settlement) => return Ok(settlement),
                    None => return Err(problem.refused()),
                }
            }
            Err(problem) => return Err(problem.refused()),
        };
        answered.ok_or_else(|| {
            ProviderError::Unknown("the answer does not name the cancellation".to_owned())
        })
    }
}

#[async_trait]
impl Provider for Toss {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            manual_capture: false,
            partial_capture: false,
            void: false,
            authorization_ttl_us: 0,
            idempotency_window_us: IDEMPOTENCY_WINDOW_US,
            look_up_lag_us: 0,
            disputes: false,
            method_is_charge: true,
        }
    }

    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError> {
        let amount = won(request.amount)?;
        let names = Names {
            order_id: request.payment_reference.clone(),
            payment_key: request.payment_method.clone(),
        };
        let noted = format!("{}{BETWEEN}{}", names.order_id, names.payment_key);
        self.references
            .note(NAME, &request.reference, &noted)
            .await?;
        let body = Confirm {
            payment_key: &names.payment_key,
            order_id: &names.order_id,
            amount,
        };
        let confirmed = self
            .client
            .post("/v1/payments/confirm", &body, &request.reference)
            .await;
        let payment: Payment = match confirmed {
            Ok(payment) => payment,
            // The answer to an earlier request was lost, and its key is forgotten.
            Err(problem) if problem.is("ALREADY_PROCESSED_PAYMENT") => {
                let payment = self.look_up(&names).await;
                let payment = payment.map_err(|error| ProviderError::Unknown(error.to_string()))?;
                payment.ok_or_else(|| problem.refused())?
            }
            Err(Problem::No(failed)) if answer::is_decline(&failed) => {
                return Ok(ChargeOutcome::Declined(answer::decline(&failed)));
            }
            Err(problem) => return Err(problem.refused()),
        };
        same_order(&payment, &names, amount)?;
        answer::charge(&payment).ok_or_else(|| {
            ProviderError::Unknown("the answer says that nothing was confirmed".to_owned())
        })
    }

    async fn capture(&self, _: &Capture) -> Result<Settlement, ProviderError> {
        Err(ProviderError::Refused {
            code: "UNSUPPORTED".to_owned(),
            message: "toss charges in one step".to_owned(),
        })
    }

    /// Cancels the whole. The saga gives money back by refunds; this is for what was not taken yet.
    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        let names = self.require(&request.charge_reference).await?;
        let reference = format!("{}-void", request.charge_reference);
        self.cancel(&names, &reference, None).await
    }

    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError> {
        let amount = won(request.amount)?;
        let names = self.require(&request.charge_reference).await?;
        let noted = format!("{}{BETWEEN}{}", names.order_id, names.payment_key);
        self.references
            .note(NAME, &request.reference, &noted)
            .await?;
        self.cancel(&names, &request.reference, Some(amount)).await
    }

    async fn look_up_charge(
        &self,
        reference: &str,
    ) -> Result<Option<ChargeOutcome>, ProviderError> {
        // It is noted before the confirmation is sent.
        let Some(names) = self.names(reference).await? else {
            return Ok(None);
        };
        let payment = self.look_up(&names).await?;
        Ok(payment.and_then(|payment| answer::charge(&payment)))
    }

    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        let Some(names) = self.names(reference).await? else {
            return Ok(None);
        };
        let payment = self.look_up(&names).await?;
        Ok(payment.and_then(|payment| answer::refund(&payment, reference)))
    }

    /// Toss documents no interface for disputes: it tells shops of them by mail, and takes papers the same way.
    async fn look_up_disputes(&self, _: &str) -> Result<Vec<SeenDispute>, ProviderError> {
        Err(ProviderError::without_disputes(NAME))
    }

    async fn submit_evidence(&self, _: &SubmitEvidence) -> Result<SeenDispute, ProviderError> {
        Err(ProviderError::without_disputes(NAME))
    }

    async fn accept_dispute(&self, _: &AcceptDispute) -> Result<SeenDispute, ProviderError> {
        Err(ProviderError::without_disputes(NAME))
    }

    /// Its webhooks name our references.
    async fn reference_of(&self, _: &str) -> Result<Option<String>, ProviderError> {
        Ok(None)
    }

    fn verify_webhook(
        &self,
        _: &HeaderMap,
        body: &[u8],
        now_us: i64,
    ) -> Result<WebhookEvent, WebhookError> {
        webhook::read(body, now_us)
    }

    /// Oldest first. The references are payments' ids: Toss knows no other name of ours here.
    async fn transactions(&self, from: Option<&str>) -> Result<TransactionPage, ProviderError> {
        let (start, after) = self.place(from);
        let starting_after = after.map_or_else(String::new, |key| {
            format!("&startingAfter={}", segment(key))
        });
        let path = format!(
            "/v1/transactions?startDate={start}&endDate={}&limit={PAGE}{starting_after}",
            korean_time(self.clock.now_us()),
        );
        let booked = self.client.get(&path).await;
        let booked: Vec<Booked> = booked.map_err(|problem| asked(problem.refused()))?;
        let full = booked.len() == PAGE;
        let next = booked
            .last()
            .filter(|_| full)
            .map(|last| format!("{start}{BETWEEN}{}", last.transaction_key));
        let transactions = booked.into_iter().filter_map(transaction).collect();
        Ok(TransactionPage { transactions, next })
    }

    /// By the day on which they were paid out, up to today.
    async fn settlements(&self, from: Option<&str>) -> Result<SettlementPage, ProviderError> {
        let beginning = self.transactions_from.as_str();
        let place =
            Place::parse(from.unwrap_or(beginning)).ok_or_else(|| ProviderError::Refused {
                code: "CURSOR_INVALID".to_owned(),
                message: "not a place in the list of settlements".to_owned(),
            })?;
        let path = format!(
            "/v1/settlements?startDate={}&endDate={}&dateType=paidOutDate&page={}&size={PAGE}",
            place.start_day,
            &korean_time(self.clock.now_us())[..DAY_CHARACTERS],
            place.page,
        );
        let settled = self.client.get(&path).await;
        let settled: Vec<Settled> = settled.map_err(|problem| asked(problem.refused()))?;
        let next = (settled.len() == PAGE).then(|| place.next());
        let lines = settled.iter().flat_map(settlement::lines).collect();
        Ok(SettlementPage { lines, next })
    }

    fn since(&self, at_us: i64) -> String {
        korean_time(at_us).max(format!("{}T00:00:00", self.transactions_from))
    }
}

impl Toss {
    /// The time since which transactions are listed, and the key after which.
    fn place<'a>(&self, from: Option<&'a str>) -> (String, Option<&'a str>) {
        match from.map(|from| from.split_once(BETWEEN).unwrap_or((from, ""))) {
            Some((start, after)) if start.len() == TIME_CHARACTERS => (
                start.to_owned(),
                Some(after).filter(|after| !after.is_empty()),
            ),
            Some(_) | None => (format!("{}T00:00:00", self.transactions_from), from),
        }
    }
}

/// An amount in won; Toss takes no other currency from us.
fn won(amount: Money) -> Result<i64, ProviderError> {
    if amount.currency().code() == "KRW" {
        return Ok(amount.amount_minor());
    }
    Err(ProviderError::Refused {
        code: "CURRENCY_UNSUPPORTED".to_owned(),
        message: format!("toss takes KRW, not {}", amount.currency().code()),
    })
}

/// An answer about another order or amount is no answer to this confirmation.
fn same_order(payment: &Payment, names: &Names, amount: i64) -> Result<(), ProviderError> {
    let same = payment.order_id == names.order_id
        && payment.key == names.payment_key
        && payment.total_amount == amount
        && payment.currency == "KRW";
    if same {
        return Ok(());
    }
    tracing::error!(
        order = names.order_id,
        "toss answered about another order or amount"
    );
    Err(ProviderError::Unknown(
        "the answer is about another order or amount".to_owned(),
    ))
}

/// A time as Toss takes it: Korea's, to the second, without a zone.
fn korean_time(now_us: i64) -> String {
    const NINE_HOURS_US: i64 = 9 * 3_600 * 1_000_000;
    let whole_us = now_us.saturating_add(NINE_HOURS_US) / 1_000_000 * 1_000_000;
    day::to_rfc3339(whole_us).trim_end_matches('Z').to_owned()
}

/// A movement of a customer's money.
fn transaction(booked: Booked) -> Option<Transaction> {
    let kind = match booked.status {
        Status::Done => TransactionKind::Capture,
        Status::Canceled | Status::PartialCanceled => TransactionKind::Refund,
        _ => return None,
    };
    let currency = Currency::parse(&booked.currency).ok()?;
    Some(Transaction {
        id: booked.transaction_key,
        kind,
        reference: booked.order_id.clone(),
        charge_reference: booked.order_id,
        order_ref: String::new(),
        amount: Money::new(currency, booked.amount.checked_abs()?).ok()?,
        booked_at_us: day::parse_rfc3339(&booked.transaction_at)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_koreas() {
        assert_eq!(korean_time(1_700_000_000_123_456), "2023-11-15T07:13:20");
    }

    #[test]
    fn only_won_is_taken() {
        let money = |code: &str| Money::new(Currency::parse(code).unwrap(), 1_000).unwrap();
        assert_eq!(won(money("KRW")), Ok(1_000));
        let refused = won(money("USD")).unwrap_err().to_string();
        assert!(refused.contains("toss takes KRW, not USD"), "{refused}");
    }
}
