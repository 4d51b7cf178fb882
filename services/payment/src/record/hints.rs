//! Webhooks that come while an answer is under way, which may be older than what they hint at.

use super::{DisputesAnswer, Report, SettlementAnswer};
use crate::capture::Line;
use crate::charges::Part;
use crate::config::SagaConfig;
use crate::dispute::{DisputeState, SeenDispute, reference_of};
use crate::fact::Turn;
use crate::failure::{Failure, FailureCode};
use crate::payment::Payment;
use crate::policy::Rules;
use crate::refund::{Refund, RefundState};
use crate::step::{Call, DisputeCall, MoneyCall, Next};
use crate::testing;
use kernel::{AttemptId, Currency, Money};

const NOW_US: i64 = 1_700_000_000_000_000;
const SECOND_US: i64 = 1_000_000;

fn rules() -> Rules {
    SagaConfig::default().rules(None)
}

/// A payment that is paid: two items of 100.
fn paid(rules: &Rules) -> (Payment, AttemptId) {
    let payment = testing::paid(rules, NOW_US);
    let id = payment.attempts[0].id;
    (payment, id)
}

fn seen(state: DisputeState) -> SeenDispute {
    SeenDispute {
        provider_ref: "dp_1".into(),
        state,
        amount: Money::new(Currency::parse("USD").unwrap(), 200).unwrap(),
        reason: "fraudulent".into(),
        evidence_due_at_us: None,
        withdrawn: true,
        reinstated: state == DisputeState::Won,
        responded: false,
    }
}

/// Whether a payment asks about disputes at a time.
fn asks(payment: &mut Payment, rules: &Rules, now_us: i64) -> bool {
    match payment.next(&mut Turn::new(now_us, rules)) {
        Next::Call(call) => matches!(
            *call,
            Call::Money(_, MoneyCall::Dispute(DisputeCall::LookUp { .. }))
        ),
        Next::Later(_) | Next::Nothing => false,
    }
}

#[test]
fn a_dispute_that_opens_while_an_answer_is_under_way_is_asked_about_again() {
    let rules = rules();
    let (mut payment, attempt) = paid(&rules);
    let hint = |payment: &mut Payment, now_us| {
        let named = reference_of(&attempt.to_string());
        assert!(payment.check_up(&mut Turn::new(now_us, &rules), &named));
    };
    let answered = |payment: &mut Payment, now_us, answer| {
        let report = Report::Disputes(attempt, answer);
        payment.record(&mut Turn::new(now_us, &rules), report);
    };
    hint(&mut payment, NOW_US);
    assert!(asks(&mut payment, &rules, NOW_US));
    hint(&mut payment, NOW_US + 1);
    let nothing = || DisputesAnswer::Seen(Vec::new());
    answered(&mut payment, NOW_US + 2, nothing());
    let again_us = NOW_US + 2 + rules.settle_us;
    assert!(!asks(&mut payment, &rules, again_us - 1));
    assert!(asks(&mut payment, &rules, again_us));

    hint(&mut payment, again_us + 1); // While the second answer is under way.
    answered(&mut payment, again_us + 2, nothing());
    assert!(payment.attempts[0].disputes.is_some());
    let third_us = again_us + 2 + rules.settle_us;
    answered(&mut payment, third_us, nothing());
    assert_eq!(payment.attempts[0].disputes, None, "nothing is open");
}

#[test]
fn a_look_that_fails_is_followed_by_two() {
    let rules = rules();
    let (mut payment, attempt) = paid(&rules);
    let named = reference_of(&attempt.to_string());
    let mut now_us = NOW_US;
    payment.check_up(&mut Turn::new(now_us, &rules), &named);
    for answer in [DisputesAnswer::Unknown, DisputesAnswer::Unknown] {
        payment.record(
            &mut Turn::new(now_us, &rules),
            Report::Disputes(attempt, answer),
        );
        now_us = payment.attempts[0].disputes.unwrap().due_at_us;
    }
    let nothing = Report::Disputes(attempt, DisputesAnswer::Seen(Vec::new()));
    payment.record(&mut Turn::new(now_us, &rules), nothing.clone());
    let second = payment.attempts[0].disputes.unwrap();
    assert_eq!(second.due_at_us, now_us + rules.settle_us);
    payment.record(&mut Turn::new(second.due_at_us, &rules), nothing);
    assert_eq!(payment.attempts[0].disputes, None);
}

#[test]
fn an_answer_in_between_does_not_take_the_place_of_a_second_look() {
    let rules = rules();
    let (mut payment, attempt) = paid(&rules);
    let named = reference_of(&attempt.to_string());
    payment.check_up(&mut Turn::new(NOW_US, &rules), &named);
    let lost = || {
        let lost = DisputesAnswer::Seen(vec![seen(DisputeState::Lost)]);
        Report::Disputes(attempt, lost)
    };
    payment.record(&mut Turn::new(NOW_US, &rules), lost());
    let second = payment.attempts[0].disputes;
    payment.record(&mut Turn::new(NOW_US + SECOND_US, &rules), lost());
    assert!(second.is_some());
    assert_eq!(payment.attempts[0].disputes, second);
    let won = Report::Disputes(attempt, DisputesAnswer::Seen(vec![seen(DisputeState::Won)]));
    payment.record(&mut Turn::new(NOW_US + rules.settle_us, &rules), won);
    assert!(payment.disputes[0].reinstated_at_us.is_some());
    assert_eq!(payment.attempts[0].disputes, None);
}

#[test]
fn a_refund_that_comes_back_while_an_answer_is_under_way_is_asked_about_again() {
    for before in [RefundState::Pending, RefundState::Succeeded] {
        let rules = rules();
        let (mut payment, attempt) = paid(&rules);
        let part = Part {
            net_minor: 100,
            tax_minor: 0,
        };
        let lines = vec![Line::new("A".into(), 1, part)];
        let lines = (lines, Part::default());
        let mut refund = Refund::new(attempt, lines, false, String::new(), NOW_US);
        refund.state = before;
        refund.asked.send(NOW_US);
        let id = refund.id;
        payment.refunds.push(refund);
        let hint = |payment: &mut Payment, now_us| {
            payment.check_up(&mut Turn::new(now_us, &rules), &id.to_string());
        };
        let answered = |payment: &mut Payment, now_us, answer| {
            payment.record(&mut Turn::new(now_us, &rules), Report::Refund(id, answer));
        };
        hint(&mut payment, NOW_US);
        hint(&mut payment, NOW_US + 1); // While the first answer is under way.
        answered(&mut payment, NOW_US + 2, SettlementAnswer::Done);
        let refund = &payment.refunds[0];
        assert_eq!((refund.state, refund.check), (RefundState::Succeeded, true));
        let again_us = NOW_US + 2 + rules.settle_us;
        assert_eq!(refund.asked.progress.due_at_us, again_us);
        let mut done = payment.clone();
        answered(&mut done, again_us, SettlementAnswer::Done);
        assert!(!done.refunds[0].check, "{before:?}: two answers are enough");
        let failure = Failure::new(FailureCode::ProviderRefused, "it came back");
        answered(&mut payment, again_us, SettlementAnswer::Declined(failure));
        let refund = &payment.refunds[0];
        assert!(
            refund.reversed_at_us.is_some() && !refund.check,
            "{before:?}"
        );
    }
}
