//! What to ask the world next, decided from nothing but the persisted state: the same function
//! drives the RPC that began a payment and the worker that resumes it after a crash.
//!
//! A call to the provider is returned only after the row that it concerns was marked as sent; the
//! caller commits that before it makes the call. What was sent and not answered is looked up.

mod dispute;
mod money;
mod stock;

use crate::attempt::{AttemptState, Hold};
use crate::fact::{Fact, Turn};
use crate::payment::{CancelReason, Payment};
use crate::state::{Move, State};
use kernel::{AttemptId, CaptureId, Currency, DisputeId, Money, PaymentId, RefundId};

/// One call to the world, with all that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// To the product service.
    Stock(StockCall),
    /// To the provider of this name.
    Money(String, MoneyCall),
}

/// One call to the product service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the argument of that name in the port that is called"
)]
pub enum StockCall {
    /// Hold stock for an attempt.
    Reserve {
        attempt: AttemptId,
        lines: Vec<(String, i32)>,
        currency: Currency,
        hold_us: i64,
    },
    /// Hold it for longer.
    Extend {
        attempt: AttemptId,
        reservation: String,
        hold_us: i64,
    },
    /// Take all of it out of stock.
    Commit {
        attempt: AttemptId,
        reservation: String,
    },
    /// Take the units of one capture out of stock.
    CommitCapture {
        capture: CaptureId,
        reservation: String,
        lines: Vec<(String, i32)>,
    },
    /// Make free what is still held.
    Release {
        attempt: AttemptId,
        reservation: String,
    },
    /// Put all of it back into stock.
    Restock {
        attempt: AttemptId,
        reservation: String,
        lines: Vec<(String, i32)>,
    },
    /// Put the units of one refund back into stock.
    RestockRefund {
        refund: RefundId,
        reservation: String,
        lines: Vec<(String, i32)>,
    },
}

/// One call to the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the argument of that name in the port that is called"
)]
pub enum MoneyCall {
    /// Ask for the money.
    Authorize {
        attempt: AttemptId,
        payment: PaymentId,
        amount: Money,
        payment_method: String,
        order_ref: String,
        capture: bool,
    },
    /// Ask what became of that.
    LookUpCharge { attempt: AttemptId },
    /// Take authorised money.
    Capture {
        capture: CaptureId,
        attempt: AttemptId,
        amount: Money,
        last: bool,
    },
    /// Ask what became of that.
    LookUpCapture { capture: CaptureId },
    /// Give up an authorisation, or what is left of it.
    Void { attempt: AttemptId },
    /// Give back the whole of what an attempt took, which became no sale.
    Reverse { attempt: AttemptId, amount: Money },
    /// Ask what became of that.
    LookUpReversal { attempt: AttemptId },
    /// Give captured money back.
    Refund {
        refund: RefundId,
        attempt: AttemptId,
        amount: Money,
    },
    /// Ask what became of that.
    LookUpRefund { refund: RefundId },
    /// Something about disputes.
    Dispute(DisputeCall),
}

/// One call to the provider about disputes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the argument of that name in the port that is called"
)]
pub enum DisputeCall {
    /// Ask which there are of a charge, and how they stand.
    LookUp { attempt: AttemptId },
    /// Hand in the evidence that is kept for one.
    SubmitEvidence {
        dispute: DisputeId,
        provider_ref: String,
        reference: String,
    },
    /// Give one up.
    Accept {
        dispute: DisputeId,
        provider_ref: String,
        reference: String,
    },
}

impl From<StockCall> for Call {
    fn from(call: StockCall) -> Self {
        Self::Stock(call)
    }
}

impl Call {
    /// Its name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stock(StockCall::Reserve { .. }) => "reserve",
            Self::Stock(StockCall::Extend { .. }) => "extend",
            Self::Stock(StockCall::Commit { .. }) => "commit",
            Self::Stock(StockCall::CommitCapture { .. }) => "commit_capture",
            Self::Stock(StockCall::Release { .. }) => "release",
            Self::Stock(StockCall::Restock { .. }) => "restock",
            Self::Stock(StockCall::RestockRefund { .. }) => "restock_refund",
            Self::Money(_, MoneyCall::Authorize { .. }) => "authorize",
            Self::Money(_, MoneyCall::LookUpCharge { .. }) => "look_up_charge",
            Self::Money(_, MoneyCall::Capture { .. }) => "capture",
            Self::Money(_, MoneyCall::LookUpCapture { .. }) => "look_up_capture",
            Self::Money(_, MoneyCall::Void { .. }) => "void",
            Self::Money(_, MoneyCall::Reverse { .. }) => "reverse",
            Self::Money(_, MoneyCall::LookUpReversal { .. }) => "look_up_reversal",
            Self::Money(_, MoneyCall::Refund { .. }) => "refund",
            Self::Money(_, MoneyCall::LookUpRefund { .. }) => "look_up_refund",
            Self::Money(_, MoneyCall::Dispute(call)) => match call {
                DisputeCall::LookUp { .. } => "look_up_disputes",
                DisputeCall::SubmitEvidence { .. } => "submit_evidence",
                DisputeCall::Accept { .. } => "accept_dispute",
            },
        }
    }
}

/// What is next for a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This call, after the payment as it is now was committed.
    Call(Box<Call>),
    /// Nothing before this time.
    Later(i64),
    /// Nothing, ever, unless somebody asks.
    Nothing,
}

/// What one part of a payment has to do.
enum Ready {
    Now(Call),
    At(i64),
    Never,
    /// Something changed; look at the whole again.
    Again,
}

impl Ready {
    /// The call when it is due, else the time when it will be.
    fn when<C: Into<Call>>(due_at_us: i64, now_us: i64, call: impl FnOnce() -> C) -> Self {
        if due_at_us <= now_us {
            Self::Now(call().into())
        } else {
            Self::At(due_at_us)
        }
    }
}

impl Payment {
    /// Decides what is next. Money comes before stock, older things before newer ones.
    pub fn next(&mut self, turn: &mut Turn<'_>) -> Next {
        'again: loop {
            self.expire(turn);
            let mut soonest = self.expiry();
            for part in 0..self.parts() {
                match self.part(part, turn) {
                    Ready::Now(call) => return Next::Call(Box::new(call)),
                    Ready::At(due_us) => {
                        soonest = Some(soonest.map_or(due_us, |soonest| soonest.min(due_us)));
                    }
                    Ready::Never => {}
                    Ready::Again => continue 'again,
                }
            }
            return soonest.map_or(Next::Nothing, Next::Later);
        }
    }

    /// Carries out what time alone brings about.
    pub fn expire(&mut self, turn: &mut Turn<'_>) {
        if self
            .expiry()
            .is_none_or(|expires_us| expires_us > turn.now_us)
        {
            return;
        }
        match self.state {
            State::RequiresConfirmation => {
                self.closing = Some(CancelReason::Expired);
                self.become_canceled(turn);
            }
            State::RequiresAction | State::RequiresCapture => {
                self.closing = Some(CancelReason::Expired); // The reversal follows as a step.
            }
            State::PartiallyCaptured => {
                self.finish(turn);
                let attempt = self
                    .attempts
                    .last_mut()
                    .expect("a captured payment has an attempt");
                attempt.state = AttemptState::Closing;
                attempt.reversal.progress.due_at_us = turn.now_us;
                attempt.set_hold(Hold::Releasing, turn.now_us);
            }
            State::Processing | State::Succeeded | State::Canceled => {}
        }
    }

    /// Nothing is left to be captured.
    pub(crate) fn finish(&mut self, turn: &mut Turn<'_>) {
        self.go(turn, Move::Finish);
        self.emit(turn, Fact::Succeeded);
    }

    /// When its state runs out, unless something under way decides that first.
    fn expiry(&self) -> Option<i64> {
        let blocked = self.closing.is_some() || self.has_pending_capture();
        self.expires_at_us.filter(|_| !blocked)
    }

    fn parts(&self) -> usize {
        let disputes = self.attempts.len() + self.disputes.len();
        2 * (self.attempts.len() + self.captures.len() + self.refunds.len()) + disputes
    }

    /// The parts in order: money of attempts, captures, refunds; disputes of attempts, and responses to them; then
    /// stock of captures, refunds, attempts.
    fn part(&mut self, mut index: usize, turn: &mut Turn<'_>) -> Ready {
        let (attempts, captures, refunds) =
            (self.attempts.len(), self.captures.len(), self.refunds.len());
        let disputes = self.disputes.len();
        for (count, step) in [
            (
                attempts,
                Self::attempt_money as fn(&mut Self, usize, &mut Turn<'_>) -> Ready,
            ),
            (captures, Self::capture_money),
            (refunds, Self::refund_money),
            (attempts, Self::attempt_disputes),
            (disputes, Self::dispute_response),
            (captures, Self::capture_stock),
            (refunds, Self::refund_stock),
            (attempts, Self::attempt_stock),
        ] {
            if index < count {
                return step(self, index, turn);
            }
            index -= count;
        }
        Ready::Never
    }
}
