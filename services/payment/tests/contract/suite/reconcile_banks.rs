//! What banks did is booked although no webhook told of it: the provider's list shows it, and the provider is asked.

use crate::suite::reconcile_bulk::{kept, last_run, start};
use crate::suite::world::{Buy, Process, SECOND_US, World};
use kernel::{Currency, Money};
use payment::provider::simulator::Decision;
use payment::reconcile::{Kind, Run, RunState, Status};
use payment::refund::{RefundState, Wanted};

const HOUR_US: i64 = 3_600 * SECOND_US;

async fn balance(process: &Process, account: &str) -> i64 {
    let accounts = process.store.accounts(None).await.unwrap();
    let found = accounts.iter().find(|of| of.account == account);
    found.map_or(0, |of| of.balance_minor)
}

/// What a run comes to that is asked for now.
async fn reconciled(world: &World, process: &Process, key: &str) -> Run {
    start(process, key).await;
    world.reconciler(process).run_once().await.unwrap();
    let run = last_run(process).await;
    assert_eq!((run.state, run.error.as_str()), (RunState::Succeeded, ""));
    run
}

#[tokio::test]
async fn a_dispute_whose_webhook_was_lost_is_booked() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        let paid = process.create(&world, Buy::some()).await.unwrap();
        let attempt = process.payment(&paid.id).await.attempts[0].id.to_string();
        let opened = world.simulator.open_dispute(&attempt, None, false);
        let opened = opened.await.unwrap();
        let early = reconciled(&world, &process, "early").await;
        assert_eq!(early.found, 0, "its webhook may be under way");
        assert!(process.payment(&paid.id).await.disputes.is_empty());

        world.clock.advance(HOUR_US + SECOND_US);
        let run = reconciled(&world, &process, "k").await;
        assert_eq!((run.found, run.resolved), (1, 1), "{run:?}");
        let found = kept(&process, Some(Status::ResolvedItself)).await;
        assert_eq!(found, [(Kind::State, opened.clone())]);
        let dispute = process.payment(&paid.id).await.disputes[0].clone();
        assert!(dispute.withdrawn_at_us.is_some() && dispute.provider_ref == opened);
        assert_eq!(balance(&process, "expenses:disputes").await, 450);
        assert_eq!(balance(&process, "assets:provider:simulator").await, 0);

        let won = world.simulator.decide_dispute(&opened, Decision::Lose);
        won.await.unwrap();
        let won = world.simulator.decide_dispute(&opened, Decision::Win);
        won.await.unwrap();
        world.clock.advance(HOUR_US + SECOND_US);
        let run = reconciled(&world, &process, "won").await;
        assert_eq!((run.found, run.resolved), (1, 1), "{run:?}");
        assert_eq!(balance(&process, "expenses:disputes").await, 0);

        world.settle(&process).await; // The webhooks come after all.
        let again = reconciled(&world, &process, "again").await;
        assert_eq!((again.found, again.resolved), (0, 0));
        assert_eq!(kept(&process, Some(Status::Open)).await, []);
        assert_eq!(process.payment(&paid.id).await.disputes.len(), 1);
        world.check().await;
    }
}

#[tokio::test]
async fn several_disputes_of_a_payment_are_booked_each() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let attempt = process.payment(&paid.id).await.attempts[0].id.to_string();
    for minor in [100, 200] {
        let amount = Money::new(Currency::parse("USD").unwrap(), minor).unwrap();
        let opened = world.simulator.open_dispute(&attempt, Some(amount), false);
        opened.await.unwrap();
    }
    world.clock.advance(HOUR_US + SECOND_US);
    let run = reconciled(&world, &process, "k").await;
    assert_eq!((run.found, run.resolved), (2, 2), "{run:?}");
    assert_eq!(balance(&process, "expenses:disputes").await, 300);
    world.settle(&process).await;
    world.check().await;
}

#[tokio::test]
async fn a_refund_that_came_back_without_a_webhook_is_undone() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let refund = process.refund(&world, &paid.id, Wanted::Everything, false);
    let refund = refund.await.unwrap().id;
    world.simulator.return_refund(&refund).await.unwrap();
    world.clock.advance(HOUR_US + SECOND_US);
    let run = reconciled(&world, &process, "k").await;
    assert_eq!((run.found, run.resolved), (1, 1), "{run:?}");
    let found = kept(&process, Some(Status::ResolvedItself)).await;
    assert_eq!(found, [(Kind::State, refund)]);
    let failed = process.payment(&paid.id).await.refunds[0].clone();
    assert!(failed.state == RefundState::Failed && failed.reversed_at_us.is_some());
    assert_eq!(balance(&process, "income:refunds").await, 0);
    assert_eq!(balance(&process, "assets:provider:simulator").await, 450);
    world.settle(&process).await;
    let again = reconciled(&world, &process, "again").await;
    assert_eq!((again.found, again.resolved), (0, 0));
    world.check().await;
}

#[tokio::test]
async fn what_banks_did_and_is_known_is_no_discrepancy() {
    let world = World::new().await;
    let process = world.process();
    for token in [
        "pm_card_dispute_won",
        "pm_card_dispute_lost",
        "pm_card_inquiry",
        "pm_card_inquiry_escalates",
        "pm_card_refund_fails_later",
    ] {
        let paid = process.create(&world, Buy::by(token)).await.unwrap();
        if token.contains("refund") {
            let refund = process.refund(&world, &paid.id, Wanted::Everything, false);
            refund.await.unwrap();
        }
        world.clock.advance(5 * SECOND_US);
        world.settle(&process).await;
    }
    for _ in 0..9 {
        world.clock.advance(24 * HOUR_US);
        world.settle(&process).await;
    }
    world.clock.advance(2 * HOUR_US);
    let run = reconciled(&world, &process, "k").await;
    assert_eq!(kept(&process, None).await, []);
    assert!(run.lines >= 5 + 3 + 2, "{run:?}");
    world.check().await;
}
