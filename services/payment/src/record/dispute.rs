//! What the provider answered about disputes, recorded: each withdrawal and each return of money is booked once, and
//! nothing that is older than what is known changes anything.

use super::charge::{look_again_later, look_up_later, not_found, put_off};
use super::{DisputesAnswer, ResponseAnswer};
use crate::dispute::{Dispute, DisputeState, Keeping, Response, SeenDispute};
use crate::fact::{Fact, Turn};
use crate::failure::{Failure, FailureCode};
use crate::ledger::Transaction;
use crate::payment::Payment;
use crate::policy::Progress;
use kernel::DisputeId;

impl Payment {
    pub(super) fn disputes_looked_up(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        answer: DisputesAnswer,
    ) {
        match answer {
            DisputesAnswer::Seen(all) => {
                for seen in &all {
                    self.dispute_seen(index, turn, seen);
                }
                self.look_again(index, turn);
                self.resolve_responses(index, turn, &all);
            }
            DisputesAnswer::Unsupported => {
                self.attempts[index].disputes = None;
                self.put_off_responses(index, turn);
            }
            DisputesAnswer::Unknown => {
                if let Some(progress) = &mut self.attempts[index].disputes {
                    look_again_later(progress, turn);
                }
                self.put_off_responses(index, turn);
            }
        }
    }

    /// What was sent and not answered is asked about later.
    fn put_off_responses(&mut self, index: usize, turn: &Turn<'_>) {
        let attempt = self.attempts[index].id;
        let waiting =
            |dispute: &&mut Dispute| dispute.attempt == attempt && dispute.response.is_open();
        for dispute in self.disputes.iter_mut().filter(waiting) {
            look_up_later(&mut dispute.asked.progress, turn);
        }
    }

    pub(super) fn responded(&mut self, index: usize, turn: &mut Turn<'_>, answer: ResponseAnswer) {
        let dispute = &mut self.disputes[index];
        if !dispute.response.is_open() {
            return;
        }
        let (id, attempt) = (dispute.id, dispute.attempt);
        match answer {
            ResponseAnswer::Taken(seen) => {
                self.end_response(id, turn, None);
                if let Some(place) = self.attempt_index(attempt) {
                    self.dispute_seen(place, turn, &seen);
                    self.look_again(place, turn);
                }
            }
            ResponseAnswer::Refused(failure) => self.end_response(id, turn, Some(failure)),
            ResponseAnswer::Unknown => look_up_later(&mut dispute.asked.progress, turn),
            ResponseAnswer::Unavailable => {
                dispute.asked.sent_at_us = None;
                put_off(&mut dispute.asked.progress, turn);
            }
        }
    }

    /// A dispute of an attempt's charge as the provider has it now.
    fn dispute_seen(&mut self, index: usize, turn: &mut Turn<'_>, seen: &SeenDispute) {
        let attempt = self.attempts[index].id;
        let known = self.disputes.iter().position(|dispute| {
            dispute.attempt == attempt && dispute.provider_ref == seen.provider_ref
        });
        let place = known.unwrap_or_else(|| {
            self.disputes.push(Dispute::new(attempt, seen, turn.now_us));
            self.disputes.len() - 1
        });
        let before = known.map(|place| self.disputes[place].clone());
        let dispute = &mut self.disputes[place];
        dispute.state = dispute.state.once_seen(seen.stands());
        dispute.evidence_due_at_us = seen.evidence_due_at_us.or(dispute.evidence_due_at_us);
        if dispute.withdrawn_at_us.is_none() {
            dispute.amount = seen.amount; // What is booked stays as it was booked.
        }
        self.book_dispute(place, turn, seen);
        self.tell_of_dispute(place, turn, before.as_ref());
    }

    fn book_dispute(&mut self, place: usize, turn: &mut Turn<'_>, seen: &SeenDispute) {
        let (payment, provider, now_us) = (self.id, self.order.provider.clone(), turn.now_us);
        let dispute = &mut self.disputes[place];
        if seen.withdrawn && dispute.withdrawn_at_us.is_none() {
            dispute.withdrawn_at_us = Some(now_us);
            let (id, amount) = (dispute.id, dispute.amount);
            let entry = Transaction::of_dispute(payment, id, &provider, amount, now_us);
            let entry = entry.expect("disputes are above zero");
            turn.effects.entries.push(entry);
        }
        if seen.reinstated && dispute.holds_money() {
            dispute.reinstated_at_us = Some(now_us);
            let (id, amount) = (dispute.id, dispute.amount);
            let entry = Transaction::of_dispute_reversal(payment, id, &provider, amount, now_us);
            let entry = entry.expect("disputes are above zero");
            turn.effects.entries.push(entry);
        }
    }

    /// Tells others what has become of a dispute, if anything.
    fn tell_of_dispute(&mut self, place: usize, turn: &mut Turn<'_>, before: Option<&Dispute>) {
        let dispute = &mut self.disputes[place];
        if before == Some(&*dispute) {
            return;
        }
        dispute.updated_at_us = turn.now_us;
        let now = Box::new(dispute.clone());
        let decided = now.state.is_final() && before.is_none_or(|was| was.state != now.state);
        if before.is_none() {
            self.emit(turn, Fact::DisputeOpened(now.clone()));
        } else if !decided {
            self.emit(turn, Fact::DisputeUpdated(now.clone()));
        }
        if decided {
            self.emit(turn, Fact::DisputeClosed(now));
        }
    }

    /// When the disputes of a charge are looked up next, without a webhook. After a hint once more in any case: the
    /// answer may be older than the hint, or the provider's look-ups may lag behind.
    fn look_again(&mut self, index: usize, turn: &Turn<'_>) {
        let attempt = &self.attempts[index];
        let open = |dispute: &Dispute| dispute.attempt == attempt.id && dispute.is_open();
        let next = match attempt.disputes {
            Some(hint) if !hint.is_second_look() => {
                Some(Progress::second_look(turn.now_us + turn.rules.settle_us))
            }
            Some(waits) if waits.due_at_us > turn.now_us => Some(waits),
            Some(_) | None => {
                let due_at_us = turn.now_us + turn.rules.dispute_look_up_us;
                let any = self.disputes.iter().any(open);
                any.then(|| Progress::second_look(due_at_us))
            }
        };
        self.attempts[index].disputes = next;
    }

    /// Responses that were sent and not answered: the dispute itself tells whether they arrived.
    fn resolve_responses(&mut self, index: usize, turn: &mut Turn<'_>, all: &[SeenDispute]) {
        let attempt = self.attempts[index].id;
        let waiting = self.disputes.iter().filter(|dispute| {
            dispute.attempt == attempt
                && dispute.response.is_open()
                && dispute.asked.sent_at_us.is_some()
        });
        let ids: Vec<DisputeId> = waiting.map(|dispute| dispute.id).collect();
        for id in ids {
            let Ok(dispute) = self.dispute_mut(id) else {
                continue;
            };
            let seen = all
                .iter()
                .find(|of| of.provider_ref == dispute.provider_ref);
            let accepted = dispute.state == DisputeState::Lost;
            let arrived = match dispute.response {
                Response::Submitting => seen.is_some_and(|seen| seen.responded),
                _ => accepted,
            };
            if arrived {
                self.end_response(id, turn, None);
            } else if dispute.state.is_final() {
                let message = "the dispute was decided before";
                let failure = Failure::new(FailureCode::ProviderRefused, message);
                self.end_response(id, turn, Some(failure));
            } else {
                let begun_at_us = dispute.responded_at_us.unwrap_or(turn.now_us);
                not_found(&mut dispute.asked, begun_at_us, turn);
            }
        }
    }

    /// The provider has a response, or refused it: the evidence itself is not needed any more.
    fn end_response(&mut self, id: DisputeId, turn: &mut Turn<'_>, failure: Option<Failure>) {
        let Ok(dispute) = self.dispute_mut(id) else {
            return;
        };
        let submitting = dispute.response == Response::Submitting;
        if failure.is_some() && submitting {
            dispute.evidence.clear();
        }
        dispute.response = match (&failure, submitting) {
            (None, false) => Response::Accepted,
            (Some(_), _) if dispute.evidence.is_empty() => Response::None,
            // What was handed in before a refusal stays handed in.
            (None, true) | (Some(_), _) => Response::Submitted,
        };
        dispute.failure = failure;
        dispute.updated_at_us = turn.now_us;
        let now = Box::new(dispute.clone());
        if submitting {
            turn.effects.evidence.push(Keeping::Drop(id));
        }
        self.emit(turn, Fact::DisputeUpdated(now));
    }
}
