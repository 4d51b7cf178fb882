//! Disputes where something goes wrong: answers that are lost, processes that end, webhooks in any order, a provider that
//! knows of none.

use crate::suite::disputes::{decoded, disputed, evidence};
use crate::suite::fuse::Fuse;
use crate::suite::world::{Buy, SECOND_US, World};
use async_trait::async_trait;
use mesh_store::Durability;
use payment::dispute::{DisputeState, Response};
use payment::fact::Turn;
use payment::provider::simulator::{Decision, Faults, SimulatorConfig, Webhook, WebhookSender};
use payment::provider::{Capabilities, Provider as _};
use payment::rejection::Rejection;
use proto::commerce::payment::v1 as pb;
use std::sync::Mutex;

#[tokio::test]
async fn a_response_whose_answer_is_lost_is_given_once() {
    for seed in 0..6 {
        let world = World::new().await;
        let process = world.process();
        let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
        let faults = Faults {
            seed,
            unavailable: 0.2,
            unknown_before: 0.3,
            unknown_after: 0.4,
            ..Faults::NONE
        };
        world.simulator.set_faults(faults);
        process.hand_in("k", dispute.id, evidence()).await.unwrap();
        for _ in 0..20 {
            world.settle(&process).await;
        }
        world.simulator.set_faults(Faults::NONE);
        world.settle(&process).await;
        let now = process.disputes(&paid).await.remove(0);
        assert_eq!(now.response, Response::Submitted, "seed {seed}: {now:#?}");
        assert_eq!(
            (now.state, now.responses),
            (DisputeState::Won, 1),
            "seed {seed}"
        );
        world.check().await;
    }
}

/// A run that overslept finds its evidence gone, for another one has carried it out.
#[tokio::test]
async fn evidence_that_is_gone_is_not_sent_empty() {
    let world = World::new().await;
    let process = world.process();
    let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
    world.simulator.set_faults(Faults {
        seed: 1,
        unavailable: 1.0,
        ..Faults::NONE
    });
    process.hand_in("k", dispute.id, evidence()).await.unwrap();
    let gone = world.storage.execute("DELETE FROM dispute_evidence").await;
    assert!(gone.unwrap() > 0);
    world.simulator.set_faults(Faults::NONE);
    world.settle(&process).await;
    let now = process.disputes(&paid).await.remove(0);
    assert_eq!(now.response, Response::Submitting);
    assert_eq!(now.state, DisputeState::NeedsResponse);
}

#[tokio::test]
async fn a_process_may_end_anywhere_while_evidence_is_handed_in() {
    for moment in 1.. {
        let world = World::with(SimulatorConfig::default(), Durability::Relaxed).await;
        let process = world.process();
        let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
        let fuse = Fuse::at(moment);
        let doomed = world.process_with(&fuse);
        let through = tokio::select! {
            biased;
            () = fuse.blown() => false,
            done = doomed.hand_in("k", dispute.id, evidence()) => { done.unwrap(); true }
        };
        world.outlast_leases().await;
        world.settle(&process).await;
        let answer = process.hand_in("k", dispute.id, evidence()).await.unwrap();
        assert_eq!(
            decoded(&answer).response(),
            pb::dispute::Response::Submitted,
            "{moment}"
        );
        world.clock.advance(5 * SECOND_US);
        world.settle(&process).await;
        let won = process.disputes(&paid).await.remove(0);
        assert_eq!(
            (won.state, won.responses),
            (DisputeState::Won, 1),
            "{moment}"
        );
        world.check().await;
        if through {
            assert!(moment > 6, "only {moment} moments");
            return;
        }
    }
}

/// Webhooks that are kept, to be delivered in whatever order.
#[derive(Default)]
struct Mailbox(Mutex<Vec<Webhook>>);

#[async_trait]
impl WebhookSender for Mailbox {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.lock().unwrap().push(webhook);
        Ok(())
    }
}

#[tokio::test]
async fn webhooks_of_a_dispute_may_come_late_twice_and_in_any_order() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let attempt = process.payment(&paid.id).await.attempts[0].id.to_string();
    let opened = world
        .simulator
        .open_dispute(&attempt, None, true)
        .await
        .unwrap();
    for decision in [Decision::Escalate, Decision::Lose, Decision::Win] {
        let decided = world.simulator.decide_dispute(&opened, decision);
        decided.await.unwrap();
    }
    let mailbox = Mailbox::default();
    world.simulator.deliver_webhooks(&mailbox).await.unwrap();
    let webhooks = mailbox.0.into_inner().unwrap();
    assert_eq!(webhooks.len(), 4);
    for webhook in webhooks.iter().rev().chain(&webhooks) {
        let Webhook { headers, body } = webhook;
        let received = process.commands.receive_webhook("simulator", headers, body);
        received.await.unwrap();
    }
    world.settle(&process).await;
    let won = process.disputes(&paid.id).await;
    assert_eq!((won.len(), won[0].state), (1, DisputeState::Won));
    let payment = process.payment(&paid.id).await.id;
    let entries = process
        .store
        .entries(Some(payment), None, 10)
        .await
        .unwrap();
    assert_eq!(entries.len(), 3, "capture, dispute, reversal");
    world.check().await;
}

#[tokio::test]
async fn a_dispute_that_look_ups_do_not_find_yet_is_asked_about_again() {
    let config = SimulatorConfig {
        look_up_lag_ms: 20_000,
        ..SimulatorConfig::default()
    };
    let world = World::with(config, Durability::Relaxed).await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let attempt = process.payment(&paid.id).await.attempts[0].id.to_string();
    let opened = world.simulator.open_dispute(&attempt, None, false);
    opened.await.unwrap();
    world.deliver(&process).await;
    assert!(process.disputes(&paid.id).await.is_empty(), "not shown yet");
    world.clock.advance(21 * SECOND_US);
    world.settle(&process).await;
    let disputes = process.disputes(&paid.id).await;
    assert_eq!(disputes.len(), 1);
    assert!(disputes[0].withdrawn_at_us.is_some());
    world.check().await;
}

/// A provider that tells of no disputes takes no evidence either, and says so.
#[tokio::test]
async fn without_an_interface_for_disputes_that_is_said() {
    let world = World::new().await;
    let process = world.process();
    let (paid, dispute) = disputed(&world, &process, "pm_card_dispute_won").await;
    let mut payment = process.payment(&paid).await;
    let capabilities = Capabilities {
        disputes: false,
        ..world.simulator.capabilities()
    };
    let rules = world.config.saga.rules(Some(capabilities));
    let mut turn = Turn::new(world.clock.now_us(), &rules);
    for refused in [
        payment.submit_evidence(&mut turn, dispute.id, &evidence()),
        payment.accept_dispute(&mut turn, dispute.id),
    ] {
        assert!(
            matches!(refused, Err(Rejection::DisputesUnsupported { .. })),
            "{refused:?}"
        );
    }
    world.check().await;
}
