//! What banks did to a payment's money: disputes, disputes that were won, refunds that came back.
//!
//! A line is compared with what is booked of it here. What is not can be asked about through the saga, which books what
//! the provider tells it. Deliberately missing: the other way round, for not every provider lists what banks do.

use super::{Line, Sheet};
use crate::payment::Payment;
use crate::provider::TransactionKind;
use crate::reconcile::Kind;
use crate::refund::{Refund, RefundState};
use kernel::Money;
use std::collections::BTreeSet;

/// What is known here of a line.
enum Known {
    /// It is in the books, with this amount.
    Booked(String, Money),
    /// It is not; asking the provider can put that right.
    Unbooked(String, Option<Money>),
    /// There is nothing here that it could belong to.
    Nothing,
}

/// Whether a line is about what a bank did.
pub(super) fn is_of_bank(line: &Line) -> bool {
    match line.kind {
        TransactionKind::RefundReversal
        | TransactionKind::Dispute
        | TransactionKind::DisputeReversal => true,
        TransactionKind::Capture | TransactionKind::Refund => false,
    }
}

impl Sheet<'_> {
    /// A refund that came back before it was known here to have succeeded has failed, and is in no book: the provider
    /// lists it and its return, which are nothing together.
    pub(super) fn set_failed_refunds_aside(&mut self) {
        for refund in self.case.payment.refunds.iter().filter(|r| has_failed(r)) {
            let name = refund.id.to_string();
            let named = |line: &&Line| line.reference == name;
            let back = self
                .of_banks
                .iter()
                .position(|line| line.kind == TransactionKind::RefundReversal && named(line));
            let Some(back) = back else { continue };
            let amount = self.of_banks[back].amount;
            let gone = self.lines.iter().position(|line| {
                line.kind == TransactionKind::Refund && named(line) && line.amount == amount
            });
            if let Some(gone) = gone {
                self.lines.remove(gone);
                self.of_banks.remove(back);
            }
        }
    }

    pub(super) fn judge_banks(&mut self) {
        let mut seen = BTreeSet::new();
        for line in std::mem::take(&mut self.of_banks) {
            let known = known(&self.case.payment, line);
            let is_first = seen.insert((line.kind.name(), &line.reference));
            match known {
                Known::Booked(ours, amount) if !is_first => {
                    self.find(Kind::Duplicate, line, &ours, Some(amount), false);
                }
                Known::Booked(ours, amount) => self.compare_amounts(line, &ours, amount),
                Known::Unbooked(ours, amount) => {
                    self.find(Kind::State, line, &ours, amount, true);
                }
                Known::Nothing => {
                    self.find(Kind::MissingHere, line, &line.reference, None, false);
                }
            }
        }
    }
}

fn known(payment: &Payment, line: &Line) -> Known {
    match line.kind {
        TransactionKind::RefundReversal => {
            let mut refunds = payment.refunds.iter();
            let refund = refunds.find(|refund| refund.id.to_string() == line.reference);
            match refund {
                Some(refund) if has_failed(refund) => Known::Nothing,
                Some(refund) => {
                    let (ours, amount) =
                        (refund.id.to_string(), payment.money(refund.amount_minor));
                    match refund.reversed_at_us {
                        Some(_) => Known::Booked(ours, amount),
                        None => Known::Unbooked(ours, Some(amount)),
                    }
                }
                // Among others the refund of an attempt that was given up: it is none of the payment's.
                None => Known::Nothing,
            }
        }
        TransactionKind::Dispute | TransactionKind::DisputeReversal => {
            let mut disputes = payment.disputes.iter();
            let Some(dispute) = disputes.find(|of| of.provider_ref == line.reference) else {
                return Known::Unbooked(line.reference.clone(), None);
            };
            let booked_at_us = match line.kind {
                TransactionKind::Dispute => dispute.withdrawn_at_us,
                _ => dispute.reinstated_at_us,
            };
            let (ours, amount) = (dispute.id.to_string(), dispute.amount);
            match booked_at_us {
                Some(_) => Known::Booked(ours, amount),
                None => Known::Unbooked(ours, Some(amount)),
            }
        }
        TransactionKind::Capture | TransactionKind::Refund => Known::Nothing, // Not among them.
    }
}

/// Whether it came to nothing, and is in no book.
fn has_failed(refund: &Refund) -> bool {
    match refund.state {
        RefundState::Failed | RefundState::Canceled => refund.reversed_at_us.is_none(),
        RefundState::Pending | RefundState::Succeeded => false,
    }
}
