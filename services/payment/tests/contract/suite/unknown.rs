//! Attempts whose outcome is not known, against a provider that makes the most of it: requests that arrive when
//! nobody expects them any more, keys that are forgotten, look-ups that lag, webhooks that never come.

use crate::suite::world::{Buy, Process, SECOND_US, VISA, World};
use mesh_store::Durability;
use payment::attempt::AttemptState;
use payment::payment::{CancelReason, Payment};
use payment::provider::simulator::{BY_HAND, Faults, SimulatorConfig, WebhookFaults};
use payment::provider::{ChargeOutcome, Provider as _, Refund};
use payment::refund::{RefundState, Wanted};
use payment::state::State;
use payment::webhook::DirectWebhooks;
use proto::commerce::payment::v1::payment::State as Shown;
use std::sync::atomic::Ordering;

/// Nothing arrives.
const BEFORE: Faults = Faults {
    unknown_before: 1.0,
    ..Faults::NONE
};
/// Everything arrives, and nobody is told.
const AFTER: Faults = Faults {
    unknown_after: 1.0,
    ..Faults::NONE
};
/// Everything arrives late.
const LATE: Faults = Faults {
    late: 1.0,
    ..Faults::NONE
};
/// The provider is away, and it shows.
const AWAY: Faults = Faults {
    unavailable: 1.0,
    ..Faults::NONE
};
/// No webhook comes.
const NO_WEBHOOKS: WebhookFaults = WebhookFaults {
    seed: 0,
    late: 0.0,
    duplicated: 0.0,
    reordered: 0.0,
    forged: 0.0,
    lost: 1.0,
};

async fn world(simulator: SimulatorConfig) -> World {
    World::with(simulator, Durability::Relaxed).await
}

impl World {
    /// Lets so many seconds pass, in steps in which everybody does what is due.
    async fn pass(&self, process: &Process, seconds: i64) {
        let webhooks = DirectWebhooks::new(process.commands.clone(), "simulator");
        let until_us = self.clock.now_us() + seconds * SECOND_US;
        while self.clock.now_us() < until_us {
            self.clock
                .advance(SECOND_US.min(until_us - self.clock.now_us()));
            self.simulator.deliver_webhooks(&webhooks).await.unwrap();
            process.commands.saga().tasks().close();
            process.commands.saga().tasks().wait().await;
            process.commands.saga().tasks().reopen();
            process.worker.run_once().await.unwrap();
        }
    }

    /// Where the charge of the first attempt stands at the provider.
    async fn stands(&self, payment: &Payment) -> Option<ChargeOutcome> {
        let reference = payment.attempts[0].id.to_string();
        self.simulator.look_up_charge(&reference).await.unwrap()
    }
}

#[tokio::test]
async fn a_charge_is_sent_again_only_while_the_provider_remembers_its_key() {
    let world = world(SimulatorConfig {
        idempotency_window_s: 40,
        ..SimulatorConfig::default()
    })
    .await;
    let process = world.process();
    world.simulator.set_faults(BEFORE);
    let payment = process.create(&world, Buy::some()).await.unwrap();
    assert_eq!(payment.state(), Shown::Processing);
    world.pass(&process, 30).await;
    let sent_again = process.payment(&payment.id).await;
    let sent_at_us = sent_again.attempts[0].asked.sent_at_us.unwrap();
    assert!(sent_at_us > sent_again.attempts[0].created_at_us);
    assert_eq!(sent_again.state, State::Processing);
    world.pass(&process, 60).await; // The next look-up falls into it.
    let given_back = process.payment(&payment.id).await;
    assert_eq!(
        given_back.state,
        State::RequiresConfirmation,
        "long before it would be tried enough"
    );
    assert_eq!(
        given_back.last_error.unwrap().code.name(),
        "PROVIDER_UNAVAILABLE"
    );
    assert_eq!(
        given_back.attempts[0].asked.sent_at_us,
        Some(sent_at_us),
        "not sent any more"
    );
    world.simulator.set_faults(Faults::NONE);
    let paid = process.confirm(&world, &payment.id, VISA).await.unwrap();
    assert_eq!(paid.state(), Shown::Succeeded);
    world.settle(&process).await;
    world.check().await;
}

#[tokio::test]
async fn a_look_up_that_lags_charges_nobody_twice() {
    let world = world(SimulatorConfig {
        idempotency_window_s: 10,
        look_up_lag_ms: 20_000,
        one_step: true,
        ..SimulatorConfig::default()
    })
    .await;
    let process = world.process();
    let buy = Buy::by("pm_card_timeout_after");
    let payment = process.create(&world, buy).await.unwrap();
    world.pass(&process, 19).await;
    assert_eq!(process.payment(&payment.id).await.state, State::Processing);
    world.settle(&process).await;
    let known = process.payment(&payment.id).await;
    assert_eq!((known.state, known.attempts.len()), (State::Succeeded, 1));
    world.check().await;
}

#[tokio::test]
async fn a_late_success_on_a_canceled_payment_goes_back_although_no_webhook_tells_of_it() {
    for one_step in [false, true] {
        let world = world(SimulatorConfig {
            one_step,
            late_effect_ms: 100_000,
            webhook_faults: NO_WEBHOOKS,
            ..SimulatorConfig::default()
        })
        .await;
        let process = world.process();
        let payment = process
            .create(&world, Buy::by("pm_card_late"))
            .await
            .unwrap();
        process.cancel(&world, &payment.id).await.unwrap();
        world.pass(&process, 60).await;
        let canceled = process.payment(&payment.id).await;
        assert_eq!(
            (canceled.state, canceled.late_success),
            (State::Canceled, false)
        );
        assert_eq!(world.stands(&canceled).await, None);
        world.pass(&process, 240).await;
        let late = process.payment(&payment.id).await;
        assert_eq!(late.state, State::Canceled);
        assert!(late.late_success, "one step: {one_step}");
        assert_eq!(late.attempts[0].state, AttemptState::Reversed);
        assert_eq!(late.closing, Some(CancelReason::Requested));
        if !one_step {
            assert_eq!(world.stands(&late).await, Some(ChargeOutcome::Voided));
        }
        assert_eq!(world.catalogue.reserved("A"), 0);
        world.check().await;
    }
}

#[tokio::test]
async fn a_late_success_of_an_attempt_that_was_given_up_leaves_the_next_one_alone() {
    let world = world(SimulatorConfig {
        late_effect_ms: 300_000,
        webhook_faults: NO_WEBHOOKS,
        ..SimulatorConfig::default()
    })
    .await;
    let process = world.process();
    world.simulator.set_faults(LATE);
    let payment = process.create(&world, Buy::some()).await.unwrap();
    world.pass(&process, 150).await;
    let given_up = process.payment(&payment.id).await;
    assert_eq!(given_up.state, State::RequiresConfirmation);
    world.simulator.set_faults(Faults::NONE);
    let paid = process
        .confirm(&world, &payment.id, "pm_card_mastercard")
        .await
        .unwrap();
    assert_eq!(paid.state(), Shown::Succeeded);
    world.pass(&process, 600).await;
    let paid = process.payment(&payment.id).await;
    assert_eq!((paid.state, paid.late_success), (State::Succeeded, false));
    let states: Vec<_> = paid.attempts.iter().map(|attempt| attempt.state).collect();
    assert_eq!(states, [AttemptState::Reversed, AttemptState::Captured]);
    assert_eq!(world.stands(&paid).await, Some(ChargeOutcome::Voided));
    world.check().await;
}

#[tokio::test]
async fn an_attempt_that_was_given_up_is_looked_up_ever_more_rarely_and_not_for_ever() {
    let world = World::new().await;
    let process = world.process();
    world.simulator.set_faults(BEFORE);
    let payment = process.create(&world, Buy::some()).await.unwrap();
    process.cancel(&world, &payment.id).await.unwrap();
    world.pass(&process, 60).await;
    let mut pauses = Vec::new();
    loop {
        let canceled = process.payment(&payment.id).await;
        assert_eq!(canceled.state, State::Canceled);
        let attempt = &canceled.attempts[0];
        if !attempt.check {
            break;
        }
        let pause_us = attempt.asked.progress.due_at_us - world.clock.now_us();
        pauses.push(pause_us / SECOND_US);
        world.clock.advance(pause_us.max(0));
        process.worker.run_once().await.unwrap();
        assert!(pauses.len() < 20, "{pauses:?}");
    }
    assert!(pauses.len() > 8 && pauses.is_sorted(), "{pauses:?}");
    assert!(pauses.iter().sum::<i64>() < 3 * 24 * 3_600, "{pauses:?}");
    world.check().await;
}

#[tokio::test]
async fn a_reversal_whose_answer_is_lost_is_found_although_its_key_is_forgotten() {
    let world = world(SimulatorConfig {
        one_step: true,
        idempotency_window_s: 60,
        ..SimulatorConfig::default()
    })
    .await;
    let process = world.process();
    let buy = Buy::by("pm_card_webhook_late");
    let payment = process.create(&world, buy).await.unwrap();
    process.cancel(&world, &payment.id).await.unwrap();
    world.simulator.set_faults(AFTER);
    world.pass(&process, 3).await; // Until it is charged.
    let taken_and_given_back = process.payment(&payment.id).await;
    assert_eq!(
        taken_and_given_back.attempts[0].state,
        AttemptState::Reversing
    );
    world.simulator.set_faults(AWAY);
    world.pass(&process, 120).await;
    world.simulator.set_faults(Faults::NONE);
    world.settle(&process).await;
    let known = process.payment(&payment.id).await;
    assert_eq!(
        (known.state, known.attempts[0].state),
        (State::Canceled, AttemptState::Reversed)
    );
    world.check().await;
}

#[tokio::test]
async fn a_reversal_that_does_not_arrive_is_sent_again() {
    for faults in [BEFORE, LATE] {
        let world = World::one_step().await;
        let process = world.process();
        world.catalogue.refuse_commits.store(true, Ordering::SeqCst);
        let buy = Buy::by("pm_card_webhook_late");
        let payment = process.create(&world, buy).await.unwrap();
        world.simulator.set_faults(faults);
        world.pass(&process, 40).await;
        world.simulator.set_faults(Faults::NONE);
        world.settle(&process).await;
        let known = process.payment(&payment.id).await;
        assert_eq!(
            (known.state, known.attempts[0].state),
            (State::Canceled, AttemptState::Reversed),
            "{faults:?}"
        );
        world.check().await;
    }
}

#[tokio::test]
async fn a_reversal_that_is_refused_waits_for_a_person_without_hurry() {
    let world = World::one_step().await;
    let process = world.process();
    world.simulator.set_faults(AFTER);
    let buy = Buy::by("pm_card_refund_declined");
    let payment = process.create(&world, buy).await.unwrap();
    process.cancel(&world, &payment.id).await.unwrap();
    world.simulator.set_faults(Faults::NONE);
    world.pass(&process, 120).await;

    let waits = process.payment(&payment.id).await;
    assert_eq!(waits.attempts[0].state, AttemptState::Reversing);
    let tries = waits.attempts[0].reversal.progress.tries;
    assert!((3..40).contains(&tries), "{tries} tries in two minutes");
    let due_at_us = waits.attempts[0].reversal.progress.due_at_us;
    assert!(due_at_us > world.clock.now_us() + 10 * SECOND_US);
    let listed = waits.unresolved(world.clock.now_us());
    let reference = waits.attempts[0].id.to_string();
    assert_eq!(listed[0].reference, reference);

    // Somebody gives the money back on the provider's pages, and says so.
    let amount = payment.amount.as_ref().unwrap().amount_minor;
    let by_hand = Refund {
        reference: format!("{BY_HAND}1"),
        charge_reference: reference,
        amount: kernel::Money::new(kernel::Currency::parse("USD").unwrap(), amount).unwrap(),
    };
    world.simulator.refund(&by_hand).await.unwrap();
    process.look_up(&world, &payment.id).await;
    world.settle(&process).await;
    let known = process.payment(&payment.id).await;
    assert_eq!(
        (known.state, known.attempts[0].state),
        (State::Canceled, AttemptState::Reversed)
    );
    assert_eq!(known.unresolved(world.clock.now_us()), []);
    world.check().await;
}

#[tokio::test]
async fn a_final_capture_waits_until_what_became_of_the_one_before_is_known() {
    let world = World::new().await;
    let process = world.process();
    let payment = process.create(&world, Buy::manual()).await.unwrap();
    world.simulator.set_faults(AFTER);
    let part = process.capture(&world, &payment.id, &[("A", 1)], false);
    part.await.unwrap();
    world.simulator.set_faults(Faults::NONE);
    let early = process.capture(&world, &payment.id, &[("A", 1)], true);
    let early = early.await.unwrap_err().to_string();
    assert!(
        early.contains("a capture before the final one is under way"),
        "{early}"
    );
    world.settle(&process).await;
    let part = process.payment(&payment.id).await;
    assert_eq!(part.state, State::PartiallyCaptured);
    let last = process.capture(&world, &payment.id, &[("A", 1)], true);
    assert_eq!(last.await.unwrap().state(), Shown::Succeeded);
    world.settle(&process).await;
    let done = process.payment(&payment.id).await;
    assert_eq!(done.captured_quantity("A"), 2);
    world.check().await;
}

#[tokio::test]
async fn a_refund_that_may_be_under_way_is_not_withdrawn() {
    let world = world(SimulatorConfig {
        late_effect_ms: 150_000,
        webhook_faults: NO_WEBHOOKS,
        ..SimulatorConfig::default()
    })
    .await;
    let process = world.process();
    let payment = process.create(&world, Buy::some()).await.unwrap();
    world.simulator.set_faults(LATE);
    let lines = Wanted::Lines(vec![("A".to_owned(), 1)]);
    process
        .refund(&world, &payment.id, lines, false)
        .await
        .unwrap();
    world.pass(&process, 35).await;
    world.simulator.set_faults(AWAY);
    world.pass(&process, 110).await;
    let waits = process.payment(&payment.id).await;
    assert_eq!(waits.refunds[0].state, RefundState::Pending);
    assert_eq!(waits.unresolved(world.clock.now_us()).len(), 1);
    world.simulator.set_faults(Faults::NONE);
    world.pass(&process, 100).await;
    world.settle(&process).await;
    let known = process.payment(&payment.id).await;
    assert_eq!(known.refunds[0].state, RefundState::Succeeded);
    world.check().await;
}

#[tokio::test]
async fn a_cancellation_while_look_ups_lag_behind_gives_the_money_back() {
    for one_step in [false, true] {
        let world = world(SimulatorConfig {
            one_step,
            look_up_lag_ms: 20_000,
            ..SimulatorConfig::default()
        })
        .await;
        let process = world.process();
        let buy = Buy {
            payment_method: "pm_card_webhook_late",
            ..Buy::some()
        };
        let buy = if one_step { buy } else { Buy::manual() };
        let payment = process.create(&world, buy).await.unwrap();
        world.deliver(&process).await;
        process.cancel(&world, &payment.id).await.unwrap();
        world.pass(&process, 60).await;
        world.settle(&process).await;
        let canceled = process.payment(&payment.id).await;
        assert_eq!(canceled.state, State::Canceled, "one step: {one_step}");
        assert_eq!(world.stands(&canceled).await, Some(ChargeOutcome::Voided));
        world.check().await;
    }
}

#[tokio::test]
async fn a_payment_is_attempted_so_often_and_no_more() {
    let mut world = World::new().await;
    world.config.saga.attempts_max = 3;
    let process = world.process();
    let declined = "pm_card_declined";
    let payment = process.create(&world, Buy::by(declined)).await.unwrap();
    for _ in 0..2 {
        let again = process.confirm(&world, &payment.id, declined);
        again.await.unwrap();
    }
    let refused = process.confirm(&world, &payment.id, VISA).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("it was attempted 3 times"), "{refused}");
    let payment = process.payment(&payment.id).await;
    assert_eq!(payment.attempts.len(), 3);
    world.check().await;
}
