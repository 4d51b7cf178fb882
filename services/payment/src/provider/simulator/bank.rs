//! What customers' banks do: return refunds, ask about charges, take their money back, look at evidence and decide.
//! Pure, like [`Book`].

use super::book::{Book, Step, Terms, refused};
use super::entry::{Entry, Operation, Outcome};
use super::token::{self, Script, script};
use crate::dispute::{DisputeState, SeenDispute};
use crate::provider::{AcceptDispute, ProviderError, SubmitEvidence};
use kernel::Money;

/// Why customers dispute charges here.
const REASON: &str = "fraudulent";

/// What a bank is told to do about a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// To take the money back after an inquiry.
    Escalate,
    /// To decide for the shop.
    Win,
    /// To decide for the customer.
    Lose,
    /// To ask no more.
    Close,
}

/// What follows from an entry by its token, at its time.
pub(super) fn follows(entry: &Entry, terms: &Terms) -> Option<Entry> {
    let script = script(&entry.payment_method)?;
    let later = |operation, reference| Entry {
        operation,
        reference,
        outcome: Outcome::Scheduled,
        code: None,
        expires_at_us: None,
        due_at_us: Some(entry.recorded_at_us + terms.bank_delay_us),
        ..entry.clone()
    };
    match (entry.outcome, script) {
        (
            Outcome::Captured,
            Script::DisputeWon | Script::DisputeLost | Script::Inquiry | Script::InquiryEscalates,
        ) => Some(later(Operation::Dispute, format!("dp_{}", entry.reference))),
        (Outcome::Refunded, Script::FailRefundLater) => {
            Some(later(Operation::Refund, entry.reference.clone()))
        }
        _ => None,
    }
}

impl Book<'_> {
    /// The first thing that a bank does by now.
    pub(super) fn settle_bank(&self) -> Option<Entry> {
        let due = self.entries.iter().enumerate().find(|(place, entry)| {
            let waits = matches!(
                entry.outcome,
                Outcome::Scheduled
                    | Outcome::Inquiry
                    | Outcome::NeedsResponse
                    | Outcome::UnderReview
            );
            let newest = !self.entries[place + 1..].iter().any(|later| {
                later.operation == entry.operation && later.reference == entry.reference
            });
            waits && newest && entry.due_at_us.is_some_and(|due_us| due_us <= self.now_us)
        });
        let (_, entry) = due?;
        let script = script(&entry.payment_method);
        let outcome = match (entry.operation, entry.outcome) {
            (Operation::Refund, Outcome::Scheduled) => return Some(self.returned(entry)),
            (Operation::Dispute, Outcome::Scheduled) => match script {
                Some(Script::Inquiry | Script::InquiryEscalates) => Outcome::Inquiry,
                _ => Outcome::NeedsResponse,
            },
            (Operation::Dispute, Outcome::Inquiry) => match script {
                Some(Script::InquiryEscalates) => Outcome::NeedsResponse,
                _ => Outcome::Closed,
            },
            (Operation::Dispute, Outcome::NeedsResponse) => Outcome::Lost,
            (Operation::Dispute, Outcome::UnderReview) => match script {
                Some(Script::DisputeLost) => Outcome::Lost,
                _ => Outcome::Won,
            },
            _ => return None,
        };
        Some(self.of_dispute(entry, outcome))
    }

    /// A customer goes to the bank about a charge.
    pub(super) fn open_dispute(
        &self,
        charge_reference: &str,
        amount: Option<Money>,
        inquiry: bool,
    ) -> Result<Step<String>, ProviderError> {
        let mut captured = self.entries.iter().filter(|entry| {
            entry.charge_reference == charge_reference && entry.outcome == Outcome::Captured
        });
        let Some(charge) = captured.next() else {
            return Err(refused("NOTHING_CAPTURED", "there is nothing to dispute"));
        };
        let disputes = self
            .entries
            .iter()
            .filter(|entry| entry.operation == Operation::Dispute);
        let reference = format!("dp_{charge_reference}_{}", disputes.count());
        let outcome = if inquiry {
            Outcome::Inquiry
        } else {
            Outcome::NeedsResponse
        };
        let opened = Entry {
            operation: Operation::Dispute,
            reference: reference.clone(),
            amount: amount.unwrap_or(charge.amount),
            ..charge.clone()
        };
        Ok(Step {
            append: Some(self.of_dispute(&opened, outcome)),
            answer: reference,
        })
    }

    /// A bank returns a refund.
    pub(super) fn return_refund(&self, reference: &str) -> Result<Step<()>, ProviderError> {
        let entry = self
            .entries
            .iter()
            .rfind(|entry| entry.operation == Operation::Refund && entry.reference == reference);
        let arrived =
            entry.filter(|entry| matches!(entry.outcome, Outcome::Refunded | Outcome::Scheduled));
        let entry = arrived.ok_or_else(|| refused("NOT_REFUNDED", "there is nothing to return"))?;
        Ok(Step {
            append: Some(self.returned(entry)),
            answer: (),
        })
    }

    fn returned(&self, entry: &Entry) -> Entry {
        let code = Some(token::REFUND_RETURNED.to_owned());
        let next = self.of_dispute(entry, Outcome::RefundFailed);
        Entry { code, ..next }
    }

    /// A bank decides, whatever a token says.
    pub(super) fn decide_dispute(
        &self,
        reference: &str,
        decision: Decision,
    ) -> Result<Step<SeenDispute>, ProviderError> {
        let entry = self.dispute_entry(reference)?;
        let outcome = match (entry.outcome, decision) {
            (Outcome::Inquiry, Decision::Escalate) => Outcome::NeedsResponse,
            (Outcome::Inquiry, Decision::Close) => Outcome::Closed,
            (Outcome::NeedsResponse | Outcome::UnderReview | Outcome::Lost, Decision::Win) => {
                Outcome::Won
            }
            (Outcome::NeedsResponse | Outcome::UnderReview, Decision::Lose) => Outcome::Lost,
            _ => return Err(refused("INVALID_STATE", "the dispute does not stand so")),
        };
        Ok(self.append_to_dispute(self.of_dispute(entry, outcome)))
    }

    /// Evidence counts once; an inquiry stays one until the bank has made up its mind.
    pub(super) fn submit_evidence(
        &self,
        request: &SubmitEvidence,
    ) -> Result<Vec<Entry>, ProviderError> {
        let known = self.entries.iter().any(|entry| {
            entry.operation == Operation::Evidence && entry.reference == request.reference
        });
        if known {
            return Ok(Vec::new());
        }
        let entry = self.dispute_entry(&request.dispute_ref)?;
        if self.responded(&request.dispute_ref) {
            return Err(refused(
                "ALREADY_SUBMITTED",
                "evidence was handed in before",
            ));
        }
        if !matches!(entry.outcome, Outcome::Inquiry | Outcome::NeedsResponse) {
            return Err(refused("INVALID_STATE", "the dispute takes no evidence"));
        }
        if entry.due_at_us.is_some_and(|due_us| due_us <= self.now_us) {
            return Err(refused("TOO_LATE", "evidence was due before"));
        }
        let evidence = Entry {
            recorded_at_us: self.now_us,
            operation: Operation::Evidence,
            reference: request.reference.clone(),
            outcome: Outcome::Submitted,
            code: Some(request.dispute_ref.clone()),
            due_at_us: None,
            ..entry.clone()
        };
        let reviewed = (entry.outcome == Outcome::NeedsResponse)
            .then(|| self.of_dispute(entry, Outcome::UnderReview));
        Ok([evidence].into_iter().chain(reviewed).collect())
    }

    pub(super) fn accept_dispute(
        &self,
        request: &AcceptDispute,
    ) -> Result<Step<SeenDispute>, ProviderError> {
        let entry = self.dispute_entry(&request.dispute_ref)?;
        match entry.outcome {
            Outcome::Lost => Ok(Step::answer(self.seen(entry))),
            Outcome::Inquiry => Err(refused("INVALID_STATE", "an inquiry is ended by a refund")),
            Outcome::NeedsResponse => {
                Ok(self.append_to_dispute(self.of_dispute(entry, Outcome::Lost)))
            }
            _ => Err(refused(
                "INVALID_STATE",
                "the dispute is decided or under review",
            )),
        }
    }

    /// The disputes of a charge as they stand.
    pub(super) fn disputes_of(&self, charge_reference: &str) -> Vec<SeenDispute> {
        let mut seen: Vec<SeenDispute> = Vec::new();
        let of_charge = self.entries.iter().filter(|entry| {
            entry.charge_reference == charge_reference
                && entry.operation == Operation::Dispute
                && self.terms.shows(entry, self.now_us)
        });
        for entry in of_charge.filter(|entry| entry.outcome != Outcome::Scheduled) {
            let now = self.seen(entry);
            match seen
                .iter_mut()
                .find(|of| of.provider_ref == entry.reference)
            {
                Some(before) => *before = now,
                None => seen.push(now),
            }
        }
        seen
    }

    /// A dispute as it stood after an entry.
    pub(super) fn seen(&self, entry: &Entry) -> SeenDispute {
        let rows = || {
            self.entries.iter().chain([entry]).filter(|row| {
                row.operation == Operation::Dispute && row.reference == entry.reference
            })
        };
        let waits = |row: &&Entry| matches!(row.outcome, Outcome::Inquiry | Outcome::NeedsResponse);
        let state = match entry.outcome {
            Outcome::NeedsResponse => DisputeState::NeedsResponse,
            Outcome::UnderReview => DisputeState::UnderReview,
            Outcome::Won => DisputeState::Won,
            Outcome::Lost => DisputeState::Lost,
            Outcome::Closed => DisputeState::Closed,
            _ => DisputeState::Inquiry,
        };
        SeenDispute {
            provider_ref: entry.reference.clone(),
            state,
            amount: entry.amount,
            reason: REASON.to_owned(),
            evidence_due_at_us: rows().rfind(waits).and_then(|row| row.due_at_us),
            withdrawn: rows().any(|row| row.outcome == Outcome::NeedsResponse),
            reinstated: state == DisputeState::Won,
            responded: self.responded(&entry.reference),
        }
    }

    fn responded(&self, dispute_ref: &str) -> bool {
        self.entries.iter().any(|entry| {
            entry.operation == Operation::Evidence && entry.code.as_deref() == Some(dispute_ref)
        })
    }

    fn dispute_entry(&self, reference: &str) -> Result<&Entry, ProviderError> {
        let found = self.entries.iter().rfind(|entry| {
            entry.operation == Operation::Dispute
                && entry.reference == reference
                && entry.outcome != Outcome::Scheduled
        });
        found.ok_or_else(|| refused("DISPUTE_NOT_FOUND", "there is no such dispute"))
    }

    /// The next entry of a dispute or of a refund, with its time where something follows by itself.
    fn of_dispute(&self, entry: &Entry, outcome: Outcome) -> Entry {
        let in_us = match outcome {
            Outcome::Inquiry | Outcome::NeedsResponse => Some(self.terms.dispute_response_us),
            Outcome::UnderReview => Some(self.terms.bank_delay_us),
            _ => None,
        };
        Entry {
            recorded_at_us: self.now_us,
            outcome,
            code: None,
            expires_at_us: None,
            due_at_us: in_us.map(|in_us| self.now_us + in_us),
            ..entry.clone()
        }
    }

    fn append_to_dispute(&self, entry: Entry) -> Step<SeenDispute> {
        Step {
            answer: self.seen(&entry),
            append: Some(entry),
        }
    }
}
