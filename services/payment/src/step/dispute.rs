//! What to ask the provider about disputes next: how they stand, and our responses to them.

use super::{Call, DisputeCall, MoneyCall, Ready};
use crate::dispute::Response;
use crate::fact::Turn;
use crate::payment::Payment;

impl Payment {
    /// Looks up the disputes of a charge where there is a reason to.
    pub(super) fn attempt_disputes(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let attempt = &self.attempts[index];
        match attempt.disputes {
            Some(progress) if turn.rules.disputes => {
                Ready::when(progress.due_at_us, turn.now_us, || {
                    let attempt = attempt.id;
                    let ask = MoneyCall::Dispute(DisputeCall::LookUp { attempt });
                    Call::Money(self.order.provider.clone(), ask)
                })
            }
            Some(_) | None => Ready::Never,
        }
    }

    /// Sends a response; one that was sent and not answered is looked up with the dispute.
    pub(super) fn dispute_response(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let dispute = &mut self.disputes[index];
        if !dispute.response.is_open() {
            return Ready::Never;
        }
        if !dispute.asked.progress.is_due(turn.now_us) {
            return Ready::At(dispute.asked.progress.due_at_us);
        }
        if dispute.asked.sent_at_us.is_some() {
            let attempt = dispute.attempt;
            return self.ask(MoneyCall::Dispute(DisputeCall::LookUp { attempt }));
        }
        dispute.asked.send(turn.now_us);
        let (id, provider_ref) = (dispute.id, dispute.provider_ref.clone());
        let reference = dispute.response_reference();
        let ask = if dispute.response == Response::Submitting {
            DisputeCall::SubmitEvidence {
                dispute: id,
                provider_ref,
                reference,
            }
        } else {
            DisputeCall::Accept {
                dispute: id,
                provider_ref,
                reference,
            }
        };
        self.ask(MoneyCall::Dispute(ask))
    }
}
