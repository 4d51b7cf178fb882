//! What is answered about charges that were given up, and about some that only seem to be missing.

use super::{ChargeAnswer, Report};
use crate::attempt::{Attempt, AttemptState, Hold};
use crate::config::SagaConfig;
use crate::fact::Turn;
use crate::payment::Payment;
use crate::policy::Rules;
use crate::provider::Capabilities;
use crate::rejection::Rejection;
use crate::state::State;
use crate::step::{Call, MoneyCall, Next};
use crate::testing;

const NOW_US: i64 = 1_700_000_000_000_000;
const SECOND_US: i64 = 1_000_000;

fn rules(method_is_charge: bool) -> Rules {
    SagaConfig::default().rules(Some(Capabilities {
        manual_capture: !method_is_charge,
        partial_capture: false,
        void: !method_is_charge,
        authorization_ttl_us: 0,
        idempotency_window_us: i64::MAX,
        look_up_lag_us: 0,
        disputes: false,
        method_is_charge,
    }))
}

/// A payment that was paid by its second attempt; the first was sent with the same method and given up.
fn paid_at_second(rules: &Rules) -> Payment {
    let mut payment = testing::paid(rules, NOW_US);
    let method = payment.attempts[0].payment_method.clone();
    let mut given_up = Attempt::new(method, 200, NOW_US - 1);
    given_up.state = AttemptState::Declined;
    given_up.asked.send(NOW_US - 1);
    payment.attempts.insert(0, given_up);
    payment
}

fn answered(payment: &mut Payment, rules: &Rules, now_us: i64, answer: ChargeAnswer) {
    let id = payment.attempts[0].id;
    payment.check_up(&mut Turn::new(now_us, rules), &id.to_string());
    payment.record(&mut Turn::new(now_us, rules), Report::Charge(id, answer));
}

#[test]
fn a_method_that_was_charged_by_the_next_attempt_is_not_given_back_for_the_first() {
    for later in [
        AttemptState::Reserving,
        AttemptState::Sent,
        AttemptState::Charged,
        AttemptState::Captured,
    ] {
        let rules = rules(true);
        let mut payment = paid_at_second(&rules);
        payment.attempts[1].state = later;
        answered(&mut payment, &rules, NOW_US, ChargeAnswer::Taken);
        let first = &payment.attempts[0];
        assert_eq!(first.state, AttemptState::Declined, "{later:?}");
        assert!(first.check && first.asked.progress.due_at_us > NOW_US);
    }
}

#[test]
fn a_charge_that_no_later_attempt_answers_for_is_given_back() {
    let rules = rules(true);
    let mut payment = paid_at_second(&rules);
    payment.attempts[1].state = AttemptState::Declined;
    answered(&mut payment, &rules, NOW_US, ChargeAnswer::Taken);
    assert_eq!(payment.attempts[0].state, AttemptState::Reversing);
    // That method is spent: what goes back cannot be kept.
    let method = payment.attempts[0].payment_method.clone();
    let again = payment.confirm(&mut Turn::new(NOW_US, &rules), Some(&method));
    assert!(matches!(again, Err(Rejection::Invalid(_))), "{again:?}");
    payment
        .confirm(&mut Turn::new(NOW_US, &rules), Some("another"))
        .unwrap();
}

#[test]
fn where_a_charge_is_found_by_its_attempt_the_first_goes_back_beside_the_second() {
    let rules = rules(false);
    let mut payment = paid_at_second(&rules);
    answered(&mut payment, &rules, NOW_US, ChargeAnswer::Taken);
    assert_eq!(payment.attempts[0].state, AttemptState::Reversing);
}

#[test]
fn a_charge_that_a_look_up_does_not_find_yet_is_voided_all_the_same() {
    let rules = rules(false);
    let mut payment = testing::paid(&rules, NOW_US);
    let attempt = &mut payment.attempts[0];
    (attempt.taken, attempt.hold) = (false, Hold::None);
    attempt.asked.send(NOW_US);
    attempt.reverse(NOW_US);
    let soon_us = NOW_US + SECOND_US;
    answered(&mut payment, &rules, soon_us, ChargeAnswer::NotFound);
    assert_eq!(payment.attempts[0].state, AttemptState::Reversing);
    let Next::Call(call) = payment.next(&mut Turn::new(soon_us, &rules)) else {
        panic!("nothing is asked");
    };
    assert!(
        matches!(*call, Call::Money(_, MoneyCall::Void { .. })),
        "{call:?}"
    );
    let settled_us = NOW_US + rules.settle_us;
    let mut taken = payment.clone();
    answered(&mut payment, &rules, settled_us, ChargeAnswer::NotFound);
    assert_eq!(payment.attempts[0].state, AttemptState::Reversed);
    taken.attempts[0].taken = true;
    answered(&mut taken, &rules, settled_us, ChargeAnswer::NotFound);
    assert_eq!(taken.attempts[0].state, AttemptState::Reversing);
}

#[test]
fn a_charge_that_was_to_be_sent_again_is_watched_when_it_is_given_up() {
    for sent_before in [false, true] {
        let rules = rules(false);
        let mut payment = testing::paid(&rules, NOW_US);
        payment.state = State::Processing;
        let attempt = &mut payment.attempts[0];
        (attempt.taken, attempt.hold) = (false, Hold::Held);
        attempt.state = AttemptState::Reserved;
        if sent_before {
            attempt.asked.progress.put_off(NOW_US, SECOND_US, SECOND_US);
        }
        let mut turn = Turn::new(NOW_US, &rules);
        payment.cancel(&mut turn).unwrap();
        payment.next(&mut turn);
        let attempt = &payment.attempts[0];
        assert_eq!(
            (payment.state, attempt.state),
            (State::Canceled, AttemptState::Declined)
        );
        assert_eq!(attempt.check, sent_before);
        if sent_before {
            answered(&mut payment, &rules, NOW_US, ChargeAnswer::NotFound);
            assert!(payment.attempts[0].check, "it may arrive yet");
            answered(&mut payment, &rules, NOW_US, ChargeAnswer::Taken);
            assert_eq!(payment.attempts[0].state, AttemptState::Reversing);
            assert!(payment.late_success);
        }
    }
}
