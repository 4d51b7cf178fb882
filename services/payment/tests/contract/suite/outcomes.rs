//! What is not known yet, what comes late, and what is not there: the rough side of the world.

use crate::suite::world::{Buy, Process, SECOND_US, VISA, World, owned};
use async_trait::async_trait;
use mesh_store::Durability;
use payment::error::Error;
use payment::payment::CancelReason;
use payment::provider::simulator::{Faults, SimulatorConfig, Webhook, WebhookSender};
use payment::refund::{RefundState, Wanted};
use payment::state::State;
use proto::commerce::payment::v1::payment::State as Shown;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

#[tokio::test]
async fn an_unknown_outcome_is_an_answer_and_resolves_by_itself() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        for method in ["pm_card_timeout_before", "pm_card_timeout_after"] {
            let payment = process.create(&world, Buy::by(method)).await.unwrap();
            assert_eq!(payment.state(), Shown::Processing, "{method}");
            assert!(payment.last_error.is_none());
            world.settle(&process).await;
            let known = process.payment(&payment.id).await;
            assert_eq!(known.state, State::Succeeded, "{method}");
            assert_eq!(known.attempts.len(), 1, "never charged under a new key");
        }
        world.check().await;
    }
}

#[tokio::test]
async fn a_cancellation_waits_for_the_outcome() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        for method in [
            "pm_card_timeout_before",
            "pm_card_timeout_after",
            "pm_card_webhook_late",
        ] {
            let payment = process.create(&world, Buy::by(method)).await.unwrap();
            assert_eq!(payment.state(), Shown::Processing);
            let asked = process.cancel(&world, &payment.id).await.unwrap();
            assert_eq!(asked.state(), Shown::Processing);
            assert!(asked.cancel_requested);
            world.settle(&process).await;
            let known = process.payment(&payment.id).await;
            assert_eq!(known.state, State::Canceled, "{method}");
            assert_eq!(known.closing, Some(CancelReason::Requested));
            assert!(!known.cancel_requested());
            assert_eq!(world.catalogue.reserved("A"), 0);
        }
        world.check().await;
    }
}

#[tokio::test]
async fn the_hold_outlasts_an_outcome_that_is_long_unknown() {
    let simulator = SimulatorConfig {
        late_webhook_delay_ms: 3_600_000,
        ..SimulatorConfig::default()
    };
    let world = World::with(simulator, Durability::Relaxed).await;
    let process = world.process();
    world.catalogue.set_on_hand("A", 2);
    let waits = process
        .create(&world, Buy::by("pm_card_webhook_late"))
        .await
        .unwrap();
    for _ in 0..60 {
        world.clock.advance(59 * SECOND_US);
        process.worker.run_once().await.unwrap();
        let other = process.create(&world, Buy::some()).await.unwrap();
        assert_eq!(other.last_error.unwrap().code, "OUT_OF_STOCK");
    }
    world.clock.advance(120 * SECOND_US);
    world.settle(&process).await;
    assert_eq!(process.payment(&waits.id).await.state, State::Succeeded);
    world.check().await;
}

#[tokio::test]
async fn a_success_that_comes_after_the_cancellation_is_given_back_and_marked() {
    let world = World::one_step().await;
    let process = world.process();
    let buy = Buy::by("pm_card_authentication_required");
    let asked = process.create(&world, buy).await.unwrap();
    let canceled = process.cancel(&world, &asked.id).await.unwrap();
    assert_eq!(canceled.state(), Shown::Canceled);
    assert!(!canceled.late_success);
    let attempt = process.payment(&asked.id).await.attempts[0].id.to_string();
    assert!(world.simulator.authenticate(&attempt, true).await.unwrap());
    world.settle(&process).await;
    let late = process.payment(&asked.id).await;
    assert_eq!(late.state, State::Canceled);
    assert!(late.late_success);
    assert_eq!(
        late.attempts[0].state,
        payment::attempt::AttemptState::Reversed
    );
    world.check().await;
}

#[tokio::test]
async fn a_customer_who_authenticates_without_confirming_has_paid_all_the_same() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        let buy = Buy::by("pm_card_authentication_required");
        let asked = process.create(&world, buy).await.unwrap();
        let attempt = process.payment(&asked.id).await.attempts[0].id.to_string();
        world.simulator.authenticate(&attempt, true).await.unwrap();
        world.settle(&process).await;
        assert_eq!(process.payment(&asked.id).await.state, State::Succeeded);
        world.check().await;
    }
}

#[tokio::test]
async fn money_moves_while_the_product_service_is_down_and_stock_follows() {
    let world = World::new().await;
    let process = world.process();
    let held = process.create(&world, Buy::manual()).await.unwrap();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    world.catalogue.set_down(true);
    let part = process
        .capture(&world, &held.id, &[("A", 1)], false)
        .await
        .unwrap();
    assert_eq!(part.state(), Shown::PartiallyCaptured);
    let last = process
        .capture(&world, &held.id, &[("A", 1)], true)
        .await
        .unwrap();
    assert_eq!(last.state(), Shown::Succeeded);
    let refund = process
        .refund(&world, &paid.id, Wanted::Everything, true)
        .await
        .unwrap();
    assert_eq!(refund.amount.unwrap().amount_minor, 450);
    let early = process
        .refund(&world, &held.id, Wanted::Everything, true)
        .await
        .unwrap();
    assert_eq!(early.amount.unwrap().amount_minor, 200);
    assert_eq!(world.catalogue.on_hand("A"), 999_998);
    assert_eq!(process.payment(&held.id).await.captured_minor(), 200);
    world.catalogue.set_down(false);
    world.settle(&process).await;
    assert_eq!(world.catalogue.on_hand("A"), 1_000_000);
    assert_eq!(
        world.catalogue.reserved("B"),
        0,
        "the rest of the hold is free"
    );
    world.check().await;
}

#[tokio::test]
async fn without_the_product_service_nothing_is_charged() {
    let world = World::new().await;
    let process = world.process();
    let one = process.create(&world, Buy::unconfirmed()).await.unwrap();
    let two = process.create(&world, Buy::unconfirmed()).await.unwrap();
    world.catalogue.set_down(true);
    let waits = process.confirm(&world, &one.id, VISA).await.unwrap();
    assert_eq!(waits.state(), Shown::Processing);
    world.clock.advance(10 * SECOND_US);
    process.worker.run_once().await.unwrap();
    world.catalogue.set_down(false);
    world.settle(&process).await;
    assert_eq!(process.payment(&one.id).await.state, State::Succeeded);
    world.catalogue.set_down(true);
    process.confirm(&world, &two.id, VISA).await.unwrap();
    world.settle(&process).await;
    let back = process.payment(&two.id).await;
    assert_eq!(back.state, State::RequiresConfirmation);
    assert_eq!(back.last_error.unwrap().code.name(), "PRODUCT_UNAVAILABLE");
    world.check().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_asked_again_or_undone() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        world.catalogue.lose_commits.store(true, Ordering::SeqCst);
        let one = process.create(&world, Buy::some()).await.unwrap();
        let two = process.create(&world, Buy::some()).await.unwrap();
        assert_eq!(
            (one.state(), two.state()),
            (Shown::Processing, Shown::Processing)
        );
        process.cancel(&world, &two.id).await.unwrap();
        world.catalogue.lose_commits.store(false, Ordering::SeqCst);
        world.settle(&process).await;
        assert_eq!(process.payment(&one.id).await.state, State::Succeeded);
        assert_eq!(process.payment(&two.id).await.state, State::Canceled);
        assert_eq!(
            world.catalogue.on_hand("A"),
            999_998,
            "one was sold, one put back"
        );
        world.check().await;
    }
}

#[tokio::test]
async fn money_for_units_that_are_gone_goes_back() {
    let world = World::new().await;
    let process = world.process();
    let held = process.create(&world, Buy::manual()).await.unwrap();
    world.catalogue.refuse_commits.store(true, Ordering::SeqCst);
    process
        .capture(&world, &held.id, &[("A", 1)], false)
        .await
        .unwrap();
    world.settle(&process).await;
    let payment = process.payment(&held.id).await;
    assert_eq!(
        (payment.captured_minor(), payment.refunded_minor()),
        (100, 100)
    );
    assert_eq!(payment.refunds[0].state, RefundState::Succeeded);
    assert_eq!(payment.refunds[0].reason, "out of stock");
    world.check().await;
}

#[tokio::test]
async fn a_hold_that_ran_out_before_it_could_be_extended_gives_the_authorisation_back() {
    let world = World::new().await;
    let process = world.process();
    let created = process
        .create(
            &world,
            Buy {
                confirm: false,
                ..Buy::manual()
            },
        )
        .await
        .unwrap();
    // The answer of the reservation is used, then the product service is away for an hour.
    let fuse = crate::suite::fuse::Fuse::at(10);
    let doomed = world.process_with(&fuse);
    tokio::select! {
        biased;
        () = fuse.blown() => {}
        _ = doomed.confirm(&world, &created.id, VISA) => panic!("ran through"),
    }
    world.catalogue.set_down(true);
    world.clock.advance(3_600 * SECOND_US);
    world.outlast_leases().await;
    process.worker.run_once().await.unwrap();
    world.catalogue.set_down(false);
    world.settle(&process).await;
    let payment = process.payment(&created.id).await;
    assert_ne!(
        payment.state,
        State::RequiresCapture,
        "nothing covers it: {payment:#?}"
    );
    assert_eq!(payment.last_error.unwrap().code.name(), "OUT_OF_STOCK");
    world.check().await;
}

/// Keeps webhooks for later.
#[derive(Default)]
struct Mailbox(Mutex<Vec<Webhook>>);

#[async_trait]
impl WebhookSender for Mailbox {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().unwrap().push(webhook);
        Ok(())
    }
}

async fn receive(process: &Process, webhook: &Webhook) -> Result<(), Error> {
    let Webhook { headers, body } = webhook;
    process
        .commands
        .receive_webhook("simulator", headers, body)
        .await
}

#[tokio::test]
async fn webhooks_may_come_twice_late_and_forged() {
    let world = World::new().await;
    let process = world.process();
    let payment = process
        .create(&world, Buy::by("pm_card_webhook_duplicate"))
        .await
        .unwrap();
    assert_eq!(payment.state(), Shown::Processing);
    world.clock.advance(SECOND_US);
    let mailbox = Mailbox::default();
    world.simulator.deliver_webhooks(&mailbox).await.unwrap();
    world.clock.advance(SECOND_US);
    world.simulator.deliver_webhooks(&mailbox).await.unwrap();
    let webhooks = mailbox.0.into_inner().unwrap();
    assert!(webhooks.len() >= 2, "{webhooks:?}");

    let mut forged = webhooks[0].clone();
    forged.body = [forged.body.as_ref(), b" "].concat().into();
    assert!(matches!(
        receive(&process, &forged).await,
        Err(Error::Signature(_))
    ));
    forged.headers.clear();
    assert!(matches!(
        receive(&process, &forged).await,
        Err(Error::Signature(_))
    ));
    let nobody = process
        .commands
        .receive_webhook("nobody", &forged.headers, b"{}")
        .await;
    assert!(matches!(nobody, Err(Error::ProviderNotFound(_))));
    assert_eq!(process.payment(&payment.id).await.state, State::Processing);

    for _ in 0..3 {
        for webhook in &webhooks {
            receive(&process, webhook).await.unwrap();
        }
    }
    world.settle(&process).await;
    assert_eq!(process.payment(&payment.id).await.state, State::Succeeded);
    for webhook in &webhooks {
        drop(receive(&process, webhook).await); // By now too old, or known.
    }
    world.settle(&process).await;
    assert!(world.storage.count("webhook_events").await >= 1);
    world.check().await;
}

/// Everything at once, against a provider of which two calls in three fail one way or another.
#[tokio::test]
async fn a_provider_that_fails_most_of_the_time_charges_nobody_twice() {
    for (seed, one_step) in [(1, false), (2, true), (3, false), (4, true)] {
        let simulator = SimulatorConfig {
            one_step,
            ..SimulatorConfig::default()
        };
        let world = World::with(simulator, Durability::Relaxed).await;
        let process = world.process();
        let faults = Faults {
            seed,
            unavailable: 0.25,
            unknown_before: 0.2,
            unknown_after: 0.2,
            ..Faults::NONE
        };
        world.simulator.set_faults(faults);
        let mut bought = Vec::new();
        for number in 0..30 {
            let buy = match number % 3 {
                0 if !one_step => Buy::manual(),
                1 => Buy::by("pm_card_timeout_after"),
                _ => Buy::some(),
            };
            bought.push(process.create(&world, buy).await.unwrap());
            world.clock.advance(SECOND_US);
            process.worker.run_once().await.unwrap();
        }
        for (number, payment) in bought.iter().enumerate() {
            // Whether they are allowed depends on how far the payment has come.
            drop(
                process
                    .capture(&world, &payment.id, &[("A", 1)], number % 2 == 0)
                    .await,
            );
            let units = Wanted::Lines(owned(&[("A", 1)]));
            drop(process.refund(&world, &payment.id, units, true).await);
            if number % 5 == 0 {
                drop(process.cancel(&world, &payment.id).await);
            }
        }
        world.simulator.set_faults(Faults::default());
        world.settle(&process).await;
        for payment in bought {
            let payment = process.payment(&payment.id).await;
            assert_ne!(
                payment.state,
                State::Processing,
                "seed {seed}: {payment:#?}"
            );
        }
        world.check().await;
    }
}
