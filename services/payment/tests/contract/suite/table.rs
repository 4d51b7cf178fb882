//! A payment on the table: the domain driven by hand, with a provider and a catalogue in memory and
//! no storage. What it lacks in reality it has in speed: thousands of sequences in seconds.

use crate::suite::catalogue::MemoryCatalogue;
use async_trait::async_trait;
use http::HeaderMap;
use mesh_runtime::Clock;
use payment::catalogue::ask_catalogue;
use payment::config::SagaConfig;
use payment::fact::{Effects, Turn};
use payment::money::ask_provider;
use payment::payment::Payment;
use payment::policy::Rules;
use payment::provider::{
    Authorize, Capabilities, Capture, ChargeOutcome, Decline, Provider, ProviderError, Refund,
    Settlement, SettlementPage, TransactionPage, Void, WebhookError, WebhookEvent,
};
use payment::rejection::Rejection;
use payment::step::{Call, Next};
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(1);

pub(super) struct Table {
    pub(super) clock: Clock,
    pub(super) catalogue: MemoryCatalogue,
    provider: MemoryProvider,
    rules: Rules,
    left_behind: Mutex<Effects>,
}

impl Table {
    pub(super) fn new(clock: Clock) -> Self {
        let provider = MemoryProvider {
            clock: clock.clone(),
            charges: Mutex::default(),
        };
        let rules = SagaConfig::default().rules(Some(provider.capabilities()));
        Self {
            catalogue: MemoryCatalogue::new(clock.clone()),
            clock,
            provider,
            rules,
            left_behind: Mutex::default(),
        }
    }

    /// Carries out a command and everything that follows from it now. A command that is refused
    /// changes nothing.
    pub(super) async fn change<T>(
        &self,
        payment: &mut Payment,
        command: impl FnOnce(&mut Payment, &mut Turn<'_>) -> Result<T, Rejection>,
    ) -> Result<(), Rejection> {
        let mut changed = payment.clone();
        let mut turn = self.turn(&mut changed);
        command(&mut changed, &mut turn)?;
        let mut next = changed.next(&mut turn);
        self.keep(turn.effects);
        while let Next::Call(call) = next {
            let report = match *call {
                Call::Stock(call) => {
                    ask_catalogue(&self.catalogue, changed.id, &call, self.clock.now_us()).await
                }
                Call::Money(_, call) => ask_provider(&self.provider, &call, LIMIT).await,
            };
            let mut turn = self.turn(&mut changed);
            changed.record(&mut turn, report);
            next = changed.next(&mut turn);
            self.keep(turn.effects);
        }
        *payment = changed;
        Ok(())
    }

    pub(super) fn turn(&self, payment: &mut Payment) -> Turn<'_> {
        payment.version += 1;
        Turn::new(self.clock.now_us(), &self.rules)
    }

    /// Adds to what payments have left behind.
    pub(super) fn keep(&self, effects: Effects) {
        let mut all = self.left_behind.lock().unwrap();
        all.facts.extend(effects.facts);
        all.moves.extend(effects.moves);
        all.entries.extend(effects.entries);
        all.sales.extend(effects.sales);
    }

    /// What payments have left behind so far.
    pub(super) fn left_behind(&self) -> Effects {
        self.left_behind.lock().unwrap().clone()
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }
}

struct MemoryProvider {
    clock: Clock,
    charges: Mutex<HashMap<String, Charge>>,
}

struct Charge {
    method: String,
    left_minor: i64,
    voided: bool,
}

impl MemoryProvider {
    fn outcome(&self, charge: &Charge, asked_before: bool) -> ChargeOutcome {
        match charge.method.as_str() {
            _ if charge.voided => ChargeOutcome::Voided,
            "pm_card_declined" => ChargeOutcome::Declined(Decline {
                code: "CARD_DECLINED".into(),
                message: "declined".into(),
            }),
            "pm_card_authentication_required" => ChargeOutcome::ActionRequired {
                redirect_url: "https://bank".into(),
            },
            "pm_card_authentication_ok" if !asked_before => ChargeOutcome::ActionRequired {
                redirect_url: "https://bank".into(),
            },
            _ => ChargeOutcome::Authorized {
                provider_ref: String::new(),
                expires_at_us: self.clock.now_us() + self.capabilities().authorization_ttl_us,
            },
        }
    }

    fn done() -> Settlement {
        Settlement::Done {
            provider_ref: String::new(),
        }
    }
}

#[async_trait]
impl Provider for MemoryProvider {
    fn name(&self) -> &'static str {
        "table"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            manual_capture: true,
            partial_capture: true,
            void: true,
            authorization_ttl_us: 7 * 86_400_000_000,
            idempotency_window_us: i64::MAX,
            look_up_lag_us: 0,
        }
    }

    async fn authorize(&self, request: &Authorize) -> Result<ChargeOutcome, ProviderError> {
        let charge = Charge {
            method: request.payment_method.clone(),
            left_minor: request.amount.amount_minor(),
            voided: false,
        };
        let outcome = self.outcome(&charge, false);
        let known = self
            .charges
            .lock()
            .unwrap()
            .insert(request.reference.clone(), charge);
        assert!(
            known.is_none(),
            "nothing is lost here, so nothing is sent twice"
        );
        Ok(outcome)
    }

    async fn capture(&self, request: &Capture) -> Result<Settlement, ProviderError> {
        let mut charges = self.charges.lock().unwrap();
        let charge = charges.get_mut(&request.charge_reference).unwrap();
        charge.left_minor -= request.amount.amount_minor();
        assert!(
            charge.left_minor >= 0 && !charge.voided,
            "captured what is not authorised"
        );
        charge.voided |= request.last;
        Ok(Self::done())
    }

    async fn void(&self, request: &Void) -> Result<Settlement, ProviderError> {
        self.charges
            .lock()
            .unwrap()
            .get_mut(&request.charge_reference)
            .unwrap()
            .voided = true;
        Ok(Self::done())
    }

    async fn refund(&self, _request: &Refund) -> Result<Settlement, ProviderError> {
        Ok(Self::done())
    }

    async fn look_up_charge(
        &self,
        reference: &str,
    ) -> Result<Option<ChargeOutcome>, ProviderError> {
        let charges = self.charges.lock().unwrap();
        Ok(charges
            .get(reference)
            .map(|charge| self.outcome(charge, true)))
    }

    async fn look_up_settlement(&self, _: &str) -> Result<Option<Settlement>, ProviderError> {
        unreachable!("nothing is lost here, so nothing is looked up")
    }

    fn verify_webhook(
        &self,
        _: &HeaderMap,
        _: &[u8],
        _: i64,
    ) -> Result<WebhookEvent, WebhookError> {
        Err(WebhookError::Signature("none is expected"))
    }

    async fn transactions(&self, _: Option<&str>) -> Result<TransactionPage, ProviderError> {
        Ok(TransactionPage {
            transactions: Vec::new(),
            next: None,
        })
    }

    async fn settlements(&self, _: Option<&str>) -> Result<SettlementPage, ProviderError> {
        Ok(SettlementPage {
            lines: Vec::new(),
            next: None,
        })
    }

    fn since(&self, _: i64) -> String {
        String::new()
    }
}
