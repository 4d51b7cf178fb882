//! The simulator's rules: what a command does to the entries of one charge. Pure; an entry is
//! appended or nothing happens. One file, for what each command may do depends on what all the others left behind.

use super::entry::{Entry, Operation, Outcome};
use super::token::{self, Script, script};
use crate::provider::{
    Authorize, Capabilities, Capture, ChargeOutcome, ProviderError, Refund, Settlement, Void,
};
use kernel::Money;

/// The parts of the configuration that the rules need.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) one_step: bool,
    pub(super) authorization_ttl_us: i64,
    /// How long a reference is remembered.
    pub(super) idempotency_window_us: i64,
    pub(super) look_up_lag_us: i64,
    pub(super) webhook_delay_us: i64,
    pub(super) late_webhook_delay_us: i64,
    pub(super) late_effect_us: i64,
    pub(super) redirect_url: String,
    /// How long banks take.
    pub(super) bank_delay_us: i64,
    /// How long evidence is waited for.
    pub(super) dispute_response_us: i64,
}

impl Terms {
    pub(super) fn capabilities(&self) -> Capabilities {
        Capabilities {
            manual_capture: !self.one_step,
            partial_capture: !self.one_step,
            void: !self.one_step,
            authorization_ttl_us: self.authorization_ttl_us,
            idempotency_window_us: self.idempotency_window_us,
            look_up_lag_us: self.look_up_lag_us,
            disputes: true,
            method_is_charge: false,
        }
    }

    /// Whether a look-up at this time finds what an entry records.
    pub(super) fn shows(&self, entry: &Entry, now_us: i64) -> bool {
        now_us.saturating_sub(entry.recorded_at_us) >= self.look_up_lag_us
    }
}

/// What a command answers, and the entry that has to be on disk before it does.
#[derive(Debug)]
pub(super) struct Step<T> {
    pub(super) append: Option<Entry>,
    pub(super) answer: T,
}

impl<T> Step<T> {
    pub(super) fn answer(answer: T) -> Self {
        Self {
            append: None,
            answer,
        }
    }
}

/// The entries of one charge, oldest first, and of the reference that a command carries.
#[derive(Debug)]
pub(super) struct Book<'a> {
    pub(super) entries: &'a [Entry],
    pub(super) terms: &'a Terms,
    pub(super) now_us: i64,
}

/// A charge, summed up from its entries.
struct Charge<'a> {
    /// The newest entry of its authorisation.
    entry: &'a Entry,
    captured_minor: i64,
    refunded_minor: i64,
    /// Voided, or captured for the last time.
    closed: bool,
}

impl Book<'_> {
    /// What becomes of a charge by itself: a pending one whose time has come and, when somebody
    /// `asked` how it stands, one whose customer is scripted to have authenticated; and what banks do at its time.
    pub(super) fn settle(&self, charge_reference: &str, asked: bool) -> Option<Entry> {
        self.settle_charge(charge_reference, asked)
            .or_else(|| self.settle_bank())
    }

    fn settle_charge(&self, charge_reference: &str, asked: bool) -> Option<Entry> {
        let charge = self
            .charge(charge_reference)
            .filter(|charge| !charge.closed)?;
        let entry = charge.entry;
        match (entry.outcome, script(&entry.payment_method)) {
            (Outcome::Pending, _) if entry.due_at_us.is_some_and(|due| due <= self.now_us) => {
                Some(self.decided(entry, true))
            }
            (Outcome::ActionRequired, Some(Script::Authenticated(ok))) if asked => {
                Some(self.decided(entry, ok))
            }
            _ => None,
        }
    }

    /// The customer of a charge has authenticated, or failed to.
    pub(super) fn authenticate(&self, reference: &str, ok: bool) -> Option<Entry> {
        let charge = self.charge(reference).filter(|charge| !charge.closed)?;
        let waits = charge.entry.outcome == Outcome::ActionRequired;
        waits.then(|| self.decided(charge.entry, ok))
    }

    /// `declined`: whatever the token says.
    pub(super) fn authorize(
        &self,
        request: &Authorize,
        declined: bool,
    ) -> Result<Step<ChargeOutcome>, ProviderError> {
        let script = script(&request.payment_method).ok_or_else(|| {
            // The text is not repeated: somebody may have put a card number there.
            refused(
                "PAYMENT_METHOD_UNKNOWN",
                "the payment method is not a token of this provider",
            )
        })?;
        let mut entry = Entry {
            recorded_at_us: self.now_us,
            operation: Operation::Authorize,
            reference: request.reference.clone(),
            charge_reference: request.reference.clone(),
            order_ref: request.order_ref.clone(),
            payment_method: request.payment_method.clone(),
            amount: request.amount,
            at_once: request.capture || self.terms.one_step,
            last: false,
            outcome: Outcome::Pending,
            code: None,
            expires_at_us: None,
            due_at_us: None,
        };
        if let Some(charge) = self.charge(&request.reference) {
            if self.remembers(charge.entry) {
                same_parameters(charge.entry, &entry)?;
                return Ok(Step::answer(self.outcome(&charge)));
            }
            entry.reference = self.forgotten(&request.reference);
            entry.charge_reference.clone_from(&entry.reference);
        }
        require_amount(request.amount)?;
        match script {
            _ if declined => {
                entry.outcome = Outcome::Declined;
                entry.code = Some(token::CARD_DECLINED.to_owned());
            }
            Script::Decline(code) => {
                entry.outcome = Outcome::Declined;
                entry.code = Some(code.to_owned());
            }
            Script::Authenticate | Script::Authenticated(_) => {
                entry.outcome = Outcome::ActionRequired;
            }
            Script::WebhookLate => {
                entry.due_at_us = Some(self.now_us + self.terms.late_webhook_delay_us);
            }
            Script::WebhookDuplicate
            | Script::WebhookReordered
            | Script::WebhookForged
            | Script::WebhookLost => {
                entry.due_at_us = Some(self.now_us + self.terms.webhook_delay_us);
            }
            Script::Succeed
            | Script::TimeoutBefore
            | Script::TimeoutAfter
            | Script::Late
            | Script::Slow
            | Script::DeclineCapture
            | Script::DeclineRefund
            | Script::FailRefundLater
            | Script::DisputeWon
            | Script::DisputeLost
            | Script::Inquiry
            | Script::InquiryEscalates => entry = self.decided(&entry, true),
        }
        let answer = self.outcome(&Charge::new(&entry));
        Ok(Step {
            append: Some(entry),
            answer,
        })
    }

    pub(super) fn capture(&self, request: &Capture) -> Result<Step<Settlement>, ProviderError> {
        let charge = self.require_charge(&request.charge_reference)?;
        let mut entry = self.entry(
            &charge,
            Operation::Capture,
            &request.reference,
            request.amount,
        );
        entry.last = request.last;
        if let Some(earlier) = self.find(Operation::Capture, &request.reference) {
            if self.remembers(earlier) {
                same_parameters(earlier, &entry)?;
                return Ok(Step::answer(settlement(earlier)));
            }
            entry.reference = self.forgotten(&request.reference);
        }
        require_amount(request.amount)?;
        if self.terms.one_step {
            return Err(refused("UNSUPPORTED", "this provider charges in one step"));
        }
        if charge.entry.outcome != Outcome::Authorized || charge.closed {
            return Err(refused("INVALID_STATE", "nothing is authorised any more"));
        }
        charge.require_currency(request.amount)?;
        if request.amount.amount_minor() > charge.left_minor() {
            return Err(refused(
                "AMOUNT_EXCEEDED",
                "more than is authorised and not captured",
            ));
        }
        let expired = charge.expired(self.now_us);
        let scripted = script(&charge.entry.payment_method) == Some(Script::DeclineCapture);
        if expired || scripted {
            let code = if expired {
                token::AUTHORIZATION_EXPIRED
            } else {
                token::CAPTURE_DECLINED
            };
            entry.outcome = Outcome::Declined;
            entry.code = Some(code.to_owned());
        } else {
            entry.outcome = Outcome::Captured;
        }
        Ok(Step {
            answer: settlement(&entry),
            append: Some(entry),
        })
    }

    pub(super) fn void(&self, request: &Void) -> Result<Step<Settlement>, ProviderError> {
        let charge = self.require_charge(&request.charge_reference)?;
        if let Some(earlier) = self.find(Operation::Void, &request.charge_reference) {
            return Ok(Step::answer(settlement(earlier)));
        }
        if self.terms.one_step {
            return Err(refused("UNSUPPORTED", "this provider charges in one step"));
        }
        let all_captured = charge.captured_minor >= charge.entry.amount.amount_minor();
        if charge.entry.outcome == Outcome::Captured || (charge.captured_minor > 0 && all_captured)
        {
            return Err(refused(
                "ALREADY_CAPTURED",
                "it is captured; refund it instead",
            ));
        }
        let left = Money::new(charge.entry.amount.currency(), charge.left_minor())
            .expect("a part of an amount is an amount");
        let mut entry = self.entry(&charge, Operation::Void, &request.charge_reference, left);
        entry.outcome = Outcome::Voided;
        Ok(Step {
            answer: settlement(&entry),
            append: Some(entry),
        })
    }

    pub(super) fn refund(&self, request: &Refund) -> Result<Step<Settlement>, ProviderError> {
        let charge = self.require_charge(&request.charge_reference)?;
        let mut entry = self.entry(
            &charge,
            Operation::Refund,
            &request.reference,
            request.amount,
        );
        if let Some(earlier) = self.find(Operation::Refund, &request.reference) {
            if self.remembers(earlier) {
                same_parameters(earlier, &entry)?;
                return Ok(Step::answer(settlement(earlier)));
            }
            entry.reference = self.forgotten(&request.reference);
        }
        require_amount(request.amount)?;
        charge.require_currency(request.amount)?;
        if request.amount.amount_minor() > charge.captured_minor - charge.refunded_minor {
            return Err(refused(
                "AMOUNT_EXCEEDED",
                "more than is captured and not refunded",
            ));
        }
        let by_hand = request.reference.starts_with(token::BY_HAND);
        if script(&charge.entry.payment_method) == Some(Script::DeclineRefund) && !by_hand {
            entry.outcome = Outcome::Declined;
            entry.code = Some(token::REFUND_DECLINED.to_owned());
        } else {
            entry.outcome = Outcome::Refunded;
        }
        Ok(Step {
            answer: settlement(&entry),
            append: Some(entry),
        })
    }

    /// Where a charge stands; none when it never arrived, or so lately that a look-up does not find it.
    pub(super) fn charge_outcome(&self, reference: &str) -> Option<ChargeOutcome> {
        let mut entries = self.entries.iter();
        let begun = entries.find(|entry| entry.charge_reference == reference)?;
        if !self.terms.shows(begun, self.now_us) {
            return None;
        }
        self.charge(reference).map(|charge| {
            if charge.is_given_back() {
                ChargeOutcome::Voided
            } else {
                self.outcome(&charge)
            }
        })
    }

    /// Whether the reference of an entry is still known as an idempotency key.
    fn remembers(&self, entry: &Entry) -> bool {
        self.now_us.saturating_sub(entry.recorded_at_us) < self.terms.idempotency_window_us
    }

    /// What is done again under a key that was forgotten is something new, of which its caller knows nothing:
    /// it stands in the journal under a reference that nobody asks for.
    fn forgotten(&self, reference: &str) -> String {
        format!("{reference}#{}", self.now_us)
    }

    fn charge(&self, reference: &str) -> Option<Charge<'_>> {
        let entries = || {
            self.entries
                .iter()
                .filter(|entry| entry.charge_reference == reference)
        };
        let newest = entries().rfind(|entry| entry.operation == Operation::Authorize)?;
        let mut charge = Charge::new(newest);
        for entry in entries() {
            match (entry.operation, entry.outcome) {
                (Operation::Capture, Outcome::Captured) => {
                    charge.captured_minor += entry.amount.amount_minor();
                    charge.closed |= entry.last;
                }
                (Operation::Void, Outcome::Voided) => charge.closed = true,
                (Operation::Refund, Outcome::Refunded) => {
                    charge.refunded_minor += entry.amount.amount_minor();
                }
                (Operation::Refund, Outcome::RefundFailed) => {
                    charge.refunded_minor -= entry.amount.amount_minor();
                }
                _ => {}
            }
        }
        Some(charge)
    }

    fn require_charge(&self, reference: &str) -> Result<Charge<'_>, ProviderError> {
        self.charge(reference).ok_or_else(|| {
            refused(
                "CHARGE_NOT_FOUND",
                "there is no charge under this reference",
            )
        })
    }

    fn find(&self, operation: Operation, reference: &str) -> Option<&Entry> {
        self.entries
            .iter()
            .rfind(|entry| entry.operation == operation && entry.reference == reference)
    }

    /// A command's entry, with what it takes over from its charge.
    fn entry(
        &self,
        charge: &Charge<'_>,
        operation: Operation,
        reference: &str,
        amount: Money,
    ) -> Entry {
        Entry {
            recorded_at_us: self.now_us,
            operation,
            reference: reference.to_owned(),
            amount,
            at_once: false,
            code: None,
            expires_at_us: None,
            due_at_us: None,
            ..charge.entry.clone()
        }
    }

    /// The entry of a charge that is now authorised or charged, or was not authenticated.
    fn decided(&self, entry: &Entry, ok: bool) -> Entry {
        let outcome = match (ok, entry.at_once) {
            (false, _) => Outcome::Declined,
            (true, true) => Outcome::Captured,
            (true, false) => Outcome::Authorized,
        };
        Entry {
            recorded_at_us: self.now_us,
            outcome,
            code: (!ok).then(|| token::AUTHENTICATION_FAILED.to_owned()),
            expires_at_us: (outcome == Outcome::Authorized)
                .then_some(self.now_us + self.terms.authorization_ttl_us),
            due_at_us: None,
            ..entry.clone()
        }
    }

    fn outcome(&self, charge: &Charge<'_>) -> ChargeOutcome {
        let entry = charge.entry;
        let provider_ref = provider_ref(entry);
        match entry.outcome {
            Outcome::Declined => ChargeOutcome::Declined(declined(entry)),
            Outcome::Captured => ChargeOutcome::Captured { provider_ref },
            _ if charge.captured_minor > 0 => ChargeOutcome::Captured { provider_ref },
            _ if charge.closed || charge.expired(self.now_us) => ChargeOutcome::Voided,
            Outcome::ActionRequired => ChargeOutcome::ActionRequired {
                redirect_url: format!("{}/{}", self.terms.redirect_url, entry.reference),
            },
            Outcome::Authorized => ChargeOutcome::Authorized {
                provider_ref,
                expires_at_us: entry.expires_at_us.unwrap_or(entry.recorded_at_us),
            },
            Outcome::Pending
            | Outcome::Voided
            | Outcome::Refunded
            | Outcome::RefundFailed
            | Outcome::Scheduled
            | Outcome::Inquiry
            | Outcome::NeedsResponse
            | Outcome::UnderReview
            | Outcome::Won
            | Outcome::Lost
            | Outcome::Closed
            | Outcome::Submitted => ChargeOutcome::Pending,
        }
    }
}

impl<'a> Charge<'a> {
    /// One of which nothing is known but its authorisation.
    fn new(entry: &'a Entry) -> Self {
        let captured_minor = if entry.outcome == Outcome::Captured {
            entry.amount.amount_minor()
        } else {
            0
        };
        Self {
            entry,
            captured_minor,
            refunded_minor: 0,
            closed: false,
        }
    }

    /// All that it took and can take is back.
    fn is_given_back(&self) -> bool {
        let over = self.closed || self.left_minor() == 0;
        over && self.captured_minor > 0 && self.refunded_minor >= self.captured_minor
    }

    fn left_minor(&self) -> i64 {
        self.entry.amount.amount_minor() - self.captured_minor
    }

    fn expired(&self, now_us: i64) -> bool {
        self.entry
            .expires_at_us
            .is_some_and(|expires_at_us| expires_at_us <= now_us)
    }

    fn require_currency(&self, amount: Money) -> Result<(), ProviderError> {
        if amount.currency() == self.entry.amount.currency() {
            return Ok(());
        }
        Err(refused(
            "CURRENCY_MISMATCH",
            "not the currency of the charge",
        ))
    }
}

/// Where the capture, void or refund of an entry stands.
pub(super) fn settlement(entry: &Entry) -> Settlement {
    match entry.outcome {
        Outcome::Declined | Outcome::RefundFailed => Settlement::Declined(declined(entry)),
        Outcome::Pending | Outcome::ActionRequired => Settlement::Pending,
        Outcome::Authorized
        | Outcome::Captured
        | Outcome::Voided
        | Outcome::Refunded
        | Outcome::Scheduled
        | Outcome::Inquiry
        | Outcome::NeedsResponse
        | Outcome::UnderReview
        | Outcome::Won
        | Outcome::Lost
        | Outcome::Closed
        | Outcome::Submitted => Settlement::Done {
            provider_ref: provider_ref(entry),
        },
    }
}

fn declined(entry: &Entry) -> crate::provider::Decline {
    token::decline(entry.code.as_deref().unwrap_or_default())
}

fn provider_ref(entry: &Entry) -> String {
    let kind = match entry.operation {
        Operation::Authorize => "charge",
        Operation::Capture => "capture",
        Operation::Void => "void",
        Operation::Refund => "refund",
        Operation::Dispute => "dispute",
        Operation::Evidence => "evidence",
    };
    format!("sim_{kind}_{}", entry.reference)
}

fn same_parameters(earlier: &Entry, asked: &Entry) -> Result<(), ProviderError> {
    let same = earlier.charge_reference == asked.charge_reference
        && earlier.order_ref == asked.order_ref
        && earlier.payment_method == asked.payment_method
        && earlier.amount == asked.amount
        && earlier.at_once == asked.at_once
        && earlier.last == asked.last;
    if same {
        return Ok(());
    }
    Err(refused(
        "REFERENCE_REUSED",
        "the reference was used with other parameters",
    ))
}

fn require_amount(amount: Money) -> Result<(), ProviderError> {
    if amount.amount_minor() >= 0 {
        return Ok(());
    }
    Err(refused("AMOUNT_INVALID", "an amount must not be negative"))
}

pub(super) fn refused(code: &str, message: &str) -> ProviderError {
    ProviderError::Refused {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}
