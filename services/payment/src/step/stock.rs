//! What to ask the product service next, beside the saga's own order of steps: follow-ups of
//! captures and refunds, and what becomes of holds.

use super::{Ready, StockCall};
use crate::attempt::{AttemptState, Hold};
use crate::capture::{Capture, CaptureState, Follow};
use crate::fact::Turn;
use crate::payment::{CaptureMethod, Payment};
use kernel::AttemptId;

/// The longest hold that the product service grants.
const HOLD_US_MAX: i64 = 30 * 86_400_000_000;

impl Payment {
    pub(super) fn capture_stock(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let capture = &self.captures[index];
        if capture.stock != Follow::Pending {
            return Ready::Never;
        }
        Ready::when(capture.stock_progress.due_at_us, turn.now_us, || {
            StockCall::CommitCapture {
                capture: capture.id,
                reservation: self.reservation_of(capture.attempt),
                lines: capture
                    .lines
                    .iter()
                    .map(|l| (l.sku.clone(), l.quantity))
                    .collect(),
            }
        })
    }

    pub(super) fn refund_stock(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let refund = &self.refunds[index];
        if refund.stock != Follow::Pending || self.stock_is_owed() {
            return Ready::Never; // Only what has left the stock can come back.
        }
        let units = refund.lines.iter().filter(|line| line.quantity > 0);
        Ready::when(refund.stock_progress.due_at_us, turn.now_us, || {
            StockCall::RestockRefund {
                refund: refund.id,
                reservation: self.reservation_of(refund.attempt),
                lines: units
                    .map(|line| (line.sku.clone(), line.quantity))
                    .collect(),
            }
        })
    }

    pub(super) fn attempt_stock(&mut self, index: usize, turn: &mut Turn<'_>) -> Ready {
        let attempt = &self.attempts[index];
        let (id, due_us) = (attempt.id, attempt.stock.due_at_us);
        let Some(reservation) = attempt.reservation.clone() else {
            return Ready::Never;
        };
        match attempt.hold {
            Hold::Held => match self.hold_wanted_until(index, turn) {
                Some(until_us) => self.extend(index, turn, until_us),
                None => self.next_extension(index, turn),
            },
            Hold::Releasing if self.stock_is_owed() || self.has_pending_capture() => Ready::Never,
            Hold::Releasing => Ready::when(due_us, turn.now_us, || StockCall::Release {
                attempt: id,
                reservation,
            }),
            Hold::Undoing => Ready::when(due_us, turn.now_us, || StockCall::Commit {
                attempt: id,
                reservation,
            }),
            Hold::Restocking => Ready::when(due_us, turn.now_us, || StockCall::Restock {
                attempt: id,
                reservation,
                lines: self.all_units(),
            }),
            Hold::None | Hold::Committing | Hold::Committed | Hold::Released | Hold::Restocked => {
                Ready::Never
            }
        }
    }

    /// While an outcome is unknown the hold is extended again and again, before it ends.
    fn next_extension(&self, index: usize, turn: &Turn<'_>) -> Ready {
        let attempt = &self.attempts[index];
        match (attempt.state, attempt.hold_expires_at_us) {
            (AttemptState::Sent, Some(ends_us)) => {
                Ready::At(ends_us - turn.rules.hold_margin_us + 1)
            }
            (_, _) => Ready::Never,
        }
    }

    /// Until when a hold has to last, if it does not last that long yet.
    pub(super) fn hold_wanted_until(&self, index: usize, turn: &Turn<'_>) -> Option<i64> {
        let attempt = &self.attempts[index];
        let margin_us = turn.rules.hold_margin_us;
        let wanted_us = match attempt.state {
            AttemptState::ActionRequired => self.expires_at_us? + margin_us,
            AttemptState::Authorized if self.order.capture_method == CaptureMethod::Manual => {
                attempt.authorization_expires_at_us? + margin_us
            }
            AttemptState::Sent if self.hold_is_short(index, turn) => {
                turn.now_us + turn.rules.hold_us
            }
            AttemptState::Reserving
            | AttemptState::Reserved
            | AttemptState::Sent
            | AttemptState::Authorized
            | AttemptState::Charged
            | AttemptState::Closing
            | AttemptState::Captured
            | AttemptState::Declined
            | AttemptState::Reversing
            | AttemptState::Reversed => return None,
        };
        let wanted_us = wanted_us.min(turn.now_us + HOLD_US_MAX);
        // Half of the margin makes room for clocks that differ.
        let lasts = attempt
            .hold_expires_at_us
            .is_some_and(|ends| ends >= wanted_us - margin_us / 2);
        (!lasts).then_some(wanted_us)
    }

    pub(super) fn extend(&self, index: usize, turn: &Turn<'_>, until_us: i64) -> Ready {
        let attempt = &self.attempts[index];
        Ready::when(attempt.stock.due_at_us, turn.now_us, || StockCall::Extend {
            attempt: attempt.id,
            reservation: attempt
                .reservation
                .clone()
                .expect("what is held has a reservation"),
            hold_us: (until_us - turn.now_us).clamp(1_000_000, HOLD_US_MAX),
        })
    }

    pub(super) fn hold_is_short(&self, index: usize, turn: &Turn<'_>) -> bool {
        let ends = self.attempts[index].hold_expires_at_us;
        ends.is_none_or(|ends_us| ends_us - turn.now_us < turn.rules.hold_margin_us)
    }

    /// Whether some captured units have not left the stock yet.
    pub fn stock_is_owed(&self) -> bool {
        self.captures
            .iter()
            .any(|capture| capture.stock == Follow::Pending)
    }

    /// Whether with this capture nothing is left to be captured.
    pub(crate) fn is_all_captured_with(&self, index: usize) -> bool {
        self.order.items.iter().all(|item| {
            let taken = |(place, capture): &(usize, &Capture)| {
                *place == index || capture.state == CaptureState::Succeeded
            };
            let captures = self.captures.iter().enumerate().filter(taken);
            let quantity: i32 = captures
                .map(|(_, capture)| capture.quantity_of(&item.sku))
                .sum();
            quantity == item.quantity
        })
    }

    pub(super) fn reservation_of(&self, attempt: AttemptId) -> String {
        let attempt = self
            .attempts
            .iter()
            .find(|candidate| candidate.id == attempt);
        attempt
            .and_then(|attempt| attempt.reservation.clone())
            .expect("captures and refunds follow a reservation")
    }

    pub(super) fn all_units(&self) -> Vec<(String, i32)> {
        self.order
            .items
            .iter()
            .map(|item| (item.sku.clone(), item.quantity))
            .collect()
    }
}
