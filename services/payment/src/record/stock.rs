//! What the product service answered, recorded.

use super::charge::{out_of_stock, put_off};
use super::{ReserveAnswer, StockAnswer};
use crate::attempt::{AttemptState, Hold};
use crate::capture::{Capture, Follow, Line};
use crate::charges::Part;
use crate::fact::Turn;
use crate::failure::{Failure, FailureCode};
use crate::payment::{CancelReason, Payment};
use crate::policy::Progress;
use crate::refund::Refund;
use crate::state::State;
use kernel::AttemptId;

impl Payment {
    pub(super) fn reserved(&mut self, index: usize, turn: &mut Turn<'_>, answer: ReserveAnswer) {
        let attempt = &mut self.attempts[index];
        if attempt.state != AttemptState::Reserving {
            return;
        }
        match answer {
            ReserveAnswer::Held {
                reservation,
                expires_at_us,
                items,
            } => {
                attempt.reservation = Some(reservation);
                attempt.hold_expires_at_us = Some(expires_at_us);
                attempt.set_hold(Hold::Held, turn.now_us);
                attempt.state = AttemptState::Reserved;
                let agreed_minor = attempt.amount_minor;
                let charges = self.order.charges.clone();
                let payable = match charges.amounts(self.order.currency, &items) {
                    Ok((charges, sum)) => {
                        self.order.items = items;
                        self.order.charges = charges;
                        self.amount_minor = sum.amount_minor();
                        !sum.is_zero()
                    }
                    Err(_) => false, // Too large, or less than discounts: what was agreed stays.
                };
                let amount_minor = self.amount_minor;
                if !payable || amount_minor != agreed_minor {
                    let message = format!(
                        "the amount was {}, it is {} now",
                        self.money(agreed_minor),
                        self.money(amount_minor)
                    );
                    self.fail(
                        index,
                        turn,
                        Failure::new(FailureCode::PriceChanged, message),
                    );
                }
            }
            ReserveAnswer::Refused(failure) => self.fail(index, turn, failure),
            ReserveAnswer::Unavailable => self.product_is_down(index, turn),
        }
    }

    pub(super) fn extended(&mut self, index: usize, turn: &mut Turn<'_>, answer: &StockAnswer) {
        let attempt = &mut self.attempts[index];
        if attempt.hold != Hold::Held {
            return;
        }
        match answer {
            StockAnswer::Done { expires_at_us } => {
                attempt.hold_expires_at_us = expires_at_us.or(attempt.hold_expires_at_us);
                // Were the grant shorter than the wish, asking on would not make it longer.
                let pause_us = turn.rules.retry_max_us;
                attempt.stock = Progress {
                    tries: 0,
                    due_at_us: turn.now_us + pause_us,
                };
            }
            StockAnswer::Refused if attempt.state == AttemptState::Reserved => {
                self.fail(index, turn, out_of_stock());
            }
            StockAnswer::Refused if self.state == State::RequiresCapture => {
                // The hold ran out before it could be extended: the units are not ours any more.
                if !self.has_pending_capture() && self.closing.is_none() {
                    self.last_error = Some(out_of_stock());
                    self.closing = Some(CancelReason::OutOfStock);
                }
                self.attempts[index].set_hold(Hold::Releasing, turn.now_us);
            }
            StockAnswer::Refused => {
                let pause_us = turn.rules.retry_max_us; // The commit will find out.
                attempt.stock = Progress {
                    tries: 0,
                    due_at_us: turn.now_us + pause_us,
                };
            }
            StockAnswer::Unavailable if attempt.state == AttemptState::Reserved => {
                self.product_is_down(index, turn);
            }
            StockAnswer::Unavailable => put_off(&mut attempt.stock, turn),
        }
    }

    /// Nothing was charged yet: tried on for a while, then given back.
    pub(super) fn product_is_down(&mut self, index: usize, turn: &mut Turn<'_>) {
        let attempt = &mut self.attempts[index];
        if turn.now_us - attempt.created_at_us < turn.rules.product_give_up_us {
            put_off(&mut attempt.stock, turn);
            return;
        }
        let message = "the product service cannot be reached; nothing was charged";
        self.fail(
            index,
            turn,
            Failure::new(FailureCode::ProductUnavailable, message),
        );
    }

    pub(super) fn committed(&mut self, index: usize, turn: &mut Turn<'_>, answer: &StockAnswer) {
        let attempt = &mut self.attempts[index];
        match (attempt.hold, answer) {
            (Hold::Committing, StockAnswer::Done { .. }) => {
                attempt.set_hold(Hold::Committed, turn.now_us);
                if attempt.state == AttemptState::Charged && self.closing.is_none() {
                    self.sell_what_was_charged(index, turn);
                }
            }
            (Hold::Undoing, StockAnswer::Done { .. }) => {
                attempt.set_hold(Hold::Restocking, turn.now_us);
            }
            (Hold::Committing, StockAnswer::Refused) => {
                attempt.set_hold(Hold::Held, turn.now_us);
                attempt.reverse(turn.now_us);
                if self.is_current(index) {
                    self.closing.get_or_insert(CancelReason::OutOfStock);
                    self.last_error = Some(out_of_stock());
                }
            }
            (Hold::Undoing, StockAnswer::Refused) => {
                attempt.set_hold(Hold::Releasing, turn.now_us);
            }
            (Hold::Committing | Hold::Undoing, StockAnswer::Unavailable) => {
                put_off(&mut attempt.stock, turn);
            }
            (
                Hold::None
                | Hold::Held
                | Hold::Committed
                | Hold::Releasing
                | Hold::Released
                | Hold::Restocking
                | Hold::Restocked,
                _,
            ) => {}
        }
    }

    /// A one-step charge becomes a sale once its goods are committed.
    pub(super) fn sell_what_was_charged(&mut self, index: usize, turn: &mut Turn<'_>) {
        let attempt = &mut self.attempts[index];
        attempt.state = AttemptState::Captured;
        let id = attempt.id;
        let shipping = self.shipping_uncaptured();
        let mut capture = Capture::new(id, self.all_lines(), shipping, true, turn.now_us);
        capture.stock = Follow::Done;
        self.captures.push(capture);
        self.book_capture(self.captures.len() - 1, turn);
        self.finish(turn);
    }

    pub(super) fn hold_ended(&mut self, index: usize, turn: &mut Turn<'_>, answer: &StockAnswer) {
        let attempt = &mut self.attempts[index];
        match (attempt.hold, answer) {
            // Refused: nothing of it is held, or it was put back: there is nothing left to do.
            (Hold::Releasing, StockAnswer::Done { .. } | StockAnswer::Refused) => {
                attempt.set_hold(Hold::Released, turn.now_us);
            }
            (Hold::Restocking, StockAnswer::Done { .. } | StockAnswer::Refused) => {
                attempt.set_hold(Hold::Restocked, turn.now_us);
            }
            (_, StockAnswer::Unavailable) => put_off(&mut attempt.stock, turn),
            (_, StockAnswer::Done { .. } | StockAnswer::Refused) => {}
        }
    }

    pub(super) fn capture_committed(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        answer: &StockAnswer,
    ) {
        let capture = &mut self.captures[index];
        if capture.stock != Follow::Pending {
            return;
        }
        match answer {
            StockAnswer::Done { .. } => capture.stock = Follow::Done,
            StockAnswer::Unavailable => put_off(&mut capture.stock_progress, turn),
            StockAnswer::Refused => {
                capture.stock = Follow::Refused;
                let (attempt, lines) = (capture.attempt, capture.lines.clone());
                self.give_back_undeliverable(attempt, lines, turn);
            }
        }
    }

    /// Money was taken for units that were no longer there: it goes back, as far as it has not.
    pub(super) fn give_back_undeliverable(
        &mut self,
        attempt: AttemptId,
        mut lines: Vec<Line>,
        turn: &mut Turn<'_>,
    ) {
        for line in &mut lines {
            let left = self.captured_quantity(&line.sku) - self.refunded_quantity(&line.sku);
            let part = line.part().within(self.part_left(&line.sku));
            *line = Line::new(line.sku.clone(), line.quantity.min(left), part);
        }
        lines.retain(|line| line.amount_minor > 0);
        if !lines.is_empty() {
            let reason = "out of stock".to_owned();
            self.refunds.push(Refund::new(
                attempt,
                (lines, Part::default()),
                false,
                reason,
                turn.now_us,
            ));
        }
    }

    pub(super) fn refund_restocked(
        &mut self,
        index: usize,
        turn: &mut Turn<'_>,
        answer: &StockAnswer,
    ) {
        let refund = &mut self.refunds[index];
        if refund.stock != Follow::Pending {
            return;
        }
        match answer {
            StockAnswer::Done { .. } => refund.stock = Follow::Done,
            StockAnswer::Refused => refund.stock = Follow::Refused,
            StockAnswer::Unavailable => put_off(&mut refund.stock_progress, turn),
        }
    }
}
