//! What is asked of a payment's disputes.

use super::{Dispute, DisputeState, Evidence, Keeping, Response, charge_of, reference_of};
use crate::fact::{Fact, Turn};
use crate::payment::Payment;
use crate::policy::{Asked, Progress};
use crate::rejection::Rejection;
use kernel::{AttemptId, DisputeId};

impl Payment {
    /// Begins to hand in evidence, which is kept until the provider has it. Once: what was handed in stays.
    pub fn submit_evidence(
        &mut self,
        turn: &mut Turn<'_>,
        id: DisputeId,
        evidence: &Evidence,
    ) -> Result<(), Rejection> {
        evidence.check(&turn.rules.evidence)?;
        self.require_disputes(turn)?;
        let dispute = self.dispute_mut(id)?;
        dispute.refuse_response(turn.now_us)?;
        if dispute.response == Response::Submitted {
            return Err(dispute.forbids("its evidence was handed in"));
        }
        dispute.evidence = evidence.kept();
        turn.effects
            .evidence
            .push(Keeping::Keep(id, evidence.clone()));
        self.respond(turn, id, Response::Submitting)
    }

    /// Begins to give a dispute up: its money stays with the customer.
    pub fn accept_dispute(&mut self, turn: &mut Turn<'_>, id: DisputeId) -> Result<(), Rejection> {
        self.require_disputes(turn)?;
        let dispute = self.dispute_mut(id)?;
        dispute.refuse_any_response()?;
        self.respond(turn, id, Response::Accepting)
    }

    /// One of its disputes.
    pub fn dispute(&self, id: DisputeId) -> Option<&Dispute> {
        self.disputes.iter().find(|dispute| dispute.id == id)
    }

    /// What of the captured money disputes have taken, in the payment's currency.
    pub fn disputed_minor(&self) -> i64 {
        let holding = self.disputes.iter().filter(|dispute| {
            dispute.holds_money() && dispute.amount.currency() == self.order.currency
        });
        holding.map(|dispute| dispute.amount.amount_minor()).sum()
    }

    /// Refuses to give back money that a dispute has taken: the customer would get it twice.
    pub(crate) fn refuse_disputed(&self, amount_minor: i64) -> Result<(), Rejection> {
        let disputed_minor = self.disputed_minor();
        let left_minor = self.captured_minor() - self.refunded_minor() - disputed_minor;
        if disputed_minor == 0 || amount_minor <= left_minor {
            return Ok(());
        }
        Err(Rejection::Disputed {
            id: self.id,
            disputed_minor,
            left: self.money(left_minor.max(0)),
        })
    }

    /// A webhook named the disputes of a charge, or one of them: they are to be asked about.
    pub(crate) fn check_disputes(&mut self, turn: &mut Turn<'_>, reference: &str) -> bool {
        let of_dispute = DisputeId::parse(reference).ok();
        let attempt = match of_dispute.and_then(|id| self.dispute(id)) {
            Some(dispute) => Some(dispute.attempt),
            None if reference_of(charge_of(reference)) == reference => {
                AttemptId::parse(charge_of(reference)).ok()
            }
            None => None,
        };
        let index = attempt.and_then(|attempt| self.attempt_index(attempt));
        if let Some(index) = index {
            self.attempts[index].disputes = Some(Progress::at(turn.now_us));
        }
        index.is_some()
    }

    pub(crate) fn dispute_mut(&mut self, id: DisputeId) -> Result<&mut Dispute, Rejection> {
        let found = self.disputes.iter_mut().find(|dispute| dispute.id == id);
        found.ok_or(Rejection::NoSuchDispute(id))
    }

    fn require_disputes(&self, turn: &Turn<'_>) -> Result<(), Rejection> {
        if turn.rules.disputes {
            return Ok(());
        }
        Err(Rejection::DisputesUnsupported {
            provider: self.order.provider.clone(),
        })
    }

    fn respond(
        &mut self,
        turn: &mut Turn<'_>,
        id: DisputeId,
        response: Response,
    ) -> Result<(), Rejection> {
        let dispute = self.dispute_mut(id)?;
        dispute.response = response;
        dispute.responses += 1;
        dispute.responded_at_us = Some(turn.now_us);
        dispute.asked = Asked::at(turn.now_us);
        dispute.failure = None;
        dispute.updated_at_us = turn.now_us;
        let fact = Fact::DisputeUpdated(Box::new(dispute.clone()));
        self.emit(turn, fact);
        Ok(())
    }
}

impl Dispute {
    /// Refuses evidence that comes too late or for nothing.
    fn refuse_response(&self, now_us: i64) -> Result<(), Rejection> {
        self.refuse_any_response()?;
        if self
            .evidence_due_at_us
            .is_some_and(|due_us| due_us <= now_us)
        {
            return Err(self.forbids("its evidence was due before now"));
        }
        Ok(())
    }

    /// Refuses what comes after somebody has decided, or while that is under way.
    fn refuse_any_response(&self) -> Result<(), Rejection> {
        match self.state {
            DisputeState::Inquiry | DisputeState::NeedsResponse => {}
            DisputeState::UnderReview => return Err(self.forbids("it is under review")),
            DisputeState::Won | DisputeState::Lost | DisputeState::Closed => {
                return Err(self.forbids("it is decided"));
            }
        }
        if self.response.is_open() {
            return Err(self.forbids("a response is under way"));
        }
        Ok(())
    }

    fn forbids(&self, why: &str) -> Rejection {
        Rejection::DisputeState {
            id: self.id,
            state: self.state,
            why: why.to_owned(),
        }
    }
}
