//! What waits for a person: calls to a provider, or to the product service, that have stayed open for too long.
//!
//! Nothing is decided here. The saga goes on asking, ever more rarely; a person may ask at once, look at the
//! provider's own pages by the reference, or turn to the provider.

use crate::attempt::{AttemptState, Hold};
use crate::capture::{CaptureState, Follow};
use crate::fact::Turn;
use crate::payment::Payment;
use crate::policy::Progress;
use crate::refund::RefundState;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// To set money aside, or to take it in one step.
    Charge,
    /// To give back what it holds or took of an attempt that was given up.
    Reversal,
    /// To take authorised money.
    Capture,
    /// To give captured money back.
    Refund,
    /// To take what was paid out of stock, or to put it back: asked of the product service.
    Stock,
    /// To take evidence in a dispute, or that it is given up.
    Response,
}

impl CallKind {
    /// What a person can do about it.
    pub fn next_step(self) -> &'static str {
        match self {
            Self::Charge => {
                "find the reference at the provider; if nothing is there, cancel the payment, \
                 and it is given up with the next look-up"
            }
            Self::Reversal => {
                "find the reference at the provider and give the money back there; \
                 the next look-up takes notice"
            }
            Self::Capture => {
                "find the charge at the provider and capture or release it there; \
                 the next look-up takes notice"
            }
            Self::Refund => {
                "find the reference among the refunds at the provider; \
                 ask the provider before refunding again"
            }
            Self::Stock => {
                "find out from the logs why the product service does not answer; \
                 it is asked again until it does"
            }
            Self::Response => {
                "respond on the provider's own pages before the evidence is due; \
                 the next look-up takes notice"
            }
        }
    }
}

/// A call whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unresolved {
    /// What was asked for.
    pub kind: CallKind,
    /// Under which reference.
    pub reference: String,
    /// How much.
    pub amount_minor: i64,
    /// When it was begun.
    pub begun_at_us: i64,
    /// How far asking has come.
    pub progress: Progress,
}

impl Payment {
    /// The calls that were begun before a time and are still open, oldest first.
    pub fn unresolved(&self, before_us: i64) -> Vec<Unresolved> {
        let attempts = self.attempts.iter().filter_map(|attempt| {
            let (kind, progress) = match attempt.state {
                AttemptState::Sent => (CallKind::Charge, attempt.asked.progress),
                AttemptState::Reversing | AttemptState::Closing => {
                    (CallKind::Reversal, attempt.reversal.progress)
                }
                AttemptState::Reserving
                | AttemptState::Reserved
                | AttemptState::ActionRequired
                | AttemptState::Authorized
                | AttemptState::Charged
                | AttemptState::Captured
                | AttemptState::Declined
                | AttemptState::Reversed => return None,
            };
            Some(Unresolved {
                kind,
                reference: attempt.id.to_string(),
                amount_minor: attempt.amount_minor,
                begun_at_us: attempt.created_at_us,
                progress,
            })
        });
        let captures = self
            .captures
            .iter()
            .filter(|capture| capture.state == CaptureState::Pending);
        let captures = captures.map(|capture| Unresolved {
            kind: CallKind::Capture,
            reference: capture.id.to_string(),
            amount_minor: capture.amount_minor,
            begun_at_us: capture.created_at_us,
            progress: capture.asked.progress,
        });
        let refunds = self
            .refunds
            .iter()
            .filter(|refund| refund.state == RefundState::Pending);
        let refunds = refunds.map(|refund| Unresolved {
            kind: CallKind::Refund,
            reference: refund.id.to_string(),
            amount_minor: refund.amount_minor,
            begun_at_us: refund.created_at_us,
            progress: refund.asked.progress,
        });
        let calls = attempts.chain(captures).chain(refunds);
        let calls = calls.chain(self.open_stock()).chain(self.open_responses());
        let mut open: Vec<Unresolved> = calls.collect();
        open.retain(|call| call.begun_at_us < before_us);
        open.sort_by_key(|call| call.begun_at_us);
        open
    }

    /// What the product service is asked for beside money that was taken or given back.
    fn open_stock(&self) -> impl Iterator<Item = Unresolved> {
        let call = |reference: String, amount_minor, begun_at_us, progress| Unresolved {
            kind: CallKind::Stock,
            reference,
            amount_minor,
            begun_at_us,
            progress,
        };
        let owing = |hold| matches!(hold, Hold::Committing | Hold::Undoing | Hold::Restocking);
        let attempts = self.attempts.iter().filter(move |of| owing(of.hold));
        let attempts = attempts.map(move |of| {
            call(
                of.id.to_string(),
                of.amount_minor,
                of.created_at_us,
                of.stock,
            )
        });
        let pending = |stock| stock == Follow::Pending;
        let captures = self.captures.iter().filter(move |of| pending(of.stock));
        let captures = captures.map(move |of| {
            let progress = of.stock_progress;
            call(
                of.id.to_string(),
                of.amount_minor,
                of.created_at_us,
                progress,
            )
        });
        let refunds = self.refunds.iter().filter(move |of| pending(of.stock));
        let refunds = refunds.map(move |of| {
            let progress = of.stock_progress;
            call(
                of.id.to_string(),
                of.amount_minor,
                of.created_at_us,
                progress,
            )
        });
        attempts.chain(captures).chain(refunds)
    }

    /// What the provider was told in disputes, or is to be.
    fn open_responses(&self) -> impl Iterator<Item = Unresolved> {
        let open = self.disputes.iter().filter(|of| of.response.is_open());
        open.map(|dispute| Unresolved {
            kind: CallKind::Response,
            reference: dispute.id.to_string(),
            amount_minor: dispute.amount.amount_minor(),
            begun_at_us: dispute.responded_at_us.unwrap_or(dispute.created_at_us),
            progress: dispute.asked.progress,
        })
    }

    /// Everything of it that a provider may still answer for is to be asked about now.
    pub fn check_everything(&mut self, turn: &mut Turn<'_>) {
        let attempts = self.attempts.iter().map(|attempt| attempt.id.to_string());
        let captures = self.captures.iter().map(|capture| capture.id.to_string());
        let refunds = self.refunds.iter().map(|refund| refund.id.to_string());
        let references: Vec<String> = attempts.chain(captures).chain(refunds).collect();
        for reference in references {
            self.check_up(turn, &reference);
        }
        for attempt in &mut self.attempts {
            if turn.rules.disputes && attempt.taken {
                attempt.disputes = Some(Progress::at(turn.now_us));
            }
            attempt.reversal.progress.due_at_us =
                attempt.reversal.progress.due_at_us.min(turn.now_us);
        }
        for dispute in &mut self.disputes {
            let progress = &mut dispute.asked.progress;
            progress.due_at_us = progress.due_at_us.min(turn.now_us);
        }
    }
}
