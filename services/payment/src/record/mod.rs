//! What the world answered, recorded: the other half of `step`.
//!
//! An answer is applied to the payment as it is by now, which may have changed since the question
//! was asked: a cancellation may have been recorded meanwhile.

mod charge;
mod dispute;
mod settlement;
mod stock;

use crate::dispute::SeenDispute;
use crate::fact::Turn;
use crate::failure::Failure;
use crate::payment::{Item, Payment};
use kernel::{AttemptId, CaptureId, DisputeId, RefundId};

/// What the product service answered to a reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReserveAnswer {
    /// Held, as the items are at this moment.
    Held {
        /// The reservation.
        reservation: String,
        /// When the hold ends.
        expires_at_us: i64,
        /// The items with their snapshots.
        items: Vec<Item>,
    },
    /// Not held, for good: out of stock, or no longer sold.
    Refused(Failure),
    /// No answer; asking again is safe.
    Unavailable,
}

/// What the product service answered to anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StockAnswer {
    /// Done. After an extension: when the hold ends now.
    Done {
        /// When the hold ends, where it is still held.
        expires_at_us: Option<i64>,
    },
    /// Refused for good.
    Refused,
    /// No answer; asking again is safe.
    Unavailable,
}

/// What the provider answered about a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChargeAnswer {
    /// It holds the money.
    Authorized {
        /// Until then.
        expires_at_us: i64,
    },
    /// It has taken the money.
    Taken,
    /// The customer must authenticate.
    ActionRequired {
        /// Where.
        redirect_url: String,
    },
    /// It refused.
    Declined(Failure),
    /// It has not decided.
    Pending,
    /// It gave the money up, or the authorisation lapsed.
    Voided,
    /// It knows nothing of it. Only ever looked up.
    NotFound,
    /// No answer, and no knowing whether it acted.
    Unknown,
    /// No answer, and it certainly did not act.
    Unavailable,
}

/// What the provider answered about a capture, void or refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettlementAnswer {
    /// Done.
    Done,
    /// It refused.
    Declined(Failure),
    /// It has not decided.
    Pending,
    /// It knows nothing of it. Only ever looked up.
    NotFound,
    /// No answer, and no knowing whether it acted.
    Unknown,
    /// No answer, and it certainly did not act.
    Unavailable,
}

/// What the provider answered about the disputes of a charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DisputesAnswer {
    /// These are all of them.
    Seen(Vec<SeenDispute>),
    /// It does not tell of disputes.
    Unsupported,
    /// No answer.
    Unknown,
}

/// What the provider answered to evidence, or to the giving up of a dispute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseAnswer {
    /// It took it; the dispute after that.
    Taken(Box<SeenDispute>),
    /// It refused.
    Refused(Failure),
    /// No answer, and no knowing whether it took it.
    Unknown,
    /// No answer, and it certainly did not take it.
    Unavailable,
}

/// An answer with what it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// To `Reserve`.
    Reserve(AttemptId, ReserveAnswer),
    /// To `Extend`.
    Extend(AttemptId, StockAnswer),
    /// To `Commit`.
    Commit(AttemptId, StockAnswer),
    /// To `CommitCapture`.
    CommitCapture(CaptureId, StockAnswer),
    /// To `Release`.
    Release(AttemptId, StockAnswer),
    /// To `Restock`.
    Restock(AttemptId, StockAnswer),
    /// To `RestockRefund`.
    RestockRefund(RefundId, StockAnswer),
    /// To `Authorize` and `LookUpCharge`.
    Charge(AttemptId, ChargeAnswer),
    /// To `Void` and `Reverse`.
    Reverse(AttemptId, SettlementAnswer),
    /// To `Capture` and `LookUpCapture`.
    Capture(CaptureId, SettlementAnswer),
    /// To `Refund` and `LookUpRefund`.
    Refund(RefundId, SettlementAnswer),
    /// To `LookUpDisputes`.
    Disputes(AttemptId, DisputesAnswer),
    /// To `SubmitEvidence` and `AcceptDispute`.
    Response(DisputeId, ResponseAnswer),
}

impl Payment {
    /// Records an answer. One about something that is not of this payment changes nothing.
    pub fn record(&mut self, turn: &mut Turn<'_>, report: Report) {
        let attempt = match &report {
            Report::Reserve(id, _)
            | Report::Extend(id, _)
            | Report::Commit(id, _)
            | Report::Release(id, _)
            | Report::Restock(id, _)
            | Report::Charge(id, _)
            | Report::Reverse(id, _)
            | Report::Disputes(id, _) => self.attempt_index(*id),
            Report::CommitCapture(id, _) | Report::Capture(id, _) => {
                self.captures.iter().position(|capture| capture.id == *id)
            }
            Report::RestockRefund(id, _) | Report::Refund(id, _) => {
                self.refunds.iter().position(|refund| refund.id == *id)
            }
            Report::Response(id, _) => self.disputes.iter().position(|of| of.id == *id),
        };
        let Some(index) = attempt else { return };
        match report {
            Report::Reserve(_, answer) => self.reserved(index, turn, answer),
            Report::Extend(_, answer) => self.extended(index, turn, &answer),
            Report::Commit(_, answer) => self.committed(index, turn, &answer),
            Report::CommitCapture(_, answer) => self.capture_committed(index, turn, &answer),
            Report::Release(_, answer) | Report::Restock(_, answer) => {
                self.hold_ended(index, turn, &answer);
            }
            Report::RestockRefund(_, answer) => self.refund_restocked(index, turn, &answer),
            Report::Charge(_, answer) => self.charged(index, turn, answer),
            Report::Reverse(_, answer) => self.reversed(index, turn, &answer),
            Report::Capture(_, answer) => self.captured(index, turn, answer),
            Report::Refund(_, answer) => self.refunded(index, turn, answer),
            Report::Disputes(_, answer) => self.disputes_looked_up(index, turn, answer),
            Report::Response(_, answer) => self.responded(index, turn, answer),
        }
    }
}

#[cfg(test)]
mod hints;
#[cfg(test)]
mod late;
