//! What callers ask of payments: each command is recorded together with its key, then carried out
//! by a run of the saga that outlives its caller, then answered from what is stored.

mod disputes;

use crate::audit::Record;
use crate::catalogue::{Catalogue, QuoteError};
use crate::charges::Charges;
use crate::dispute;
use crate::error::Error;
use crate::fact::Turn;
use crate::payment::{CaptureMethod, Item, Order, Payment};
use crate::provider::{Provider, WebhookError, WebhookEvent};
use crate::refund::{How, Wanted};
use crate::rejection::Rejection;
use crate::routing::Wish;
use crate::saga::{Saga, audit_outcome};
use crate::store::{Begun, Decision, Opened, Recorded, Store, Viewer, Work};
use crate::wire;
use kernel::{Currency, Money, PaymentId};
use mesh_store::idempotency::{Claim, Key};
use std::sync::Arc;
use std::time::Duration;

/// How often a command that is queued behind another run looks whether it was answered.
const QUEUE_POLL: Duration = Duration::from_millis(50);

/// Who asks, how the answer is to be remembered, and which method it answers.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whose payments are concerned.
    pub viewer: Viewer,
    /// The caller's name.
    pub principal: String,
    /// The full method path.
    pub method: &'static str,
    /// The caller's key; empty: the call cannot be replayed.
    pub request_id: String,
    /// Of the request without its key.
    pub fingerprint: [u8; 32],
}

impl Request {
    /// The key, where the caller gave one.
    pub(crate) fn key(&self) -> Option<Key> {
        (!self.request_id.is_empty()).then(|| Key {
            principal: self.principal.clone(),
            method: self.method.to_owned(),
            request_id: self.request_id.clone(),
            fingerprint: self.fingerprint,
        })
    }
}

/// What a caller wants to buy, checked.
#[derive(Debug, Clone)]
pub struct NewPayment {
    /// The caller's own order.
    pub order_ref: String,
    /// The caller's own customer.
    pub customer_ref: String,
    /// The currency to pay in.
    pub currency: Currency,
    /// SKUs and units.
    pub lines: Vec<(String, i32)>,
    /// What it costs beside the items.
    pub charges: Charges,
    /// A token of the provider; may be empty.
    pub payment_method: String,
    /// When the money is taken.
    pub capture_method: CaptureMethod,
    /// Whether to carry it out at once.
    pub confirm: bool,
    /// What the caller expects to pay.
    pub expected: Option<Money>,
    /// When the customer ordered.
    pub ordered_at_us: Option<i64>,
}

/// The encoded response of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether it was given before.
    pub replayed: bool,
}

/// The commands. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    store: Arc<dyn Store>,
    saga: Saga,
    catalogue: Arc<dyn Catalogue>,
    provider: String,
}

impl Commands {
    /// Over these parts; new payments go to `provider`.
    pub fn new(
        store: Arc<dyn Store>,
        saga: Saga,
        catalogue: Arc<dyn Catalogue>,
        provider: String,
    ) -> Self {
        Self {
            store,
            saga,
            catalogue,
            provider,
        }
    }

    /// What the commands run on.
    pub fn saga(&self) -> &Saga {
        &self.saga
    }

    /// Creates a payment, and carries it out where that is asked for.
    pub async fn create(&self, request: Request, new: NewPayment) -> Result<Answer, Error> {
        let key = request.key();
        if let Some(answer) = self.known(key.as_ref()).await? {
            return Ok(answer); // Needs no product service: many that repeat one command do not all ask for a quote.
        }
        let items = self.catalogue.quote(&new.lines, new.currency).await;
        let items = items.map_err(|error| not_quoted(error, &new.lines))?;
        let provider = self.provider_for(&new, &items)?;
        let order = Order {
            principal: request.principal.clone(),
            order_ref: new.order_ref,
            customer_ref: new.customer_ref,
            currency: new.currency,
            items,
            charges: new.charges,
            payment_method: new.payment_method,
            capture_method: new.capture_method,
            provider,
            ordered_at_us: new.ordered_at_us,
        };
        let wish = self.saga.wish();
        let rules = self.saga.rules(&order.provider);
        let mut make = || {
            let mut turn = Turn::new(wish.now_us, &rules);
            let mut payment = Payment::create(order.clone(), &mut turn)?;
            expect(&payment, new.expected)?;
            if new.confirm {
                payment.confirm(&mut turn, None)?;
            }
            turn.effects.spending = self.saga.limits().spending(&payment, 0, wish.now_us);
            let next = payment.next(&mut turn);
            let mut decision = Decision {
                effects: turn.effects,
                next,
                pause: false,
                begun: None,
            };
            let (by, method) = (&request.principal, request.method);
            audit(&payment, &mut decision, by, method, wish.now_us);
            Ok((payment, decision))
        };
        let opened = self.store.create(key.as_ref(), &wish, &mut make).await?;
        self.answer(request.method, key, wish.owner, opened).await
    }

    /// Carries a payment out.
    pub async fn confirm(
        &self,
        request: Request,
        id: PaymentId,
        method: Option<String>,
    ) -> Result<Answer, Error> {
        let confirm = |payment: &mut Payment, turn: &mut Turn<'_>| {
            payment.confirm(turn, method.as_deref())?;
            Ok(None)
        };
        let redirect = |payment: &mut Payment| self.saga.redirect(payment, method.as_deref());
        self.prepared(request, id, redirect, confirm).await
    }

    /// Takes authorised money.
    pub async fn capture(
        &self,
        request: Request,
        id: PaymentId,
        lines: Vec<(String, i32)>,
        is_final: bool,
    ) -> Result<Answer, Error> {
        self.command(request, id, |payment, turn| {
            payment.capture(turn, &lines, is_final)?;
            Ok(None)
        })
        .await
    }

    /// Gives a payment up.
    pub async fn cancel(&self, request: Request, id: PaymentId) -> Result<Answer, Error> {
        self.command(request, id, |payment, turn| {
            payment.cancel(turn)?;
            Ok(None)
        })
        .await
    }

    /// Gives captured money back.
    pub async fn refund(
        &self,
        request: Request,
        id: PaymentId,
        wanted: Wanted,
        how: How,
    ) -> Result<Answer, Error> {
        self.command(request, id, |payment, turn| {
            let refund = payment.refund(turn, &wanted, how.clone())?;
            Ok(Some(Begun::Refund(refund)))
        })
        .await
    }

    /// Does once more what a stored webhook asked for, which named `reference` of a payment.
    pub async fn replay_webhook(
        &self,
        request: Request,
        id: PaymentId,
        reference: &str,
    ) -> Result<Answer, Error> {
        self.command(request, id, |payment, turn| {
            payment.check_up(turn, reference);
            Ok(None)
        })
        .await
    }

    /// Asks the provider now what became of everything of a payment that is open.
    pub async fn look_up(&self, request: Request, id: PaymentId) -> Result<Answer, Error> {
        self.command(request, id, |payment, turn| {
            payment.check_everything(turn);
            Ok(None)
        })
        .await
    }

    /// Takes a provider's webhook: verified, stored once, then the truth is looked up.
    pub async fn receive_webhook(
        &self,
        provider: &str,
        headers: &http::HeaderMap,
        body: &[u8],
    ) -> Result<(), Error> {
        let from = self.saga.providers().get(provider);
        let from = from.ok_or_else(|| Error::ProviderNotFound(provider.to_owned()))?;
        let wish = self.saga.wish();
        let event =
            from.verify_webhook(headers, body, wish.now_us)
                .map_err(|error| match error {
                    WebhookError::Signature(why) => Error::Signature(why),
                    WebhookError::Body(invalid) => Error::from(invalid),
                })?;
        let Some(reference) = self.named(&**from, &event).await? else {
            return Ok(()); // A hint about nothing of ours.
        };
        let mut decide = |payment: &mut Payment, holds_lease: bool| {
            let check = |payment: &mut Payment, turn: &mut Turn<'_>| {
                payment.check_up(turn, &reference);
                Ok(None)
            };
            let mut decision = self.saga.decide(payment, wish.now_us, holds_lease, check)?;
            let (by, method) = (
                format!("provider:{provider}"),
                wire::method::RECEIVE_WEBHOOK,
            );
            // What anybody can send is nobody's act.
            if event.signed {
                audit(payment, &mut decision, &by, method, wish.now_us);
            }
            Ok(decision)
        };
        let recorded = self
            .store
            .webhook(provider, &event.event_id, &reference, &wish, &mut decide)
            .await?;
        if let Some(Recorded {
            payment,
            work: work @ (Work::Call(_) | Work::Pause(_)),
            ..
        }) = recorded
        {
            drop(self.saga.start(payment, wish.owner, work)); // The provider need not wait for it.
        }
        Ok(())
    }

    /// What an event is to be stored under: of a payment, its latest attempt. Nothing: it is not stored. An error where
    /// the provider has to be asked and does not answer: it sends the webhook again.
    async fn named(
        &self,
        provider: &dyn Provider,
        event: &WebhookEvent,
    ) -> Result<Option<String>, Error> {
        if let Some(charge) = &event.disputed_charge {
            let named = provider.reference_of(charge).await;
            let named = named.map_err(|error| Error::ProviderUnavailable(error.to_string()))?;
            let reference = named.map(|charge| dispute::reference_of(&charge));
            return Ok(reference.or_else(|| event.signed.then(String::new)));
        }
        let Ok(id) = PaymentId::parse(&event.reference) else {
            return Ok(event.signed.then(|| event.reference.clone()));
        };
        let payment = self.store.payment(id).await?;
        let attempt = payment.and_then(|payment| payment.attempts.last().map(|last| last.id));
        let reference = attempt.map(|attempt| attempt.to_string());
        Ok(reference.or_else(|| event.signed.then(String::new)))
    }

    async fn command(
        &self,
        request: Request,
        id: PaymentId,
        command: impl Fn(&mut Payment, &mut Turn<'_>) -> Result<Option<Begun>, Rejection> + Send + Sync,
    ) -> Result<Answer, Error> {
        self.prepared(request, id, |_| {}, command).await
    }

    /// A command before which something is done to the payment that changes which rules hold.
    async fn prepared(
        &self,
        request: Request,
        id: PaymentId,
        prepare: impl Fn(&mut Payment) + Send + Sync,
        command: impl Fn(&mut Payment, &mut Turn<'_>) -> Result<Option<Begun>, Rejection> + Send + Sync,
    ) -> Result<Answer, Error> {
        let key = request.key();
        let wish = self.saga.wish();
        let mut decide = |payment: &mut Payment, holds_lease: bool| {
            prepare(payment);
            let mut decision = self
                .saga
                .decide(payment, wish.now_us, holds_lease, &command)?;
            let (by, method) = (&request.principal, request.method);
            audit(payment, &mut decision, by, method, wish.now_us);
            Ok(decision)
        };
        let opened = self
            .store
            .command(key.as_ref(), id, &request.viewer, &wish, &mut decide)
            .await?;
        self.answer(request.method, key, wish.owner, opened).await
    }

    fn provider_for(&self, new: &NewPayment, items: &[Item]) -> Result<String, Error> {
        let (_, amount) = new.charges.clone().price(new.currency, items)?;
        let wish = Wish {
            currency: new.currency.code(),
            amount_minor: amount.amount_minor(),
            method: &new.payment_method,
            capture_method: new.capture_method,
            current: None,
        };
        let chosen = self.saga.route(&wish, rand::random());
        Ok(chosen.unwrap_or(&self.provider).to_owned())
    }

    /// The answer of a key that has one; nothing where the key is new.
    async fn known(&self, key: Option<&Key>) -> Result<Option<Answer>, Error> {
        let Some(key) = key else { return Ok(None) };
        match self.store.find(key).await? {
            None | Some(Claim::New) => Ok(None),
            Some(Claim::Replay(bytes)) => Ok(Some(Answer {
                bytes,
                replayed: true,
            })),
            Some(Claim::InFlight { .. }) => Err(Error::InFlight),
            Some(Claim::Reused) => Err(Error::KeyReused),
        }
    }

    async fn answer(
        &self,
        method: &'static str,
        key: Option<Key>,
        owner: String,
        opened: Opened,
    ) -> Result<Answer, Error> {
        let recorded = match opened {
            Opened::Replay(bytes) => {
                return Ok(Answer {
                    bytes,
                    replayed: true,
                });
            }
            Opened::InFlight => return Err(Error::InFlight),
            Opened::Reused => return Err(Error::KeyReused),
            Opened::Recorded(recorded) => recorded,
        };
        let Recorded {
            payment,
            begun,
            work,
            answer,
        } = recorded;
        self.saga.moved().notify_waiters();
        if let (Work::Done, Some(bytes)) = (&work, answer) {
            return Ok(Answer {
                bytes,
                replayed: false,
            });
        }
        let queued = match work {
            Work::Done => false,
            Work::Queued => true,
            Work::Call(_) | Work::Pause(_) => {
                let run = self.saga.start(payment, owner, work);
                run.await.map_err(|_| Error::Interrupted)?;
                false
            }
        };
        if queued {
            self.wait_for_turn(payment, key.as_ref()).await?;
        }
        loop {
            let Some(key) = &key else {
                let stored = self.store.payment(payment).await?;
                let stored = stored.ok_or_else(|| Error::PaymentNotFound(payment.to_string()))?;
                let bytes = wire::answer(method, &stored, begun);
                return Ok(Answer {
                    bytes,
                    replayed: false,
                });
            };
            if let Some(Claim::Replay(bytes)) = self.store.find(key).await? {
                return Ok(Answer {
                    bytes,
                    replayed: false,
                });
            }
            // The run lost its lease: whoever holds it now answers.
            self.wait_for_turn(payment, Some(key)).await?;
        }
    }

    /// Waits until a command that was recorded beside another run is answered; takes the lease when
    /// that run is gone.
    async fn wait_for_turn(&self, payment: PaymentId, key: Option<&Key>) -> Result<(), Error> {
        loop {
            let moved = self.saga.moved().notified();
            let answered = match key {
                Some(key) => matches!(self.store.find(key).await?, Some(Claim::Replay(_))),
                None => false,
            };
            if answered || self.resume_detached(payment).await? {
                return Ok(());
            }
            tokio::select! {
                () = moved => {}
                () = tokio::time::sleep(QUEUE_POLL) => {}
            }
        }
    }

    async fn resume_detached(&self, payment: PaymentId) -> Result<bool, Error> {
        let saga = self.saga.clone();
        let run = self
            .saga
            .tasks()
            .spawn(mesh::detach(async move { saga.resume(payment).await }));
        run.await.map_err(|_| Error::Interrupted)?
    }
}

/// Adds to a decision who made it.
fn audit(payment: &Payment, decision: &mut Decision, by: &str, method: &str, now_us: i64) {
    let outcome = audit_outcome(payment, &decision.effects, decision.begun);
    let record = Record::new(by, method, payment.id.to_string(), outcome, now_us);
    decision.effects.audit.push(record);
}

fn expect(payment: &Payment, expected: Option<Money>) -> Result<(), Rejection> {
    let actual = payment.money(payment.amount_minor);
    match expected {
        Some(expected) if expected != actual => Err(Rejection::PriceChanged { expected, actual }),
        Some(_) | None => Ok(()),
    }
}

fn not_quoted(error: QuoteError, lines: &[(String, i32)]) -> Error {
    match error {
        QuoteError::Unavailable => Error::ProductUnavailable,
        QuoteError::NotSold { index, reason } => Error::NotSold {
            field: format!("items[{index}].sku"),
            sku: lines
                .get(index)
                .map_or_else(String::new, |(sku, _)| sku.clone()),
            reason,
        },
    }
}
