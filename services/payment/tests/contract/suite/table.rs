//! A payment on the table: the domain driven by hand, with a provider and a catalogue in memory and
//! no storage. What it lacks in reality it has in speed: thousands of sequences in seconds.

use crate::suite::catalogue::MemoryCatalogue;
use async_trait::async_trait;
use http::HeaderMap;
use kernel::Money;
use mesh_runtime::Clock;
use payment::catalogue::ask_catalogue;
use payment::config::SagaConfig;
use payment::dispute::{DisputeState, Evidence, SeenDispute};
use payment::fact::{Effects, Turn};
use payment::money::{ask_provider, submit_evidence};
use payment::payment::Payment;
use payment::policy::Rules;
use payment::provider::{
    AcceptDispute, Authorize, Capabilities, Capture, ChargeOutcome, Decline, Provider,
    ProviderError, Refund, Settlement, SettlementPage, SubmitEvidence, TransactionPage, Void,
    WebhookError, WebhookEvent,
};
use payment::record::Report;
use payment::rejection::Rejection;
use payment::step::{Call, DisputeCall, MoneyCall, Next};
use std::collections::{HashMap, HashSet};
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
            returned: Mutex::default(),
            disputes: Mutex::default(),
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
                Call::Money(_, call) => self.ask(&call).await,
            };
            let mut turn = self.turn(&mut changed);
            changed.record(&mut turn, report);
            next = changed.next(&mut turn);
            self.keep(turn.effects);
        }
        *payment = changed;
        Ok(())
    }

    async fn ask(&self, call: &MoneyCall) -> Report {
        let MoneyCall::Dispute(DisputeCall::SubmitEvidence {
            dispute,
            provider_ref,
            reference,
        }) = call
        else {
            return ask_provider(&self.provider, call, LIMIT).await;
        };
        let request = SubmitEvidence {
            reference: reference.clone(),
            dispute_ref: provider_ref.clone(),
            evidence: Evidence::default(), // What is in it is the store's affair.
        };
        submit_evidence(&self.provider, *dispute, &request, LIMIT).await
    }

    /// A bank returns a refund.
    pub(super) fn return_refund(&self, reference: &str) {
        let mut returned = self.provider.returned.lock().unwrap();
        returned.insert(reference.to_owned());
    }

    /// A bank opens a dispute of a charge.
    pub(super) fn open_dispute(&self, charge: &str, amount: Money, inquiry: bool) {
        let mut disputes = self.provider.disputes.lock().unwrap();
        let of_charge = disputes.entry(charge.to_owned()).or_default();
        of_charge.push(SeenDispute {
            provider_ref: format!("dp_{charge}_{}", of_charge.len()),
            state: if inquiry {
                DisputeState::Inquiry
            } else {
                DisputeState::NeedsResponse
            },
            amount,
            reason: "fraudulent".into(),
            evidence_due_at_us: Some(i64::MAX),
            withdrawn: !inquiry,
            reinstated: false,
            responded: false,
        });
    }

    /// A bank decides a dispute.
    pub(super) fn decide_dispute(&self, dispute_ref: &str, state: DisputeState) {
        self.provider.change_dispute(dispute_ref, |dispute| {
            dispute.state = state;
            dispute.withdrawn |= state == DisputeState::NeedsResponse;
            dispute.reinstated = state == DisputeState::Won;
        });
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
    /// Refunds that banks have returned.
    returned: Mutex<HashSet<String>>,
    /// The disputes of each charge.
    disputes: Mutex<HashMap<String, Vec<SeenDispute>>>,
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

    fn change_dispute(
        &self,
        dispute_ref: &str,
        change: impl FnOnce(&mut SeenDispute),
    ) -> SeenDispute {
        let mut disputes = self.disputes.lock().unwrap();
        let mut all = disputes.values_mut().flatten();
        let dispute = all.find(|of| of.provider_ref == dispute_ref).unwrap();
        change(dispute);
        dispute.clone()
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
            disputes: true,
            method_is_charge: false,
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

    /// Only refunds that a webhook named are looked up: nothing is lost here.
    async fn look_up_settlement(
        &self,
        reference: &str,
    ) -> Result<Option<Settlement>, ProviderError> {
        if self.returned.lock().unwrap().contains(reference) {
            return Ok(Some(Settlement::Declined(Decline {
                code: "REFUND_RETURNED".into(),
                message: "returned".into(),
            })));
        }
        Ok(Some(Self::done()))
    }

    async fn look_up_disputes(&self, charge: &str) -> Result<Vec<SeenDispute>, ProviderError> {
        let disputes = self.disputes.lock().unwrap();
        Ok(disputes.get(charge).cloned().unwrap_or_default())
    }

    async fn submit_evidence(
        &self,
        request: &SubmitEvidence,
    ) -> Result<SeenDispute, ProviderError> {
        Ok(self.change_dispute(&request.dispute_ref, |dispute| {
            dispute.responded = true;
            if dispute.state == DisputeState::NeedsResponse {
                dispute.state = DisputeState::UnderReview;
            }
        }))
    }

    /// As the simulator, which ends no inquiry so.
    async fn accept_dispute(&self, request: &AcceptDispute) -> Result<SeenDispute, ProviderError> {
        let lose = |dispute: &mut SeenDispute| {
            if dispute.state == DisputeState::Inquiry {
                return;
            }
            dispute.state = DisputeState::Lost;
        };
        let seen = self.change_dispute(&request.dispute_ref, lose);
        if seen.state == DisputeState::Lost {
            return Ok(seen);
        }
        Err(ProviderError::Refused {
            code: "INVALID_STATE".into(),
            message: "an inquiry is ended by a refund".into(),
        })
    }

    async fn reference_of(&self, charge_ref: &str) -> Result<Option<String>, ProviderError> {
        Ok(Some(charge_ref.to_owned()))
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
