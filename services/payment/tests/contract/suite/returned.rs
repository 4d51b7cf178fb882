//! Refunds that succeed and fail later: the customer's bank sends the money back.

use crate::suite::world::{Buy, Process, SECOND_US, World, owned};
use payment::error::Error;
use payment::ledger::Source;
use payment::provider::simulator::Faults;
use payment::refund::{RefundState, Wanted};
use payment::rejection::Rejection;
use payment::sales::SalesQuery;
use payment::state::State;
use prost::Message as _;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::refund::State as Shown;

const FAILS_LATER: &str = "pm_card_refund_fails_later";

/// Sales as they stand: amount and units.
async fn sales(process: &Process) -> (i64, i64) {
    let rows = process.store.sales(&SalesQuery::default()).await.unwrap();
    (rows[0].amount_minor, rows[0].quantity)
}

async fn balance(process: &Process, account: &str) -> i64 {
    let accounts = process.store.accounts(None).await.unwrap();
    let found = accounts.iter().find(|of| of.account == account);
    found.map_or(0, |of| of.balance_minor)
}

#[tokio::test]
async fn a_refund_that_fails_later_is_undone_and_can_be_asked_for_again() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        let paid = process.create(&world, Buy::by(FAILS_LATER)).await.unwrap();
        let units = Wanted::Lines(owned(&[("A", 1)]));
        let refund = process.refund(&world, &paid.id, units, true).await.unwrap();
        assert_eq!(refund.state(), Shown::Succeeded);
        assert!(refund.reverse_time.is_none());
        assert_eq!(sales(&process).await, (350, 2));
        world.clock.advance(5 * SECOND_US);
        world.settle(&process).await;

        let payment = process.payment(&paid.id).await;
        let failed = &payment.refunds[0];
        assert_eq!(failed.state, RefundState::Failed);
        assert!(failed.reversed_at_us.is_some() && failed.failure.is_some());
        assert_eq!(payment.state, State::Succeeded, "the sale stands");
        assert_eq!(payment.refunded_minor(), 0);
        assert_eq!(payment.refunded_quantity("A"), 0);
        assert_eq!(sales(&process).await, (450, 3));
        assert_eq!(balance(&process, "income:refunds").await, 0);
        assert_eq!(balance(&process, "assets:provider:simulator").await, 450);
        assert_eq!(world.catalogue.on_hand("A"), 999_999, "the goods are back");
        let entries = process.store.entries(Some(payment.id), None, 10).await;
        let sources: Vec<Source> = entries.unwrap().iter().map(|entry| entry.source).collect();
        assert!(
            sources.contains(&Source::RefundReversal(failed.id)),
            "{sources:?}"
        );
        told(&world, &paid.id).await;

        let again = process.refund(&world, &paid.id, Wanted::Everything, false);
        assert_eq!(again.await.unwrap().amount.unwrap().amount_minor, 450);
        world.check().await;
    }
}

/// The event says what has to be undone elsewhere, and somebody has to take it.
async fn told(world: &World, payment: &str) {
    let bodies = world.storage.events("payment.RefundFailed.v1").await;
    let failed = pb::RefundFailed::decode(bodies[0].as_slice()).unwrap();
    assert_eq!(
        (failed.payment_id.as_str(), failed.reversed),
        (payment, true)
    );
    assert_eq!(failed.amount.unwrap().amount_minor, 100);
    assert_eq!(
        (failed.lines[0].sku.as_str(), failed.lines[0].quantity),
        ("A", 1)
    );
    assert!(failed.restocked && failed.reversed_at.is_some());
    let mandatory =
        "SELECT kind FROM mesh_outbox WHERE kind = 'payment.RefundFailed.v1' AND mandatory";
    assert_eq!(world.storage.texts(mandatory).await.len(), 1);
}

#[tokio::test]
async fn however_often_and_whenever_the_news_come_it_is_undone_once() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let refund = process.refund(&world, &paid.id, Wanted::Everything, false);
    let refund = refund.await.unwrap().id;
    process.look_up(&world, &paid.id).await;
    assert_eq!(
        process.payment(&paid.id).await.refunds[0].state,
        RefundState::Succeeded
    );
    world.simulator.return_refund(&refund).await.unwrap();
    world.simulator.return_refund(&refund).await.unwrap_err();
    let faults = Faults {
        seed: 3,
        unavailable: 0.6,
        ..Faults::NONE
    };
    world.simulator.set_faults(faults);
    for _ in 0..4 {
        process.look_up(&world, &paid.id).await;
        world.settle(&process).await;
    }
    world.simulator.set_faults(Faults::NONE);
    world.settle(&process).await;
    let payment = process.payment(&paid.id).await;
    assert_eq!(payment.refunds[0].state, RefundState::Failed);
    let booked = payment.id;
    let entries = process.store.entries(Some(booked), None, 10).await.unwrap();
    assert_eq!(entries.len(), 3, "capture, refund, reversal");
    world.check().await;
}

#[tokio::test]
async fn what_was_refunded_in_between_stays_within_what_was_captured() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let first = Wanted::Lines(owned(&[("A", 2)]));
    let first = process.refund(&world, &paid.id, first, true).await.unwrap();
    let second = Wanted::Lines(owned(&[("B", 1)]));
    process
        .refund(&world, &paid.id, second, true)
        .await
        .unwrap();
    let nothing = process.refund(&world, &paid.id, Wanted::Everything, false);
    assert!(matches!(
        nothing.await,
        Err(Error::Rejected(Rejection::NothingLeft(_)))
    ));
    world.simulator.return_refund(&first.id).await.unwrap();
    world.settle(&process).await;
    let again = process.refund(&world, &paid.id, Wanted::Everything, true);
    let again = again.await.unwrap();
    assert_eq!(again.amount.unwrap().amount_minor, 200);
    world.settle(&process).await;
    let payment = process.payment(&paid.id).await;
    assert_eq!(payment.refunded_minor(), 450);
    assert_eq!(
        world.catalogue.on_hand("A"),
        1_000_000,
        "no unit comes back twice"
    );
    world.check().await;
}
