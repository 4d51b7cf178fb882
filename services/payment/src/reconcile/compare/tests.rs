//! Comparisons of single payments: what is a discrepancy, and what only looks like one.

mod banks;

use super::*;
use crate::capture::{Capture, Line as CaptureLine};
use crate::charges::Part;
use crate::config::SagaConfig;
use crate::refund::Refund;
use crate::testing;
use kernel::Currency;

const NOW_US: i64 = 1_700_000_000_000_000;

fn currency(code: &str) -> Currency {
    Currency::parse(code).unwrap()
}

fn money(code: &str, minor: i64) -> Money {
    Money::new(currency(code), minor).unwrap()
}

/// A payment of two items of 100, with an attempt of it.
fn payment() -> Payment {
    let rules = SagaConfig::default().rules(None);
    testing::paid(&rules, NOW_US)
}

fn capture(payment: &mut Payment, minor: i64, state: CaptureState) -> String {
    let part = Part {
        net_minor: minor,
        tax_minor: 0,
    };
    let lines = vec![CaptureLine::new("A".into(), 1, part)];
    let shipping = Part {
        net_minor: 0,
        tax_minor: 0,
    };
    let mut capture = Capture::new(payment.attempts[0].id, lines, shipping, true, NOW_US);
    capture.state = state;
    capture.captured_at_us = (state == CaptureState::Succeeded).then_some(NOW_US);
    let id = capture.id.to_string();
    payment.captures.push(capture);
    id
}

fn line(id: &str, kind: TransactionKind, reference: &str, charge: &str, amount: Money) -> Line {
    Line {
        id: id.into(),
        kind,
        reference: reference.into(),
        charge_reference: charge.into(),
        order_ref: String::new(),
        amount,
        booked_at_us: NOW_US,
    }
}

/// A case in which everything that succeeded is booked.
fn case(payment: Payment, lines: Vec<Line>) -> Case {
    let captures = payment
        .captures
        .iter()
        .filter(|one| one.state == CaptureState::Succeeded);
    let captures = captures.map(|one| (one.id.to_string(), one.amount_minor));
    let refunds = payment
        .refunds
        .iter()
        .filter(|one| one.state == RefundState::Succeeded);
    let refunds = refunds.map(|one| (one.id.to_string(), one.amount_minor));
    let booked = captures.chain(refunds).map(|(source, minor)| Booked {
        source,
        amount: money("USD", minor),
    });
    Case {
        booked: booked.collect(),
        payment,
        lines,
    }
}

fn found(case: &Case) -> Vec<(Kind, String, bool)> {
    let findings = compare(case, NOW_US).into_iter();
    findings
        .map(|one| (one.kind, one.subject, one.safe))
        .collect()
}

#[test]
fn a_provider_may_name_the_capture_the_attempt_or_the_payment() {
    let mut payment = payment();
    let (attempt, id) = (payment.attempts[0].id.to_string(), payment.id.to_string());
    let [first, second] =
        [120, 80].map(|minor| capture(&mut payment, minor, CaptureState::Succeeded));
    let names = [
        [(&first, &attempt), (&second, &attempt)],
        [(&attempt, &attempt), (&attempt, &attempt)],
        [(&id, &id), (&id, &id)],
    ];
    for [one, other] in names {
        let lines = vec![
            line(
                "t2",
                TransactionKind::Capture,
                other.0,
                other.1,
                money("USD", 80),
            ),
            line(
                "t1",
                TransactionKind::Capture,
                one.0,
                one.1,
                money("USD", 120),
            ),
        ];
        let all = case(payment.clone(), lines.clone());
        assert_eq!(found(&all), [], "{one:?}");
        let half = case(payment.clone(), lines[..1].to_vec());
        assert_eq!(
            found(&half),
            [(Kind::MissingThere, first.clone(), false)],
            "{one:?}"
        );
        let mut wrong = lines.clone();
        wrong[1].amount = money("USD", 121);
        let wrong = case(payment.clone(), wrong);
        assert_eq!(
            found(&wrong),
            [(Kind::Amount, "t1".to_owned(), false)],
            "{one:?}"
        );
        let mut again = lines;
        again.push(Line {
            id: "t3".into(),
            booked_at_us: NOW_US - 1,
            ..again[1].clone()
        });
        let twice = case(payment.clone(), again);
        let duplicates = found(&twice);
        assert_eq!(duplicates.len(), 1, "{one:?}: {duplicates:?}");
        assert_eq!(duplicates[0].0, Kind::Duplicate, "{one:?}");
    }
}

#[test]
fn what_was_taken_and_given_back_of_an_attempt_that_was_given_up_is_none() {
    for by_payment in [false, true] {
        let mut payment = payment();
        payment.attempts[0].state = AttemptState::Reversed;
        let id = payment.id.to_string();
        let attempt = payment.attempts[0].id.to_string();
        let reversal = format!("{attempt}-reversal");
        let (taken, back, charge) = if by_payment {
            (&id, &id, &id)
        } else {
            (&attempt, &reversal, &attempt)
        };
        let lines = vec![
            line(
                "t1",
                TransactionKind::Capture,
                taken,
                charge,
                money("USD", 200),
            ),
            line(
                "t2",
                TransactionKind::Refund,
                back,
                charge,
                money("USD", 200),
            ),
        ];
        assert_eq!(
            found(&case(payment.clone(), lines.clone())),
            [],
            "{by_payment}"
        );
        let half = found(&case(payment.clone(), lines[..1].to_vec()));
        assert_eq!(
            half,
            [(Kind::MissingHere, "t1".to_owned(), false)],
            "it keeps the money"
        );
        payment.attempts[0].state = AttemptState::Captured;
        capture(&mut payment, 200, CaptureState::Succeeded);
        let kept = found(&case(payment, lines));
        assert_eq!(
            kept,
            [(Kind::MissingHere, "t2".to_owned(), false)],
            "nobody here gave it back"
        );
    }
}

#[test]
fn a_capture_that_failed_here_and_was_taken_back_is_none() {
    let mut payment = payment();
    payment.attempts[0].state = AttemptState::Reversed;
    let attempt = payment.attempts[0].id.to_string();
    let id = capture(&mut payment, 200, CaptureState::Failed);
    let reversal = format!("{attempt}-reversal");
    let lines = vec![
        line(
            "t1",
            TransactionKind::Capture,
            &id,
            &attempt,
            money("USD", 200),
        ),
        line(
            "t2",
            TransactionKind::Refund,
            &reversal,
            &attempt,
            money("USD", 200),
        ),
    ];
    assert_eq!(found(&case(payment.clone(), lines.clone())), []);
    payment.attempts[0].state = AttemptState::Reversing;
    let under_way = case(payment, lines[..1].to_vec());
    assert_eq!(found(&under_way), [(Kind::State, "t1".to_owned(), true)]);
}

#[test]
fn what_is_open_here_and_done_there_can_be_asked_about() {
    let mut with_capture = payment();
    with_capture.attempts[0].state = AttemptState::Authorized;
    let attempt = with_capture.attempts[0].id.to_string();
    let id = capture(&mut with_capture, 200, CaptureState::Pending);
    let lines = vec![line(
        "t1",
        TransactionKind::Capture,
        &id,
        &attempt,
        money("USD", 200),
    )];
    assert_eq!(
        found(&case(with_capture, lines)),
        [(Kind::State, "t1".to_owned(), true)]
    );
    let mut lost = payment();
    lost.attempts[0].state = AttemptState::Sent;
    lost.attempts[0].taken = false;
    let attempt = lost.attempts[0].id.to_string();
    let lines = vec![line(
        "t1",
        TransactionKind::Capture,
        &attempt,
        &attempt,
        money("USD", 200),
    )];
    assert_eq!(
        found(&case(lost, lines)),
        [(Kind::State, "t1".to_owned(), true)],
        "lost by us"
    );
}

#[test]
fn what_succeeded_here_and_is_in_no_book_is_missing_here() {
    let mut payment = payment();
    let attempt = payment.attempts[0].id.to_string();
    let id = capture(&mut payment, 200, CaptureState::Succeeded);
    let lines = vec![line(
        "t1",
        TransactionKind::Capture,
        &id,
        &attempt,
        money("USD", 200),
    )];
    let mut unbooked = case(payment, lines);
    assert_eq!(found(&unbooked), []);
    unbooked.booked.clear();
    assert_eq!(
        found(&unbooked),
        [(Kind::MissingHere, "t1".to_owned(), false)]
    );
}

#[test]
fn currencies_are_compared_before_amounts() {
    let mut payment = payment();
    let attempt = payment.attempts[0].id.to_string();
    let id = capture(&mut payment, 200, CaptureState::Succeeded);
    let lines = vec![line(
        "t1",
        TransactionKind::Capture,
        &id,
        &attempt,
        money("KRW", 200),
    )];
    let case = case(payment, lines);
    assert_eq!(found(&case), [(Kind::Currency, "t1".to_owned(), false)]);
    let finding = &compare(&case, NOW_US)[0];
    assert_eq!(
        (finding.ours, finding.theirs),
        (Some(money("USD", 200)), Some(money("KRW", 200)))
    );
    assert_eq!(compare(&case, NOW_US - 1), [], "not so old yet");
}

#[test]
fn a_refund_is_compared_like_a_capture() {
    let mut payment = payment();
    let attempt = payment.attempts[0].id.to_string();
    let captured = capture(&mut payment, 200, CaptureState::Succeeded);
    let taken = line(
        "t1",
        TransactionKind::Capture,
        &captured,
        &attempt,
        money("USD", 200),
    );
    let wanted = Refund::new(
        payment.attempts[0].id,
        (
            payment.captures[0].lines.clone(),
            payment.captures[0].shipping,
        ),
        false,
        String::new(),
        NOW_US,
    );
    payment.refunds.push(wanted);
    let id = payment.refunds[0].id.to_string();
    let back = line(
        "t2",
        TransactionKind::Refund,
        &id,
        &attempt,
        money("USD", 200),
    );
    let expected = [
        (RefundState::Pending, Some((Kind::State, true))),
        (RefundState::Succeeded, None),
        (RefundState::Failed, Some((Kind::State, false))),
        (RefundState::Canceled, Some((Kind::State, false))),
    ];
    for (state, finding) in expected {
        payment.refunds[0].state = state;
        let both = found(&case(payment.clone(), vec![taken.clone(), back.clone()]));
        let told: Vec<_> = both.iter().map(|(kind, _, safe)| (*kind, *safe)).collect();
        assert_eq!(told, finding.into_iter().collect::<Vec<_>>(), "{state:?}");
        let alone = found(&case(payment.clone(), vec![taken.clone()]));
        assert_eq!(
            alone.len(),
            usize::from(state == RefundState::Succeeded),
            "{state:?}"
        );
    }
}

#[test]
fn a_stranger_is_missing_here_once_it_is_old_enough() {
    let line = line(
        "t1",
        TransactionKind::Capture,
        "cap_x",
        "att_x",
        money("USD", 5),
    );
    assert_eq!(stranger(&line, NOW_US - 1), None);
    let finding = stranger(&line, NOW_US).unwrap();
    assert_eq!(
        (finding.kind, finding.subject.as_str(), finding.payment),
        (Kind::MissingHere, "t1", None)
    );
}
