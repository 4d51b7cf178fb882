//! What the provider answered about captures and refunds, recorded: into the books, the sales and
//! the events, exactly once each.

use super::SettlementAnswer;
use super::charge::{look_again_later, look_up_later, not_done, not_found, provider_unavailable};
use crate::attempt::{AttemptState, Hold};
use crate::capture::{CaptureMove, CaptureState, Follow, Line, tax_of};
use crate::charges::Part;
use crate::fact::{Fact, Reversed, Turn};
use crate::failure::Failure;
use crate::ledger::{Split, Transaction};
use crate::payment::{CancelReason, CaptureMethod, Payment};
use crate::policy::Progress;
use crate::refund::{RefundMove, RefundState};
use crate::sales::{SaleKind, SaleLine};
use crate::state::Move;

impl Payment {
    pub(super) fn captured(&mut self, index: usize, turn: &mut Turn<'_>, answer: SettlementAnswer) {
        let capture = &mut self.captures[index];
        if capture.state != CaptureState::Pending {
            return;
        }
        match answer {
            SettlementAnswer::Done if self.order.capture_method == CaptureMethod::Automatic => {
                self.captured_at_once(index, turn);
            }
            SettlementAnswer::Done => self.captured_by_command(index, turn),
            SettlementAnswer::Declined(failure) => self.capture_failed(index, turn, failure),
            SettlementAnswer::Pending | SettlementAnswer::Unknown => {
                look_up_later(&mut capture.asked.progress, turn);
            }
            SettlementAnswer::NotFound => {
                not_found(&mut capture.asked, capture.created_at_us, turn);
            }
            SettlementAnswer::Unavailable => {
                not_done(&mut capture.asked, capture.created_at_us, turn);
            }
        }
    }

    pub(super) fn captured_at_once(&mut self, index: usize, turn: &mut Turn<'_>) {
        let id = self.captures[index].attempt;
        let Some(place) = self.attempt_index(id) else {
            return;
        };
        self.attempts[place].taken = true;
        if self.closing.is_some() {
            // Taken after it was given up: taken back, and no sale.
            self.end_capture(index, CaptureMove::Fail);
            self.attempts[place].reverse(turn.now_us);
            return;
        }
        self.captures[index].stock = Follow::Done;
        self.attempts[place].state = AttemptState::Captured;
        self.book_capture(index, turn);
        self.finish(turn);
    }

    pub(super) fn captured_by_command(&mut self, index: usize, turn: &mut Turn<'_>) {
        let id = self.captures[index].attempt;
        let Some(place) = self.attempt_index(id) else {
            return;
        };
        let all = self.is_all_captured_with(index);
        let last = all || self.captures[index].is_final;
        self.attempts[place].taken = true;
        self.captures[index].stock = Follow::Pending;
        self.captures[index].stock_progress = Progress::at(turn.now_us);
        self.book_capture(index, turn);
        if !last {
            self.go(turn, Move::CapturePart);
            return;
        }
        let attempt = &mut self.attempts[place];
        attempt.state = AttemptState::Captured; // A last capture gives the rest up by itself.
        let hold = if all {
            Hold::Committed
        } else {
            Hold::Releasing
        };
        if attempt.hold == Hold::Held {
            attempt.set_hold(hold, turn.now_us);
        }
        self.finish(turn);
    }

    pub(super) fn capture_failed(&mut self, index: usize, turn: &mut Turn<'_>, failure: Failure) {
        let automatic = self.order.capture_method == CaptureMethod::Automatic;
        let id = self.captures[index].attempt;
        self.captures[index].failure = Some(failure.clone());
        self.end_capture(index, CaptureMove::Fail);
        self.last_error = Some(failure);
        if let (true, Some(place)) = (automatic, self.attempt_index(id)) {
            self.closing.get_or_insert(CancelReason::CaptureFailed);
            self.attempts[place].reverse(turn.now_us);
        }
    }

    /// Money was taken and stays taken: into the books, the sales and the events.
    pub(super) fn book_capture(&mut self, index: usize, turn: &mut Turn<'_>) {
        self.end_capture(index, CaptureMove::Succeed);
        let capture = &mut self.captures[index];
        capture.captured_at_us = Some(turn.now_us);
        let (id, lines, shipping) = (capture.id, capture.lines.clone(), capture.shipping);
        let split = self.split(&lines, shipping);
        let amount = self.money(self.captures[index].amount_minor);
        let sold_at_us = self.order.ordered_at_us.unwrap_or(turn.now_us);
        let lines = self.sale_lines(SaleKind::Capture, id.to_string(), &lines, sold_at_us);
        turn.effects.entries.push(
            Transaction::of_capture(self.id, id, &self.order.provider, split, turn.now_us)
                .expect("captures are above zero"),
        );
        turn.effects.sales.extend(lines.iter().cloned());
        self.emit(
            turn,
            Fact::Captured {
                capture: id,
                amount,
                split,
                sold_at_us,
                lines,
            },
        );
    }

    pub(super) fn refunded(&mut self, index: usize, turn: &mut Turn<'_>, answer: SettlementAnswer) {
        let refund = &mut self.refunds[index];
        match refund.state {
            RefundState::Pending => {}
            RefundState::Succeeded => return self.refund_looked_at(index, turn, answer),
            RefundState::Failed | RefundState::Canceled => return,
        }
        match answer {
            SettlementAnswer::Done => self.book_refund(index, turn),
            SettlementAnswer::Declined(failure) => {
                let refund_id = refund.id;
                self.end_refund(index, turn, RefundMove::Fail, Some(failure.clone()));
                self.emit(
                    turn,
                    Fact::RefundFailed {
                        refund: refund_id,
                        failure,
                        reversed: None,
                    },
                );
            }
            SettlementAnswer::Pending | SettlementAnswer::Unknown => {
                refund.check = true; // It may be on its way, whatever is answered to a later request.
                look_up_later(&mut refund.asked.progress, turn);
            }
            SettlementAnswer::NotFound => not_found(&mut refund.asked, refund.created_at_us, turn),
            SettlementAnswer::Unavailable
                if !refund.check
                    && turn.now_us - refund.created_at_us >= turn.rules.provider_give_up_us =>
            {
                let failure = provider_unavailable();
                self.end_refund(index, turn, RefundMove::Withdraw, Some(failure));
            }
            SettlementAnswer::Unavailable => {
                not_done(&mut refund.asked, refund.created_at_us, turn);
            }
        }
    }

    pub(super) fn book_refund(&mut self, index: usize, turn: &mut Turn<'_>) {
        self.end_refund(index, turn, RefundMove::Succeed, None);
        let refund = &mut self.refunds[index];
        if refund.check {
            // A webhook came before this answer, which may be the older one.
            refund.asked.progress = Progress::second_look(turn.now_us + turn.rules.settle_us);
        }
        if refund.restock && refund.lines.iter().any(|line| line.quantity > 0) {
            refund.stock = Follow::Pending;
            refund.stock_progress = Progress::at(turn.now_us);
        }
        let (id, refunded_at_us, lines) = (refund.id, refund.created_at_us, refund.lines.clone());
        let shipping = refund.shipping;
        let split = self.split(&lines, shipping);
        let amount = self.money(self.refunds[index].amount_minor);
        let lines = self.sale_lines(SaleKind::Refund, id.to_string(), &lines, refunded_at_us);
        turn.effects.entries.push(
            Transaction::of_refund(self.id, id, &self.order.provider, split, turn.now_us)
                .expect("refunds are above zero"),
        );
        turn.effects.sales.extend(lines.iter().cloned());
        self.emit(
            turn,
            Fact::Refunded {
                refund: id,
                amount,
                split,
                refunded_at_us,
                lines,
            },
        );
    }

    /// A refund that has succeeded was looked up because a webhook named it. Once more in any case: the answer may be
    /// older than the webhook.
    fn refund_looked_at(&mut self, index: usize, turn: &mut Turn<'_>, answer: SettlementAnswer) {
        let refund = &mut self.refunds[index];
        match answer {
            SettlementAnswer::Done if refund.asked.progress.is_second_look() => {
                refund.check = false;
            }
            SettlementAnswer::Done => {
                let due_at_us = turn.now_us + turn.rules.settle_us;
                refund.asked.progress = Progress::second_look(due_at_us);
            }
            SettlementAnswer::Declined(failure) => self.reverse_refund(index, turn, failure),
            SettlementAnswer::Pending
            | SettlementAnswer::Unknown
            | SettlementAnswer::Unavailable => {
                look_again_later(&mut refund.asked.progress, turn);
            }
            // A look-up may lag behind; asked ever more rarely, for it did succeed.
            SettlementAnswer::NotFound => {
                let (first_us, max_us) = (turn.rules.look_up_first_us, turn.rules.late_success_us);
                let progress = &mut refund.asked.progress;
                progress.put_off_look(turn.now_us, first_us, max_us);
            }
        }
    }

    /// The money of a refund has come back: what it left in the books and the sales is undone, once. Its units stay
    /// in stock where they went back: the goods may well be there.
    fn reverse_refund(&mut self, index: usize, turn: &mut Turn<'_>, failure: Failure) {
        self.end_refund(index, turn, RefundMove::Reverse, Some(failure.clone()));
        let refund = &mut self.refunds[index];
        refund.reversed_at_us = Some(turn.now_us);
        let (id, lines, shipping) = (refund.id, refund.lines.clone(), refund.shipping);
        let restocked = matches!(refund.stock, Follow::Pending | Follow::Done);
        let amount_minor = refund.amount_minor;
        let split = self.split(&lines, shipping);
        let kind = SaleKind::RefundReversal;
        let lines = self.sale_lines(kind, id.to_string(), &lines, turn.now_us);
        turn.effects.entries.push(
            Transaction::of_refund_reversal(self.id, id, &self.order.provider, split, turn.now_us)
                .expect("refunds are above zero"),
        );
        turn.effects.sales.extend(lines.iter().cloned());
        let reversed = Reversed {
            amount: self.money(amount_minor),
            split,
            lines,
            restocked,
            reversed_at_us: turn.now_us,
        };
        self.emit(
            turn,
            Fact::RefundFailed {
                refund: id,
                failure,
                reversed: Some(reversed),
            },
        );
    }

    pub(super) fn end_capture(&mut self, index: usize, step: CaptureMove) {
        let capture = &mut self.captures[index];
        capture.state = capture
            .state
            .after(step)
            .expect("only pending captures are ended");
    }

    pub(super) fn end_refund(
        &mut self,
        index: usize,
        turn: &Turn<'_>,
        step: RefundMove,
        failure: Option<Failure>,
    ) {
        let refund = &mut self.refunds[index];
        refund.state = refund
            .state
            .after(step)
            .expect("callers end pending refunds, and reverse those that succeeded");
        refund.check &= refund.state == RefundState::Succeeded;
        refund.failure = failure;
        refund.updated_at_us = turn.now_us;
    }

    /// What lines and shipping are for.
    fn split(&self, lines: &[Line], shipping: Part) -> Split {
        let goods_minor = lines.iter().map(|line| line.part().net_minor).sum();
        Split {
            goods: self.money(goods_minor),
            shipping: self.money(shipping.net_minor),
            tax: self.money(tax_of(lines, shipping)),
        }
    }

    /// Product revenue: the goods less discounts, without shipping and tax.
    pub(super) fn sale_lines(
        &self,
        kind: SaleKind,
        source: String,
        lines: &[Line],
        at_us: i64,
    ) -> Vec<SaleLine> {
        let day = kernel::day::of(at_us);
        let of_line = |line: &Line| {
            let item = self.order.items.iter().find(|item| item.sku == line.sku);
            let item = item.expect("lines name items of the payment");
            SaleLine {
                kind,
                source: source.clone(),
                day: day.clone(),
                product_id: item.product_id.clone(),
                sku: line.sku.clone(),
                category: item.category.clone(),
                quantity: line.quantity,
                currency: self.order.currency,
                amount_minor: line.part().net_minor,
            }
        };
        lines.iter().map(of_line).collect()
    }
}
