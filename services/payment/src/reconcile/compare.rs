//! One payment, as the provider lists it and as we have it: what differs.
//!
//! A provider names our captures and refunds by the references that it was given: those of the capture or refund, of
//! the attempt (a provider that books by charge), or of the payment (Toss). Lines are matched by the narrowest name
//! first. What was taken and given back of an attempt that was given up is in no books of ours, and no discrepancy.
//! Disputes it names by names of its own; what banks did is judged by itself (`banks`). Deliberately missing: time and
//! I/O; `until_us` is an argument.

mod banks;

use super::{Finding, Kind};
use crate::attempt::{Attempt, AttemptState};
use crate::capture::CaptureState;
use crate::payment::Payment;
use crate::provider::{Transaction, TransactionKind};
use crate::refund::RefundState;
use banks::is_of_bank;
use kernel::Money;

/// A movement as the provider lists it.
pub type Line = Transaction;

/// What an entry of the books says that the provider took (of a capture) or gave back (of a refund).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Booked {
    /// The capture or refund.
    pub source: String,
    /// How much, never negative.
    pub amount: Money,
}

/// A payment with everything that is to be compared.
#[derive(Debug, Clone)]
pub struct Case {
    /// The payment.
    pub payment: Payment,
    /// Its entries in the books.
    pub booked: Vec<Booked>,
    /// What the provider has listed of it so far.
    pub lines: Vec<Line>,
}

impl Case {
    /// A payment of which nothing is booked or listed yet.
    pub fn of(payment: Payment) -> Self {
        Self {
            payment,
            booked: Vec::new(),
            lines: Vec::new(),
        }
    }
}

/// Where one of our movements stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stand {
    Settled,
    Open,
    Failed,
}

/// One of our movements.
struct Ours<'a> {
    kind: TransactionKind,
    reference: String,
    attempt: String,
    stand: Stand,
    amount: Money,
    at_us: i64,
    line: Option<&'a Line>,
}

/// A line that belongs to no payment of ours.
pub fn stranger(line: &Line, until_us: i64) -> Option<Finding> {
    let old = line.booked_at_us <= until_us;
    old.then(|| Finding {
        kind: Kind::MissingHere,
        subject: line.id.clone(),
        payment: None,
        our_reference: line.reference.clone(),
        provider_id: line.id.clone(),
        ours: None,
        theirs: Some(line.amount),
        booked_at_us: line.booked_at_us,
        safe: false,
    })
}

/// Everything that differs and is not younger than `until_us`.
pub fn compare(case: &Case, until_us: i64) -> Vec<Finding> {
    let mut lines: Vec<&Line> = case.lines.iter().collect();
    lines.sort_by(|a, b| (a.booked_at_us, &a.id).cmp(&(b.booked_at_us, &b.id)));
    let (of_banks, lines) = lines.into_iter().partition(|line| is_of_bank(line));
    let mut sheet = Sheet {
        case,
        until_us,
        ours: ours(case),
        lines,
        of_banks,
        findings: Vec::new(),
    };
    sheet.set_failed_refunds_aside();
    sheet.set_reversals_aside();
    sheet.match_by(|line, ours| line.reference == ours.reference);
    sheet.match_by(|line, ours| line.reference == ours.attempt);
    let payment = case.payment.id.to_string();
    sheet.match_by(|line, _| line.reference == payment);
    sheet.set_unnamed_reversals_aside();
    sheet.judge_pairs();
    sheet.judge_lines();
    sheet.judge_banks();
    sheet.findings
}

/// A comparison in the making. `lines` are those that nothing of ours was found for yet; `of_banks` are apart.
struct Sheet<'a> {
    case: &'a Case,
    until_us: i64,
    ours: Vec<Ours<'a>>,
    lines: Vec<&'a Line>,
    of_banks: Vec<&'a Line>,
    findings: Vec<Finding>,
}

impl<'a> Sheet<'a> {
    /// What was taken of an attempt that is given up, and given back under the reversal's own reference.
    fn set_reversals_aside(&mut self) {
        for attempt in self.case.payment.attempts.iter().filter(|a| is_given_up(a)) {
            let name = attempt.id.to_string();
            let reversal = format!("{name}-reversal");
            self.set_pair_aside(&name, |line| line.reference == reversal);
        }
    }

    /// The same at a provider that names payments only: what is left by now.
    fn set_unnamed_reversals_aside(&mut self) {
        let payment = self.case.payment.id.to_string();
        for attempt in self.case.payment.attempts.iter().filter(|a| is_given_up(a)) {
            let name = attempt.id.to_string();
            self.set_pair_aside(&name, |line| line.reference == payment);
        }
    }

    fn set_pair_aside(&mut self, attempt: &str, is_reversal: impl Fn(&Line) -> bool) {
        let back = self
            .lines
            .iter()
            .position(|line| line.kind == TransactionKind::Refund && is_reversal(line));
        let Some(back) = back else { return };
        let amount = self.lines[back].amount;
        let payment = self.case.payment.id.to_string();
        let taken = self.lines.iter().position(|line| {
            line.kind == TransactionKind::Capture
                && line.amount == amount
                && (line.charge_reference == attempt || line.charge_reference == payment)
                && !self
                    .ours
                    .iter()
                    .any(|ours| ours.reference == line.reference && ours.stand == Stand::Settled)
        });
        if let Some(taken) = taken {
            self.lines.remove(taken.max(back));
            self.lines.remove(taken.min(back));
        }
    }

    /// Gives each line that `is_named` allows something of ours: first of the same amount, then whatever is left.
    fn match_by(&mut self, is_named: impl Fn(&Line, &Ours<'a>) -> bool) {
        self.match_once(|line, ours| ours.amount == line.amount && is_named(line, ours));
        self.match_once(is_named);
    }

    fn match_once(&mut self, fits: impl Fn(&Line, &Ours<'a>) -> bool) {
        let mut left = Vec::new();
        for line in std::mem::take(&mut self.lines) {
            let free = self
                .ours
                .iter_mut()
                .filter(|ours| ours.line.is_none() && ours.kind == line.kind && fits(line, ours));
            match free.min_by_key(|ours| ours.stand) {
                Some(ours) => ours.line = Some(line),
                None => left.push(line),
            }
        }
        self.lines = left;
    }

    fn judge_pairs(&mut self) {
        for ours in std::mem::take(&mut self.ours) {
            match ours.line {
                Some(line) => self.judge_pair(&ours, line),
                None if ours.stand == Stand::Settled && ours.at_us <= self.until_us => {
                    self.findings.push(Finding {
                        kind: Kind::MissingThere,
                        subject: ours.reference.clone(),
                        payment: Some(self.case.payment.id),
                        our_reference: ours.reference.clone(),
                        provider_id: String::new(),
                        ours: Some(ours.amount),
                        theirs: None,
                        booked_at_us: ours.at_us,
                        safe: false,
                    });
                }
                None => {}
            }
            self.ours.push(ours);
        }
    }

    fn judge_pair(&mut self, ours: &Ours<'a>, line: &'a Line) {
        let booked = self.booked(&ours.reference).map(|booked| booked.amount);
        let amount = booked.unwrap_or(ours.amount);
        self.compare_amounts(line, &ours.reference, amount);
        match ours.stand {
            Stand::Settled if booked.is_none() => {
                self.find(Kind::MissingHere, line, &ours.reference, None, false);
            }
            Stand::Settled => {}
            Stand::Open => self.find(Kind::State, line, &ours.reference, Some(amount), true),
            Stand::Failed => {
                let given_up = self.attempt(&ours.attempt).is_some_and(is_under_way);
                self.find(Kind::State, line, &ours.reference, Some(amount), given_up);
            }
        }
    }

    fn compare_amounts(&mut self, line: &Line, ours: &str, amount: Money) {
        if amount.currency() != line.amount.currency() {
            self.find(Kind::Currency, line, ours, Some(amount), false);
        } else if amount != line.amount {
            self.find(Kind::Amount, line, ours, Some(amount), false);
        }
    }

    fn judge_lines(&mut self) {
        for line in std::mem::take(&mut self.lines) {
            let twice = self.ours.iter().find(|ours| {
                let other = ours.line.filter(|other| other.id != line.id);
                other.is_some_and(|other| {
                    other.kind == line.kind && other.reference == line.reference
                })
            });
            if let Some(ours) = twice {
                let (reference, amount) = (ours.reference.clone(), ours.amount);
                self.find(Kind::Duplicate, line, &reference, Some(amount), false);
                continue;
            }
            let attempt = self.attempt_of(line);
            let lost = line.kind == TransactionKind::Capture && attempt.is_some_and(is_under_way);
            let kind = if lost { Kind::State } else { Kind::MissingHere };
            self.find(kind, line, &line.reference, None, lost);
        }
    }

    fn find(&mut self, kind: Kind, line: &Line, ours: &str, amount: Option<Money>, safe: bool) {
        if line.booked_at_us > self.until_us {
            return;
        }
        self.findings.push(Finding {
            kind,
            subject: line.id.clone(),
            payment: Some(self.case.payment.id),
            our_reference: ours.to_owned(),
            provider_id: line.id.clone(),
            ours: amount,
            theirs: Some(line.amount),
            booked_at_us: line.booked_at_us,
            safe,
        });
    }

    fn booked(&self, reference: &str) -> Option<&'a Booked> {
        let mut booked = self.case.booked.iter();
        booked.find(|booked| booked.source == reference)
    }

    fn attempt(&self, reference: &str) -> Option<&'a Attempt> {
        let mut attempts = self.case.payment.attempts.iter();
        attempts.find(|attempt| attempt.id.to_string() == reference)
    }

    /// The attempt of a line; of one that names the payment only, the latest.
    fn attempt_of(&self, line: &Line) -> Option<&'a Attempt> {
        self.attempt(&line.charge_reference)
            .or_else(|| self.attempt(&line.reference))
            .or_else(|| {
                let payment = self.case.payment.id.to_string();
                let last = self.case.payment.attempts.last();
                last.filter(|_| line.charge_reference == payment)
            })
    }
}

/// Whether what was taken of it goes back, or went.
fn is_given_up(attempt: &Attempt) -> bool {
    matches!(
        attempt.state,
        AttemptState::Reversing | AttemptState::Reversed
    )
}

/// Whether asking the provider can still move it: all of it that keeps no money.
fn is_under_way(attempt: &Attempt) -> bool {
    match attempt.state {
        AttemptState::Reserving
        | AttemptState::Reserved
        | AttemptState::Sent
        | AttemptState::ActionRequired
        | AttemptState::Authorized
        | AttemptState::Charged
        | AttemptState::Declined
        | AttemptState::Reversing => true,
        AttemptState::Reversed => !attempt.taken,
        AttemptState::Closing | AttemptState::Captured => false,
    }
}

fn ours<'a>(case: &Case) -> Vec<Ours<'a>> {
    let payment = &case.payment;
    let captures = payment.captures.iter().map(|capture| Ours {
        kind: TransactionKind::Capture,
        reference: capture.id.to_string(),
        attempt: capture.attempt.to_string(),
        stand: match capture.state {
            CaptureState::Succeeded => Stand::Settled,
            CaptureState::Pending => Stand::Open,
            CaptureState::Failed => Stand::Failed,
        },
        amount: payment.money(capture.amount_minor),
        at_us: capture.captured_at_us.unwrap_or(capture.created_at_us),
        line: None,
    });
    let refunds = payment.refunds.iter().map(|refund| Ours {
        kind: TransactionKind::Refund,
        reference: refund.id.to_string(),
        attempt: refund.attempt.to_string(),
        stand: match refund.state {
            RefundState::Succeeded => Stand::Settled,
            RefundState::Pending => Stand::Open,
            RefundState::Failed if refund.reversed_at_us.is_some() => Stand::Settled,
            RefundState::Failed | RefundState::Canceled => Stand::Failed,
        },
        amount: payment.money(refund.amount_minor),
        at_us: refund.updated_at_us,
        line: None,
    });
    captures.chain(refunds).collect()
}

#[cfg(test)]
mod tests;
