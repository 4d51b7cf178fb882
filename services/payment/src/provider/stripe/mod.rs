//! Stripe, by PaymentIntents: authorised when it is created, captured later, canceled or refunded.
//!
//! | of ours | at Stripe |
//! |---|---|
//! | a charge | a PaymentIntent, created and confirmed in one request |
//! | our reference | the idempotency key, and `metadata[reference]` |
//! | the customer must act | `requires_action` with a redirect (3-D Secure) |
//! | a dispute | `/v1/disputes`, by the intent; evidence is submitted once, files by `/v1/files` |
//! | a void | cancel; without an idempotency key, for an error that Stripe remembers under one would stay for ever |
//!
//! Stripe's own ids are noted ([`References`]); an intent whose answer was lost is found by searching for our
//! reference, which lags behind: until then the outcome stays unknown (`look_up_lag_us`).
//! Deliberately missing: customers, saved cards and Connect.

mod amount;
mod answer;
mod client;
mod config;
mod disputes;
mod form;
mod messages;
mod settlement;
mod signature;
mod statement;
mod upload;
mod webhook;

pub use config::StripeConfig;

use super::https::{Caller, asked};
use super::{
    AcceptDispute, Authorize, Capabilities, Capture, ChargeOutcome, Provider, ProviderError,
    References, Refund, Settlement, SettlementPage, SubmitEvidence, TransactionPage, Void,
    WebhookError, WebhookEvent, secret,
};
use crate::dispute::SeenDispute;
use amount::to_stripe;
use answer::Problem;
use async_trait::async_trait;
use client::Client;
use form::Form;
use http::HeaderMap;
use kernel::{CaptureId, Invalid};
use mesh_runtime::config::Secret;
use messages::{BalanceTransaction, IntentStatus, Page, PaymentIntent, REFERENCE};
use settlement::Place;
use std::sync::Arc;
use std::time::Duration;

/// Its name as a provider.
pub const NAME: &str = "stripe";

/// How long Stripe remembers an idempotency key: at least 24 hours.
const IDEMPOTENCY_WINDOW_US: i64 = 24 * 3_600 * 1_000_000;
/// How many entries of a list are asked for at once: as many as Stripe gives.
const PAGE: u32 = 100;
/// How many pages of one intent's refunds are looked through.
const REFUND_PAGES_MAX: u32 = 10;

/// Stripe; see the module.
pub struct Stripe {
    client: Client,
    references: Arc<dyn References>,
    webhook_secrets: Vec<Secret>,
    config: StripeConfig,
}

impl Stripe {
    /// Connects to nothing yet. A missing key is an error that names it.
    pub fn new(config: StripeConfig, references: Arc<dyn References>) -> Result<Self, Invalid> {
        const WHY: &str = "provider \"stripe\" is configured";
        let key_file = config.secret_key_file.as_deref();
        let key = secret::one("stripe.secret_key", &config.secret_key, key_file, WHY)?;
        let webhook_secrets = secret::several(
            "stripe.webhook_secrets",
            &config.webhook_secrets,
            config.webhook_secrets_file.as_deref(),
            WHY,
        )?;
        let connect_timeout = Duration::from_millis(config.connect_timeout_ms.into());
        let caller = Caller::new("stripe.url", &config.url, connect_timeout)?;
        let files = Caller::new("stripe.files_url", &config.files_url, connect_timeout)?;
        Ok(Self {
            client: Client::new(caller, files, "stripe.secret_key", &key)?,
            references,
            webhook_secrets,
            config,
        })
    }

    async fn note(&self, reference: &str, provider_ref: &str) -> Result<(), ProviderError> {
        Ok(self.references.note(NAME, reference, provider_ref).await?)
    }

    /// Notes what can be found again if need be, so that failing to is no failure.
    async fn try_note(&self, reference: &str, provider_ref: &str) {
        if let Err(error) = self.note(reference, provider_ref).await {
            tracing::warn!(reference, %error, "stripe's id is to be searched for");
        }
    }

    /// The intent of an attempt: as noted, else searched for by our reference.
    async fn intent_id(&self, reference: &str) -> Result<Option<String>, ProviderError> {
        if let Some(id) = self.references.find(NAME, reference).await? {
            return Ok(Some(id));
        }
        let query = format!("metadata['{REFERENCE}']:'{reference}'");
        let form = Form::default().with("query", query);
        let found = self.client.get("/v1/payment_intents/search", &form).await;
        let found: Page<PaymentIntent> = found.map_err(|problem| asked(problem.refused()))?;
        let id = found.data.into_iter().next().map(|intent| intent.id);
        if let Some(id) = &id {
            self.try_note(reference, id).await;
        }
        Ok(id)
    }

    /// The same for a command, which needs one.
    async fn require_intent(&self, reference: &str) -> Result<String, ProviderError> {
        let id = self.intent_id(reference).await;
        // The command itself was not sent, whatever became of the question. What is not found may only lag behind.
        id.map_err(asked)?.ok_or_else(|| {
            let message = "stripe's search does not find the charge yet".to_owned();
            ProviderError::Unavailable(message)
        })
    }

    async fn intent(&self, id: &str) -> Result<PaymentIntent, ProviderError> {
        let expand = Form::default().with("expand[0]", "latest_charge");
        let intent = self
            .client
            .get(&format!("/v1/payment_intents/{id}"), &expand)
            .await;
        intent.map_err(|problem| asked(problem.refused()))
    }

    /// A refund of an intent by our reference. Stripe lists refunds without a lag.
    async fn find_refund(
        &self,
        intent: &str,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        let mut after: Option<String> = None;
        for _ in 0..REFUND_PAGES_MAX {
            let form = Form::default()
                .with("payment_intent", intent)
                .with("limit", PAGE)
                .with_some("starting_after", after.as_ref());
            let page = self.client.get("/v1/refunds", &form).await;
            let page: Page<messages::Refund> = page.map_err(|problem| asked(problem.refused()))?;
            let of_reference = |refund: &&messages::Refund| {
                refund
                    .metadata
                    .get(REFERENCE)
                    .is_some_and(|own| own == reference)
            };
            if let Some(refund) = page.data.iter().find(of_reference) {
                return Ok(Some(answer::refund(refund)));
            }
            after = page
                .data
                .last()
                .filter(|_| page.has_more)
                .map(|last| last.id.clone());
            if after.is_none() {
                return Ok(None);
            }
        }
        let reason = format!("more than {REFUND_PAGES_MAX} pages of refunds of one charge");
        Err(ProviderError::Unavailable(reason))
    }

    fn authorize_form(&self, request: &Authorize) -> Result<Form, ProviderError> {
        let capture_method = if request.capture {
            "automatic"
        } else {
            "manual"
        };
        let mut form = Form::default()
            .with("amount", to_stripe(request.amount)?)
            .with("currency", request.amount.currency().code().to_lowercase())
            .with("payment_method", &request.payment_method)
            .with("confirm", true)
            .with("capture_method", capture_method);
        for (place, kind) in self.config.payment_method_types.iter().enumerate() {
            form = form.with(format!("payment_method_types[{place}]"), kind);
        }
        let multicapture = self.config.multicapture.then_some("if_available");
        let return_url = Some(&self.config.return_url).filter(|url| !url.is_empty());
        Ok(form
            .with_some(
                "payment_method_options[card][request_multicapture]",
                multicapture,
            )
            .with_some("return_url", return_url)
            .with(format!("metadata[{REFERENCE}]"), &request.reference)
            .with("metadata[payment]", &request.payment_reference)
            .with("metadata[order_ref]", &request.order_ref)
            .with("expand[0]", "latest_charge"))
    }
}

#[async_trait]
impl Provider for Stripe {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            manual_capture: true,
            partial_capture: self.config.multicapture,
            void: true,
            authorization_ttl_us: i64::from(self.config.authorization_ttl_s) * 1_000_000,
            idempotency_window_us: IDEMPOTENCY_WINDOW_US,
            look_up_lag_us: i64::from(self.config.search_lag_s) * 1_000_000,
            disputes: true,
            method_is_charge: false,
        }
    }

    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError> {
        let form = self.authorize_form(request)?;
        let key = Some(request.reference.as_str());
        let created = self.client.post("/v1/payment_intents", &form, key).await;
        let intent: PaymentIntent = match created {
            Ok(intent) => intent,
            Err(Problem::No(error)) if error.is_decline() => {
                if let Some(intent) = &error.payment_intent {
                    self.try_note(&request.reference, &intent.id).await;
                }
                return Ok(ChargeOutcome::Declined(answer::decline(&error)));
            }
            Err(problem) => return Err(problem.refused()),
        };
        self.try_note(&request.reference, &intent.id).await;
        Ok(answer::charge(
            &intent,
            self.capabilities().authorization_ttl_us,
        ))
    }

    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError> {
        let amount = to_stripe(request.amount)?;
        let intent = self.require_intent(&request.charge_reference).await?;
        self.note(&request.reference, &intent).await?;
        let mut form = Form::default().with("amount_to_capture", amount);
        if self.config.multicapture {
            form = form
                .with("final_capture", request.last)
                .with(format!("metadata[{}]", request.reference), amount);
        }
        let path = format!("/v1/payment_intents/{intent}/capture");
        let captured = self
            .client
            .post(&path, &form, Some(&request.reference))
            .await;
        match captured {
            Ok(PaymentIntent { id, .. }) => Ok(answer::done(&id)),
            Err(Problem::No(error)) => match error.payment_intent.as_deref() {
                // Somebody has captured it already: asking says whether it was this capture.
                Some(intent) if intent.status == IntentStatus::Succeeded => {
                    Err(ProviderError::Unknown(error.message))
                }
                _ => Ok(Settlement::Declined(answer::decline(&error))),
            },
            Err(Problem::Provider(error)) => Err(error),
        }
    }

    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        let intent = self.require_intent(&request.charge_reference).await?;
        let path = format!("/v1/payment_intents/{intent}/cancel");
        match self.client.post(&path, &Form::default(), None).await {
            Ok(PaymentIntent { id, .. }) => Ok(answer::done(&id)),
            Err(Problem::No(error)) => match error.payment_intent.as_deref() {
                Some(intent) if intent.status == IntentStatus::Canceled => {
                    Ok(answer::done(&intent.id))
                }
                _ => Ok(Settlement::Declined(answer::decline(&error))),
            },
            Err(Problem::Provider(error)) => Err(error),
        }
    }

    async fn refund(&self, request: &Refund) -> Result<Settlement, ProviderError> {
        let amount = to_stripe(request.amount)?;
        let intent = self.require_intent(&request.charge_reference).await?;
        self.note(&request.reference, &intent).await?;
        let form = Form::default()
            .with("payment_intent", &intent)
            .with("amount", amount)
            .with(format!("metadata[{REFERENCE}]"), &request.reference);
        let key = Some(request.reference.as_str());
        match self.client.post("/v1/refunds", &form, key).await {
            Ok(refund) => Ok(answer::refund(&refund)),
            // By this very refund, perhaps, long ago.
            Err(Problem::No(error)) if error.code == "charge_already_refunded" => {
                match self.find_refund(&intent, &request.reference).await {
                    Ok(Some(settlement)) => Ok(settlement),
                    Ok(None) => Err(Problem::No(error).refused()),
                    Err(error) => Err(ProviderError::Unknown(error.to_string())),
                }
            }
            Err(problem) => Err(problem.refused()),
        }
    }

    async fn look_up_charge(
        &self,
        reference: &str,
    ) -> Result<Option<ChargeOutcome>, ProviderError> {
        let Some(id) = self.intent_id(reference).await? else {
            return Ok(None);
        };
        let intent = self.intent(&id).await?;
        let ttl_us = self.capabilities().authorization_ttl_us;
        Ok(Some(answer::charge(&intent, ttl_us)))
    }

    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        // It is noted before the command is sent.
        let Some(id) = self.references.find(NAME, reference).await? else {
            return Ok(None);
        };
        if CaptureId::parse(reference).is_err() {
            return self.find_refund(&id, reference).await;
        }
        let intent = self.intent(&id).await?;
        Ok(answer::capture(
            &intent,
            reference,
            self.config.multicapture,
        ))
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

    async fn reference_of(&self, charge_ref: &str) -> Result<Option<String>, ProviderError> {
        self.attempt_of(charge_ref).await
    }

    fn verify_webhook(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now_us: i64,
    ) -> Result<WebhookEvent, WebhookError> {
        let tolerance_us = i64::from(self.config.webhook_tolerance_s) * 1_000_000;
        webhook::verify(&self.webhook_secrets, headers, body, tolerance_us, now_us)
    }

    /// Newest first. Of a capture the reference is that of its attempt: Stripe books by intent.
    async fn transactions(&self, from: Option<&str>) -> Result<TransactionPage, ProviderError> {
        let (booked, next) = self.balance(from).await?;
        let mut transactions = Vec::with_capacity(booked.len());
        for booked in booked {
            let Some(mut line) = statement::transaction(&booked) else {
                continue;
            };
            if let Some(intent) = statement::disputed_intent(booked) {
                line.charge_reference = self.attempt_of(&intent).await?.unwrap_or_default();
            }
            transactions.push(line);
        }
        Ok(TransactionPage { transactions, next })
    }

    /// Newest first.
    async fn settlements(&self, from: Option<&str>) -> Result<SettlementPage, ProviderError> {
        let (booked, next) = self.balance(from).await?;
        let lines = booked.iter().flat_map(settlement::lines).collect();
        Ok(SettlementPage { lines, next })
    }

    fn since(&self, at_us: i64) -> String {
        Place::since(at_us)
    }
}

impl Stripe {
    /// A page of what moved the balance, and where the next one begins.
    async fn balance(
        &self,
        from: Option<&str>,
    ) -> Result<(Vec<BalanceTransaction>, Option<String>), ProviderError> {
        let place = from.map(Place::parse).unwrap_or_default();
        let form = Form::default()
            .with("limit", PAGE)
            .with_some("created[gte]", place.since_s)
            .with_some("starting_after", place.after.as_ref())
            .with("expand[0]", "data.source");
        let page = self.client.get("/v1/balance_transactions", &form).await;
        let page: Page<BalanceTransaction> = page.map_err(|problem| asked(problem.refused()))?;
        let last = page.data.last().filter(|_| page.has_more);
        let next = last.map(|last| place.next(&last.id));
        Ok((page.data, next))
    }
}
