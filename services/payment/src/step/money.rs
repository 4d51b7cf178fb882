//! What to ask the provider next, and the stock steps that stand before money may be asked for.

use super::{Call, MoneyCall, Ready, StockCall};
use crate::attempt::{AttemptState, Hold};
use crate::capture::{Capture, CaptureState};
use crate::fact::Turn;
use crate::payment::{CaptureMethod, Payment};
use crate::refund::RefundState;

impl Payment {
    pub(super) fn attempt_money(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let now_us = turn.now_us;
        let given_up = self.closing.is_some() && self.is_current(index);
        let provider = self.order.provider.clone();
        let attempt = &mut self.attempts[index];
        let (id, due_us) = (attempt.id, attempt.asked.progress.due_at_us);
        let look_up = || Call::Money(provider, MoneyCall::LookUpCharge { attempt: id });
        match attempt.state {
            AttemptState::Reserving | AttemptState::Reserved if given_up => {
                self.decline(index, turn);
                self.become_canceled(turn);
                Ready::Again
            }
            AttemptState::Reserving => self.reserve(index, turn),
            AttemptState::Reserved => self.charge(index, turn),
            AttemptState::Sent => Ready::when(due_us, now_us, look_up),
            AttemptState::ActionRequired if given_up => {
                attempt.stop_waiting(now_us, turn.rules.voids);
                if attempt.state == AttemptState::Declined {
                    self.become_canceled(turn);
                }
                Ready::Again
            }
            AttemptState::Authorized => self.authorized(index, turn),
            AttemptState::Charged if given_up => {
                attempt.reverse(now_us);
                Ready::Again
            }
            AttemptState::Charged => self.commit(index, turn),
            AttemptState::ActionRequired
            | AttemptState::Declined
            | AttemptState::Reversed
            | AttemptState::Reversing
                if attempt.check =>
            {
                Ready::when(due_us, now_us, look_up)
            }
            AttemptState::Reversing | AttemptState::Closing => self.reverse(index, turn),
            AttemptState::ActionRequired
            | AttemptState::Declined
            | AttemptState::Reversed
            | AttemptState::Captured => Ready::Never,
        }
    }

    pub(super) fn reserve(&self, index: usize, turn: &Turn<'_>) -> Ready {
        let attempt = &self.attempts[index];
        Ready::when(attempt.stock.due_at_us, turn.now_us, || {
            StockCall::Reserve {
                attempt: attempt.id,
                lines: self.all_units(),
                currency: self.order.currency,
                hold_us: turn.rules.hold_us,
            }
        })
    }

    /// Asks for the money, once the hold lasts long enough.
    pub(super) fn charge(&mut self, index: usize, turn: &Turn<'_>) -> Ready {
        let now_us = turn.now_us;
        if self.hold_is_short(index, turn) {
            return self.extend(index, turn, now_us + turn.rules.hold_us);
        }
        let amount = self.money(self.attempts[index].amount_minor);
        let payment = self.id;
        let attempt = &mut self.attempts[index];
        if !attempt.asked.progress.is_due(now_us) {
            return Ready::At(attempt.asked.progress.due_at_us);
        }
        attempt.state = AttemptState::Sent;
        attempt.asked.send(now_us);
        let ask = MoneyCall::Authorize {
            attempt: attempt.id,
            payment,
            amount,
            payment_method: attempt.payment_method.clone(),
            order_ref: self.order.order_ref.clone(),
            capture: !turn.rules.captures_later,
        };
        self.ask(ask)
    }

    /// Authorised: with automatic capture the stock is committed and the money taken; with manual
    /// capture that waits for its caller.
    pub(super) fn authorized(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let attempt = &mut self.attempts[index];
        let id = attempt.id;
        if self
            .captures
            .iter()
            .any(|c| c.attempt == id && c.state == CaptureState::Pending)
        {
            return Ready::Never; // Its outcome decides.
        }
        if self.closing.is_some() {
            attempt.reverse(turn.now_us);
            return Ready::Again;
        }
        if self.order.capture_method == CaptureMethod::Manual {
            return Ready::Never;
        }
        if attempt.hold != Hold::Committed {
            return self.commit(index, turn);
        }
        let shipping = self.shipping_uncaptured();
        let capture = Capture::new(id, self.all_lines(), shipping, true, turn.now_us);
        self.captures.push(capture);
        Ready::Again
    }

    /// Takes all that is held out of stock, before the money is taken.
    pub(super) fn commit(&mut self, index: usize, turn: &Turn<'_>) -> Ready {
        let attempt = &mut self.attempts[index];
        if !attempt.stock.is_due(turn.now_us) {
            return Ready::At(attempt.stock.due_at_us);
        }
        attempt.set_hold(Hold::Committing, turn.now_us);
        let reservation = attempt
            .reservation
            .clone()
            .expect("money is asked for held stock only");
        Ready::Now(
            StockCall::Commit {
                attempt: attempt.id,
                reservation,
            }
            .into(),
        )
    }

    /// Gives back what the provider holds or took. Repeating a void is harmless; a refund has a key that the
    /// provider may forget, so what became of it is asked first.
    pub(super) fn reverse(&mut self, index: usize, turn: &Turn<'_>) -> Ready {
        let amount = self.money(self.attempts[index].amount_minor);
        let attempt = &mut self.attempts[index];
        if !attempt.reversal.progress.is_due(turn.now_us) {
            return Ready::At(attempt.reversal.progress.due_at_us);
        }
        let refunds = attempt.taken && attempt.state == AttemptState::Reversing;
        if refunds && attempt.reversal.sent_at_us.is_some() {
            let attempt = attempt.id;
            return self.ask(MoneyCall::LookUpReversal { attempt });
        }
        attempt.reversal.send(turn.now_us);
        let ask = if refunds {
            MoneyCall::Reverse {
                attempt: attempt.id,
                amount,
            }
        } else {
            MoneyCall::Void {
                attempt: attempt.id,
            }
        };
        self.ask(ask)
    }

    pub(super) fn ask(&self, ask: MoneyCall) -> Ready {
        Ready::Now(Call::Money(self.order.provider.clone(), ask))
    }

    pub(super) fn capture_money(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let amount = self.money(self.captures[index].amount_minor);
        let last = self.captures[index].is_final || self.is_all_captured_with(index);
        let capture = &mut self.captures[index];
        let (id, attempt) = (capture.id, capture.attempt);
        if capture.state != CaptureState::Pending {
            return Ready::Never;
        }
        if !capture.asked.progress.is_due(turn.now_us) {
            return Ready::At(capture.asked.progress.due_at_us);
        }
        if capture.asked.sent_at_us.is_some() {
            return self.ask(MoneyCall::LookUpCapture { capture: id });
        }
        capture.asked.send(turn.now_us);
        self.ask(MoneyCall::Capture {
            capture: id,
            attempt,
            amount,
            last,
        })
    }

    pub(super) fn refund_money(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let amount = self.money(self.refunds[index].amount_minor);
        let refund = &mut self.refunds[index];
        let (id, attempt) = (refund.id, refund.attempt);
        match refund.state {
            RefundState::Pending => {}
            RefundState::Succeeded if refund.check => {
                let due_us = refund.asked.progress.due_at_us;
                let provider = self.order.provider.clone();
                return Ready::when(due_us, turn.now_us, || {
                    Call::Money(provider, MoneyCall::LookUpRefund { refund: id })
                });
            }
            RefundState::Succeeded | RefundState::Failed | RefundState::Canceled => {
                return Ready::Never;
            }
        }
        if !refund.asked.progress.is_due(turn.now_us) {
            return Ready::At(refund.asked.progress.due_at_us);
        }
        if refund.asked.sent_at_us.is_some() {
            return self.ask(MoneyCall::LookUpRefund { refund: id });
        }
        refund.asked.send(turn.now_us);
        self.ask(MoneyCall::Refund {
            refund: id,
            attempt,
            amount,
        })
    }
}
