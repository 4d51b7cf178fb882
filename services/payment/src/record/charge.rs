//! What the provider answered about a charge and its reversal, recorded.

use super::{ChargeAnswer, SettlementAnswer};
use crate::attempt::AttemptState;
use crate::fact::{Fact, Turn};
use crate::failure::{Failure, FailureCode};
use crate::payment::{CaptureMethod, Payment};
use crate::policy::{Asked, Progress};
use crate::state::{Move, State};

impl Payment {
    pub(crate) fn charged(&mut self, index: usize, turn: &mut Turn<'_>, answer: ChargeAnswer) {
        self.attempts[index].check = false;
        let waits = matches!(
            self.attempts[index].state,
            AttemptState::Sent | AttemptState::ActionRequired
        );
        if waits {
            self.decided(index, turn, answer);
        } else {
            self.decided_late(index, turn, &answer);
        }
    }

    fn decided(&mut self, index: usize, turn: &mut Turn<'_>, answer: ChargeAnswer) {
        match answer {
            ChargeAnswer::Authorized { expires_at_us } => {
                self.authenticated(turn);
                let attempt = &mut self.attempts[index];
                attempt.state = AttemptState::Authorized;
                attempt.stock = Progress::at(turn.now_us); // The commit waits for no extension.
                attempt.authorization_expires_at_us = Some(expires_at_us);
                let manual = self.order.capture_method == CaptureMethod::Manual;
                if manual && self.closing.is_none() {
                    self.go(turn, Move::Authorize);
                    self.emit(turn, Fact::Authorized);
                }
            }
            ChargeAnswer::Taken => {
                self.authenticated(turn);
                let attempt = &mut self.attempts[index];
                attempt.state = AttemptState::Charged;
                attempt.stock = Progress::at(turn.now_us);
                attempt.taken = true;
            }
            ChargeAnswer::ActionRequired { redirect_url } => {
                let attempt = &mut self.attempts[index];
                attempt.state = AttemptState::ActionRequired;
                if self.state == State::Processing && self.closing.is_none() {
                    self.redirect_url = Some(redirect_url);
                    self.go(turn, Move::AskCustomer);
                }
            }
            ChargeAnswer::Declined(failure) => self.fail(index, turn, failure),
            ChargeAnswer::Voided => {
                let message = "the authorisation lapsed at the provider";
                self.fail(
                    index,
                    turn,
                    Failure::new(FailureCode::ProviderUnavailable, message),
                );
            }
            ChargeAnswer::Pending | ChargeAnswer::Unknown => self.ask_again(index, turn),
            ChargeAnswer::NotFound => self.never_arrived(index, turn),
            ChargeAnswer::Unavailable => self.provider_is_down(index, turn),
        }
    }

    /// The customer authenticated before anybody confirmed again.
    fn authenticated(&mut self, turn: &mut Turn<'_>) {
        if self.state == State::RequiresAction {
            self.redirect_url = None;
            self.go(turn, Move::Start);
        }
    }

    fn ask_again(&mut self, index: usize, turn: &Turn<'_>) {
        let attempt = &mut self.attempts[index];
        attempt.check = attempt.state != AttemptState::Sent;
        look_up_later(&mut attempt.asked.progress, turn);
    }

    /// The provider knows nothing of a charge that was sent.
    fn never_arrived(&mut self, index: usize, turn: &mut Turn<'_>) {
        let attempt = &mut self.attempts[index];
        if !attempt.asked.settled(turn.now_us, turn.rules.settle_us) {
            look_up_later(&mut attempt.asked.progress, turn);
            return;
        }
        if self.is_tried_enough(index, turn) || self.closing.is_some() {
            self.fail(index, turn, provider_unavailable());
            self.watch(index, turn);
        } else {
            self.send_again(index, turn.now_us);
        }
    }

    /// Whether a charge is sent no more: it was for long enough, or the provider may have forgotten its key.
    fn is_tried_enough(&self, index: usize, turn: &Turn<'_>) -> bool {
        let age_us = turn.now_us - self.attempts[index].created_at_us;
        age_us >= turn.rules.provider_give_up_us.min(turn.rules.resend_us)
    }

    /// A request that the provider has not heard of may still be under way to it, longer than any should be: it
    /// is looked up after twice the time each time.
    fn watch(&mut self, index: usize, turn: &Turn<'_>) {
        let attempt = &mut self.attempts[index];
        let (first_us, max_us) = (turn.rules.look_up_first_us, turn.rules.late_success_us);
        if turn.now_us - attempt.created_at_us < max_us {
            attempt.check = true;
            attempt
                .asked
                .progress
                .put_off(turn.now_us, first_us, max_us);
        }
    }

    /// The provider certainly did not act.
    fn provider_is_down(&mut self, index: usize, turn: &mut Turn<'_>) {
        let attempt = &mut self.attempts[index];
        if attempt.asked.sent_at_us.is_none() || attempt.state != AttemptState::Sent {
            self.ask_again(index, turn);
            return;
        }
        if self.is_tried_enough(index, turn) {
            self.fail(index, turn, provider_unavailable());
            self.watch(index, turn); // An earlier request may be under way.
            return;
        }
        let attempt = &mut self.attempts[index];
        let (first_us, max_us) = (turn.rules.retry_first_us, turn.rules.retry_max_us);
        attempt
            .asked
            .progress
            .put_off(turn.now_us, first_us, max_us);
        let due_at_us = attempt.asked.progress.due_at_us;
        self.send_again(index, due_at_us);
    }

    /// The same charge under the same key, not before `due_at_us`.
    fn send_again(&mut self, index: usize, due_at_us: i64) {
        let attempt = &mut self.attempts[index];
        attempt.state = AttemptState::Reserved;
        attempt.asked.sent_at_us = None;
        attempt.asked.progress.due_at_us = due_at_us;
    }

    /// An answer about a charge that was given up or refused before.
    fn decided_late(&mut self, index: usize, turn: &mut Turn<'_>, answer: &ChargeAnswer) {
        let canceled = self.state == State::Canceled;
        let same_charge = turn.rules.method_is_charge && self.is_charged_again(index);
        let attempt = &mut self.attempts[index];
        match (attempt.state, answer) {
            (
                AttemptState::Declined | AttemptState::Reversed,
                ChargeAnswer::Authorized { .. } | ChargeAnswer::Taken,
            ) if same_charge => {
                self.watch(index, turn); // The other one answers for it, unless it comes to nothing.
            }
            (
                AttemptState::Declined | AttemptState::Reversed,
                ChargeAnswer::Authorized { .. } | ChargeAnswer::Taken,
            ) if !attempt.taken => {
                attempt.taken = *answer == ChargeAnswer::Taken;
                attempt.reverse(turn.now_us);
                self.late_success |= canceled;
            }
            (AttemptState::Reversing, ChargeAnswer::Taken) if !attempt.taken => {
                attempt.taken = true; // A void comes too late; a refund does not.
                attempt.reversal = Asked::at(turn.now_us);
            }
            (AttemptState::Declined, ChargeAnswer::NotFound) if attempt.asked.was_sent() => {
                self.watch(index, turn);
            }
            (AttemptState::Reversing, ChargeAnswer::Voided | ChargeAnswer::Declined(_)) => {
                self.gave_back(index, turn);
            }
            // Before that a look-up may lag behind; what was taken is somewhere.
            (AttemptState::Reversing, ChargeAnswer::NotFound)
                if !attempt.taken && attempt.asked.settled(turn.now_us, turn.rules.settle_us) =>
            {
                self.gave_back(index, turn);
            }
            (
                AttemptState::Declined | AttemptState::Reversed,
                ChargeAnswer::Unknown | ChargeAnswer::Unavailable | ChargeAnswer::Pending,
            ) => self.ask_again(index, turn),
            // Anything else is no news, or comes with the step that is under way.
            (_, _) => {}
        }
    }

    /// Whether a later attempt charges the same payment method, or may have.
    fn is_charged_again(&self, index: usize) -> bool {
        let method = &self.attempts[index].payment_method;
        self.attempts[index + 1..].iter().any(|later| {
            let came_to_nothing = later.state == AttemptState::Declined && !later.check;
            later.payment_method == *method && !came_to_nothing
        })
    }

    pub(crate) fn reversed(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        answer: &SettlementAnswer,
    ) {
        let attempt = &mut self.attempts[index];
        match (attempt.state, answer) {
            (AttemptState::Closing, SettlementAnswer::Done | SettlementAnswer::Declined(_)) => {
                attempt.state = AttemptState::Captured; // Nothing is held any more.
            }
            (AttemptState::Reversing, SettlementAnswer::Done) => self.gave_back(index, turn),
            (AttemptState::Reversing, SettlementAnswer::Declined(_)) => {
                put_off(&mut attempt.reversal.progress, turn);
                attempt.check = true; // What stands in the way is to be found out.
                attempt.asked.progress = Progress::at(turn.now_us);
            }
            (AttemptState::Reversing, SettlementAnswer::NotFound) => {
                // Nothing was done under its key, so that it is as good as new since it was sent last.
                let sent_at_us = attempt.reversal.sent_at_us.unwrap_or(turn.now_us);
                not_found(&mut attempt.reversal, sent_at_us, turn);
            }
            (AttemptState::Reversing, SettlementAnswer::Unavailable) => {
                attempt.reversal.sent_at_us = None;
                put_off(&mut attempt.reversal.progress, turn);
            }
            (
                AttemptState::Closing,
                SettlementAnswer::Pending
                | SettlementAnswer::NotFound
                | SettlementAnswer::Unknown
                | SettlementAnswer::Unavailable,
            )
            | (AttemptState::Reversing, SettlementAnswer::Pending | SettlementAnswer::Unknown) => {
                put_off(&mut attempt.reversal.progress, turn);
            }
            (
                AttemptState::Reserving
                | AttemptState::Reserved
                | AttemptState::Sent
                | AttemptState::ActionRequired
                | AttemptState::Authorized
                | AttemptState::Charged
                | AttemptState::Captured
                | AttemptState::Declined
                | AttemptState::Reversed,
                _,
            ) => {}
        }
    }

    /// The provider holds nothing of it any more.
    fn gave_back(&mut self, index: usize, turn: &mut Turn<'_>) {
        self.attempts[index].state = AttemptState::Reversed;
        let open = !matches!(self.state, State::Succeeded | State::Canceled);
        if open && self.closing.is_some() && self.is_current(index) {
            self.become_canceled(turn);
        }
    }

    /// Nothing is charged for an attempt any more. Where it was to be sent again, an earlier request may arrive yet.
    pub(crate) fn decline(&mut self, index: usize, turn: &Turn<'_>) {
        let attempt = &mut self.attempts[index];
        let may_arrive = attempt.state == AttemptState::Reserved && attempt.asked.was_sent();
        attempt.state = AttemptState::Declined;
        attempt.let_go(turn.now_us);
        if may_arrive {
            self.watch(index, turn);
        }
    }

    /// An attempt failed with nothing charged: another one may follow, unless the payment was given
    /// up meanwhile.
    pub(crate) fn fail(&mut self, index: usize, turn: &mut Turn<'_>, failure: Failure) {
        self.decline(index, turn);
        self.attempts[index].failure = Some(failure.clone());
        if !self.is_current(index) {
            return;
        }
        self.last_error = Some(failure.clone());
        self.redirect_url = None;
        if self.closing.is_some() {
            self.become_canceled(turn);
        } else {
            self.go(turn, Move::Refuse);
            self.emit(turn, Fact::Declined(failure));
        }
    }
}

pub(crate) fn put_off(progress: &mut Progress, turn: &Turn<'_>) {
    progress.put_off(
        turn.now_us,
        turn.rules.retry_first_us,
        turn.rules.retry_max_us,
    );
}

pub(crate) fn look_up_later(progress: &mut Progress, turn: &Turn<'_>) {
    progress.put_off(
        turn.now_us,
        turn.rules.look_up_first_us,
        turn.rules.look_up_max_us,
    );
}

/// The same for what is asked because of a hint.
pub(crate) fn look_again_later(progress: &mut Progress, turn: &Turn<'_>) {
    progress.put_off_look(
        turn.now_us,
        turn.rules.look_up_first_us,
        turn.rules.look_up_max_us,
    );
}

/// What was sent is not known to the provider: after its time to settle it may be sent again, under
/// the same key, while the provider remembers that: later nobody could tell a repetition from a new command, so it is
/// only looked up, and a person has to decide.
pub(crate) fn not_found(asked: &mut Asked, begun_at_us: i64, turn: &Turn<'_>) {
    let remembered = turn.now_us - begun_at_us < turn.rules.resend_us;
    if remembered && asked.settled(turn.now_us, turn.rules.settle_us) {
        *asked = Asked {
            sent_at_us: None,
            progress: Progress {
                due_at_us: turn.now_us,
                ..asked.progress
            },
        };
    } else {
        look_up_later(&mut asked.progress, turn);
    }
}

/// The provider certainly did not act on this request. While it remembers the key, the same is sent again; an earlier
/// one may have arrived.
pub(crate) fn not_done(asked: &mut Asked, begun_at_us: i64, turn: &Turn<'_>) {
    if turn.now_us - begun_at_us < turn.rules.resend_us {
        asked.sent_at_us = None;
        put_off(&mut asked.progress, turn);
    } else {
        look_up_later(&mut asked.progress, turn);
    }
}

pub(crate) fn out_of_stock() -> Failure {
    Failure::new(FailureCode::OutOfStock, "the units were no longer there")
}

pub(crate) fn provider_unavailable() -> Failure {
    let message = "the provider cannot be reached; nothing was charged";
    Failure::new(FailureCode::ProviderUnavailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SagaConfig;
    use crate::provider::Capabilities;

    const DAY_US: i64 = 86_400_000_000;

    #[test]
    fn what_the_provider_has_forgotten_is_looked_up_and_never_sent_again() {
        let rules = SagaConfig::default().rules(Some(Capabilities {
            manual_capture: true,
            partial_capture: false,
            void: true,
            authorization_ttl_us: 7 * DAY_US,
            idempotency_window_us: DAY_US,
            look_up_lag_us: 60_000_000,
            disputes: true,
            method_is_charge: false,
        }));
        let sent_at_us = 1_000_000;
        let asked_at = |now_us: i64| {
            let mut asked = Asked::at(0);
            asked.send(sent_at_us);
            not_found(&mut asked, 0, &Turn::new(now_us, &rules));
            asked
        };
        let lagging = asked_at(sent_at_us + 59_999_999);
        assert_eq!(
            lagging.sent_at_us,
            Some(sent_at_us),
            "a look-up may not find it yet"
        );
        let again = asked_at(sent_at_us + 60_000_000);
        assert_eq!(again.sent_at_us, None, "to be sent again under its key");
        let forgotten = asked_at(DAY_US);
        assert_eq!(forgotten.sent_at_us, Some(sent_at_us));
        assert!(
            forgotten.progress.due_at_us > DAY_US,
            "and asked about again"
        );
    }
}
