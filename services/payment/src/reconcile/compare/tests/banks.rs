//! What banks did: what is booked of it, what can be asked about, and what nobody here knows.

use super::*;
use crate::dispute::{Dispute, DisputeState, SeenDispute};

const REVERSAL: TransactionKind = TransactionKind::RefundReversal;
const DISPUTE: TransactionKind = TransactionKind::Dispute;
const WON: TransactionKind = TransactionKind::DisputeReversal;

/// A payment that is captured, and the line of that.
fn captured() -> (Payment, Line) {
    let mut payment = payment();
    let attempt = payment.attempts[0].id.to_string();
    let id = capture(&mut payment, 200, CaptureState::Succeeded);
    let taken = line(
        "t1",
        TransactionKind::Capture,
        &id,
        &attempt,
        money("USD", 200),
    );
    (payment, taken)
}

fn refunded(payment: &mut Payment, state: RefundState, reversed: bool) -> String {
    let capture = &payment.captures[0];
    let given_back = (capture.lines.clone(), capture.shipping);
    let attempt = payment.attempts[0].id;
    let mut refund = Refund::new(attempt, given_back, false, String::new(), NOW_US);
    refund.state = state;
    refund.reversed_at_us = reversed.then_some(NOW_US);
    payment.refunds.push(refund);
    payment.refunds[payment.refunds.len() - 1].id.to_string()
}

fn disputed(payment: &mut Payment, name: &str, minor: i64) -> usize {
    let seen = SeenDispute {
        provider_ref: name.into(),
        state: DisputeState::Inquiry,
        amount: money("USD", minor),
        reason: String::new(),
        evidence_due_at_us: None,
        withdrawn: false,
        reinstated: false,
        responded: false,
    };
    let attempt = payment.attempts[0].id;
    payment.disputes.push(Dispute::new(attempt, &seen, NOW_US));
    payment.disputes.len() - 1
}

/// A line of a bank, of an amount, about the payment's charge.
fn of_bank(payment: &Payment, id: &str, kind: TransactionKind, name: &str, minor: i64) -> Line {
    let attempt = payment.attempts[0].id.to_string();
    line(id, kind, name, &attempt, money("USD", minor))
}

#[test]
fn a_dispute_that_is_not_booked_can_be_asked_about() {
    let (mut payment, taken) = captured();
    let lines = vec![
        taken,
        of_bank(&payment, "t2", DISPUTE, "dp_1", 200),
        of_bank(&payment, "t3", WON, "dp_1", 200),
    ];
    let both = [
        (Kind::State, "t2".to_owned(), true),
        (Kind::State, "t3".to_owned(), true),
    ];
    assert_eq!(found(&case(payment.clone(), lines.clone())), both);
    let of_case = case(payment.clone(), lines.clone());
    assert_eq!(compare(&of_case, NOW_US - 1), [], "not so old yet");
    let place = disputed(&mut payment, "dp_1", 200);
    assert_eq!(found(&case(payment.clone(), lines.clone())), both);
    payment.disputes[place].withdrawn_at_us = Some(NOW_US);
    assert_eq!(found(&case(payment.clone(), lines.clone())), both[1..]);
    payment.disputes[place].reinstated_at_us = Some(NOW_US);
    assert_eq!(found(&case(payment, lines)), []);
}

#[test]
fn several_disputes_of_a_payment_are_told_apart() {
    let (mut payment, taken) = captured();
    for (name, minor) in [("dp_1", 150), ("dp_2", 50)] {
        let place = disputed(&mut payment, name, minor);
        payment.disputes[place].withdrawn_at_us = Some(NOW_US);
    }
    let mut lines = vec![
        taken,
        of_bank(&payment, "t2", DISPUTE, "dp_1", 150),
        of_bank(&payment, "t3", DISPUTE, "dp_2", 50),
    ];
    assert_eq!(found(&case(payment.clone(), lines.clone())), []);
    lines.push(of_bank(&payment, "t4", DISPUTE, "dp_3", 10));
    let third = (Kind::State, "t4".to_owned(), true);
    let all = found(&case(payment.clone(), lines.clone()));
    assert_eq!(all, std::slice::from_ref(&third));
    lines[2].amount = money("USD", 51);
    lines.push(of_bank(&payment, "t5", DISPUTE, "dp_1", 150));
    let expected = [
        (Kind::Amount, "t3".to_owned(), false),
        third,
        (Kind::Duplicate, "t5".to_owned(), false),
    ];
    assert_eq!(found(&case(payment, lines)), expected);
}

#[test]
fn a_refund_that_came_back_is_to_be_booked_where_it_had_succeeded() {
    let table = [
        (RefundState::Succeeded, false, Some((Kind::State, true))),
        (RefundState::Failed, true, None),
    ];
    for (state, reversed, expected) in table {
        let (mut payment, taken) = captured();
        let id = refunded(&mut payment, state, reversed);
        let gone = of_bank(&payment, "t2", TransactionKind::Refund, &id, 200);
        let back = of_bank(&payment, "t3", REVERSAL, &id, 200);
        let mut case = case(payment, vec![taken, gone, back]);
        if reversed {
            case.booked.push(Booked {
                source: id,
                amount: money("USD", 200),
            });
        }
        let expected: Vec<_> = expected
            .map(|(kind, safe)| (kind, "t3".to_owned(), safe))
            .into_iter()
            .collect();
        assert_eq!(found(&case), expected, "{state:?}");
    }
}

#[test]
fn a_refund_that_failed_here_and_came_back_there_is_none() {
    let (mut payment, taken) = captured();
    let id = refunded(&mut payment, RefundState::Failed, false);
    let gone = of_bank(&payment, "t2", TransactionKind::Refund, &id, 200);
    let back = of_bank(&payment, "t3", REVERSAL, &id, 200);
    let all = vec![taken.clone(), gone.clone(), back.clone()];
    assert_eq!(found(&case(payment.clone(), all)), []);
    let half = found(&case(payment.clone(), vec![taken.clone(), gone]));
    assert_eq!(half, [(Kind::State, "t2".to_owned(), false)]);
    let alone = found(&case(payment, vec![taken, back]));
    assert_eq!(alone, [(Kind::MissingHere, "t3".to_owned(), false)]);
}

#[test]
fn a_reversal_that_comes_back_is_in_no_book_and_missing_here() {
    let mut payment = payment();
    payment.attempts[0].state = AttemptState::Reversed;
    let attempt = payment.attempts[0].id.to_string();
    let reversal = format!("{attempt}-reversal");
    let lines = vec![
        of_bank(&payment, "t1", TransactionKind::Capture, &attempt, 200),
        of_bank(&payment, "t2", TransactionKind::Refund, &reversal, 200),
        of_bank(&payment, "t3", REVERSAL, &reversal, 200),
    ];
    assert_eq!(found(&case(payment.clone(), lines[..2].to_vec())), []);
    let back = found(&case(payment, lines));
    assert_eq!(back, [(Kind::MissingHere, "t3".to_owned(), false)]);
}

#[test]
fn a_dispute_of_nothing_of_ours_is_a_stranger() {
    let line = line("t1", DISPUTE, "dp_1", "", money("USD", 5));
    let finding = stranger(&line, NOW_US).unwrap();
    assert_eq!((finding.kind, finding.safe), (Kind::MissingHere, false));
}
