//! Purchases as they should go, and the ordinary ways in which they do not.

use crate::suite::world::{Buy, NOW_US, SECOND_US, VISA, World, owned};
use kernel::{Currency, Money};
use mesh_store::Durability;
use payment::error::Error;
use payment::provider::simulator::SimulatorConfig;
use payment::refund::Wanted;
use payment::rejection::Rejection;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment::State;
use proto::commerce::payment::v1::refund;
use std::sync::Arc;

fn amount(money: Option<&proto::commerce::money::v1::Money>) -> i64 {
    money.map_or(0, |money| money.amount_minor)
}

fn code(payment: &pb::Payment) -> &str {
    payment
        .last_error
        .as_ref()
        .map_or("", |failure| failure.code.as_str())
}

#[tokio::test]
async fn a_purchase_reserves_charges_commits_and_captures() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        let payment = process.create(&world, Buy::some()).await.unwrap();
        assert_eq!(payment.state(), State::Succeeded);
        assert_eq!(amount(payment.amount.as_ref()), 450);
        assert_eq!(amount(payment.captured_amount.as_ref()), 450);
        assert_eq!(payment.items[0].title, "Title of A");
        assert_eq!(payment.items[0].captured_quantity, 2);
        assert_eq!(payment.captures.len(), 1);
        assert_eq!(world.catalogue.on_hand("A"), 999_998);
        assert_eq!(world.catalogue.reserved("A"), 0);
        world.check().await;
    }
}

#[tokio::test]
async fn a_declined_purchase_can_be_confirmed_with_another_method() {
    let world = World::new().await;
    let process = world.process();
    let declined = process
        .create(&world, Buy::by("pm_card_declined"))
        .await
        .unwrap();
    assert_eq!(declined.state(), State::RequiresConfirmation);
    assert_eq!(code(&declined), "CARD_DECLINED");
    assert_eq!(
        world.catalogue.reserved("A"),
        0,
        "what was held is free again"
    );
    let poor = process
        .confirm(&world, &declined.id, "pm_card_insufficient_funds")
        .await
        .unwrap();
    assert_eq!(code(&poor), "INSUFFICIENT_FUNDS");
    let paid = process.confirm(&world, &declined.id, VISA).await.unwrap();
    assert_eq!(paid.state(), State::Succeeded);
    assert!(paid.last_error.is_none());
    assert_eq!(paid.payment_method, VISA);
    world.check().await;
}

#[tokio::test]
async fn lack_of_stock_is_an_answer() {
    let world = World::new().await;
    let process = world.process();
    world.catalogue.set_on_hand("B", 0);
    let payment = process.create(&world, Buy::some()).await.unwrap();
    assert_eq!(payment.state(), State::RequiresConfirmation);
    let failure = payment.last_error.clone().unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.sku.as_str()),
        ("OUT_OF_STOCK", "B")
    );
    world.catalogue.set_on_hand("B", 5);
    let paid = process.confirm(&world, &payment.id, VISA).await.unwrap();
    assert_eq!(paid.state(), State::Succeeded);
    world.check().await;
}

#[tokio::test]
async fn a_price_that_changed_is_given_back_for_confirmation() {
    let world = World::new().await;
    let process = world.process();
    let created = process.create(&world, Buy::unconfirmed()).await.unwrap();
    world.catalogue.set_price("A", 175);
    let changed = process.confirm(&world, &created.id, VISA).await.unwrap();
    assert_eq!(changed.state(), State::RequiresConfirmation);
    assert_eq!(code(&changed), "PRICE_CHANGED");
    assert_eq!(amount(changed.amount.as_ref()), 600);
    assert_eq!(amount(changed.items[0].unit_price.as_ref()), 175);
    assert_eq!(world.catalogue.reserved("A"), 0);
    let paid = process.confirm(&world, &created.id, VISA).await.unwrap();
    assert_eq!(amount(paid.captured_amount.as_ref()), 600);
    world.check().await;
}

#[tokio::test]
async fn what_is_expected_and_not_met_stores_nothing() {
    let world = World::new().await;
    let process = world.process();
    let request = crate::suite::world::request(payment::wire::method::CREATE_PAYMENT, "k");
    let mut order = Buy::some().order(&world);
    order.expected = Some(Money::new(Currency::parse("USD").unwrap(), 449).unwrap());
    let error = process
        .commands
        .create(request.clone(), order.clone())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Rejected(Rejection::PriceChanged { .. })),
        "{error}"
    );
    world.catalogue.set_down(true);
    let error = process
        .commands
        .create(request.clone(), order.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::ProductUnavailable), "{error}");
    world.catalogue.set_down(false);
    order.lines = owned(&[("A", 1), ("NONE", 1)]);
    let error = process
        .commands
        .create(request.clone(), order.clone())
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotSold { ref field, .. } if field == "items[1].sku"));
    order.lines = owned(&[("FREE", 3)]);
    let error = process
        .commands
        .create(request.clone(), order.clone())
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Rejected(Rejection::NothingToPay)),
        "{error}"
    );
    for table in ["payments", "mesh_idempotency"] {
        assert_eq!(world.storage.count(table).await, 0, "{table}");
    }
    order.lines = Buy::some().lines;
    order.expected = Some(Money::new(Currency::parse("USD").unwrap(), 450).unwrap());
    process.commands.create(request, order).await.unwrap(); // The key was never used.
}

#[tokio::test]
async fn an_order_is_taken_until_its_payment_is_canceled() {
    let world = World::new().await;
    let process = world.process();
    let buy = Buy {
        order_ref: Some("INV-1".into()),
        ..Buy::unconfirmed()
    };
    let first = process.create(&world, buy.clone()).await.unwrap();
    let error = process.create(&world, buy.clone()).await.unwrap_err();
    assert!(
        matches!(&error, Error::Rejected(Rejection::OrderRefTaken { id, .. })
            if id.to_string() == first.id),
        "{error}"
    );
    let canceled = process.cancel(&world, &first.id).await.unwrap();
    assert_eq!(canceled.state(), State::Canceled);
    assert_eq!(canceled.cancellation_reason, "requested");
    let second = process.create(&world, buy).await.unwrap();
    assert_ne!(second.id, first.id);
    world.check().await;
}

#[tokio::test]
async fn manual_capture_takes_parts_and_gives_the_rest_up() {
    let world = World::new().await;
    let process = world.process();
    let held = process.create(&world, Buy::manual()).await.unwrap();
    assert_eq!(held.state(), State::RequiresCapture);
    assert_eq!(amount(held.captured_amount.as_ref()), 0);
    let ends = held.expire_time.unwrap().seconds;
    assert_eq!(ends, NOW_US / SECOND_US + 7 * 24 * 3_600);
    world.clock.advance(24 * 3_600 * SECOND_US);
    assert_eq!(
        world.catalogue.reserved("A"),
        2,
        "the hold lasts as long as the authorisation"
    );

    let part = process
        .capture(&world, &held.id, &[("A", 1)], false)
        .await
        .unwrap();
    assert_eq!(part.state(), State::PartiallyCaptured);
    assert_eq!(amount(part.captured_amount.as_ref()), 100);
    let error = process
        .capture(&world, &held.id, &[("A", 2)], false)
        .await
        .unwrap_err();
    let left = Rejection::QuantityExceeded {
        sku: "A".into(),
        asked: 2,
        left: 1,
    };
    assert!(
        matches!(&error, Error::Rejected(found) if *found == left),
        "{error}"
    );
    let error = process.cancel(&world, &held.id).await.unwrap_err();
    assert!(matches!(error, Error::Rejected(Rejection::State { .. })));

    let last = process
        .capture(&world, &held.id, &[("B", 1)], true)
        .await
        .unwrap();
    assert_eq!(last.state(), State::Succeeded);
    assert_eq!(amount(last.captured_amount.as_ref()), 350);
    assert_eq!(world.catalogue.reserved("A"), 0, "the rest is free again");
    assert_eq!(
        (world.catalogue.on_hand("A"), world.catalogue.on_hand("B")),
        (999_999, 999_999)
    );
    world.check().await;
}

#[tokio::test]
async fn a_provider_without_manual_capture_refuses_it() {
    let world = World::one_step().await;
    let error = world
        .process()
        .create(&world, Buy::manual())
        .await
        .unwrap_err();
    let field = |invalid: &kernel::Invalid| invalid.field == "capture_method";
    assert!(
        matches!(&error, Error::Rejected(Rejection::Invalid(at)) if field(at)),
        "{error}"
    );
}

#[tokio::test]
async fn an_authorisation_is_voided_by_cancel_and_by_its_end() {
    let world = World::new().await;
    let process = world.process();
    let held = process.create(&world, Buy::manual()).await.unwrap();
    let canceled = process.cancel(&world, &held.id).await.unwrap();
    assert_eq!(canceled.state(), State::Canceled);
    assert_eq!(world.catalogue.reserved("A"), 0);

    let held = process.create(&world, Buy::manual()).await.unwrap();
    world.clock.advance(7 * 24 * 3_600 * SECOND_US);
    process.worker.run_once().await.unwrap();
    let ended = process.payment(&held.id).await;
    assert_eq!(ended.state, payment::state::State::Canceled);
    assert_eq!(ended.closing, Some(payment::payment::CancelReason::Expired));

    let part = process.create(&world, Buy::manual()).await.unwrap();
    process
        .capture(&world, &part.id, &[("A", 1)], false)
        .await
        .unwrap();
    world.clock.advance(7 * 24 * 3_600 * SECOND_US);
    process.worker.run_once().await.unwrap();
    let ended = process.payment(&part.id).await;
    assert_eq!(ended.state, payment::state::State::Succeeded);
    assert_eq!(ended.captured_minor(), 100);
    assert_eq!(world.catalogue.reserved("A"), 0);
    world.settle(&process).await;
    world.check().await;
}

#[tokio::test]
async fn unconfirmed_payments_run_out() {
    let world = World::new().await;
    let process = world.process();
    let created = process.create(&world, Buy::unconfirmed()).await.unwrap();
    world.clock.advance(24 * 3_600 * SECOND_US - 1);
    assert_eq!(process.worker.run_once().await.unwrap(), 0);
    world.clock.advance(1);
    assert_eq!(process.worker.run_once().await.unwrap(), 1);
    let ended = process.payment(&created.id).await;
    assert_eq!(ended.state, payment::state::State::Canceled);
    world.check().await;
}

#[tokio::test]
async fn customers_authenticate_or_do_not() {
    for world in [World::new().await, World::one_step().await] {
        let process = world.process();
        let asked = process
            .create(&world, Buy::by("pm_card_authentication_ok"))
            .await
            .unwrap();
        assert_eq!(asked.state(), State::RequiresAction);
        assert!(asked.next_action.unwrap().redirect_url.contains("att_"));
        let paid = process
            .confirm(&world, &asked.id, "pm_card_authentication_ok")
            .await
            .unwrap();
        assert_eq!(paid.state(), State::Succeeded);
        assert!(paid.next_action.is_none());

        let asked = process
            .create(&world, Buy::by("pm_card_authentication_fail"))
            .await
            .unwrap();
        let failed = process
            .confirm(&world, &asked.id, "pm_card_authentication_fail")
            .await
            .unwrap();
        assert_eq!(failed.state(), State::RequiresConfirmation);
        assert_eq!(code(&failed), "AUTHENTICATION_FAILED");

        let asked = process
            .create(&world, Buy::by("pm_card_authentication_required"))
            .await
            .unwrap();
        let other = process.confirm(&world, &asked.id, VISA).await.unwrap();
        assert_eq!(other.state(), State::Succeeded);
        assert_eq!(process.payment(&asked.id).await.attempts.len(), 2);

        let asked = process
            .create(&world, Buy::by("pm_card_authentication_required"))
            .await
            .unwrap();
        let waits = process
            .confirm(&world, &asked.id, "pm_card_authentication_required")
            .await;
        assert_eq!(waits.unwrap().state(), State::RequiresAction);
        world.clock.advance(15 * 60 * SECOND_US);
        process.worker.run_once().await.unwrap();
        assert_eq!(
            process.payment(&asked.id).await.state,
            payment::state::State::Canceled
        );
        assert_eq!(world.catalogue.reserved("A"), 0);
        world.settle(&process).await;
        world.check().await;
    }
}

#[tokio::test]
async fn refunds_by_units_by_amount_and_of_the_rest() {
    let world = World::new().await;
    let process = world.process();
    let paid = process.create(&world, Buy::some()).await.unwrap();
    let units = Wanted::Lines(owned(&[("A", 1)]));
    let one = process.refund(&world, &paid.id, units, true).await.unwrap();
    assert_eq!(one.state(), refund::State::Succeeded);
    assert_eq!(amount(one.amount.as_ref()), 100);
    assert_eq!(world.catalogue.on_hand("A"), 999_999, "one came back");
    let usd = |minor| Money::new(Currency::parse("USD").unwrap(), minor).unwrap();
    let part = process
        .refund(&world, &paid.id, Wanted::Amount(usd(70)), false)
        .await
        .unwrap();
    let parts: Vec<i64> = part
        .lines
        .iter()
        .map(|line| amount(line.amount.as_ref()))
        .collect();
    assert_eq!(parts, [20, 50], "in proportion to 1.00 and 2.50");
    let error = process
        .refund(&world, &paid.id, Wanted::Amount(usd(281)), false)
        .await;
    assert!(matches!(
        error,
        Err(Error::Rejected(Rejection::AmountExceeded { .. }))
    ));
    let krw = Money::new(Currency::parse("KRW").unwrap(), 1).unwrap();
    let error = process
        .refund(&world, &paid.id, Wanted::Amount(krw), false)
        .await;
    assert!(matches!(error, Err(Error::Rejected(Rejection::Invalid(_)))));
    let rest = process
        .refund(&world, &paid.id, Wanted::Everything, true)
        .await
        .unwrap();
    assert_eq!(amount(rest.amount.as_ref()), 280);
    assert_eq!(
        (world.catalogue.on_hand("A"), world.catalogue.on_hand("B")),
        (1_000_000, 1_000_000)
    );
    let error = process
        .refund(&world, &paid.id, Wanted::Everything, false)
        .await;
    assert!(matches!(
        error,
        Err(Error::Rejected(Rejection::NothingLeft(_)))
    ));
    let now = process.payment(&paid.id).await;
    assert_eq!((now.captured_minor(), now.refunded_minor()), (450, 450));
    world.check().await;
}

#[tokio::test]
async fn a_refused_refund_can_be_asked_for_again() {
    let world = World::new().await;
    let process = world.process();
    let paid = process
        .create(&world, Buy::by("pm_card_refund_declined"))
        .await
        .unwrap();
    let refused = process
        .refund(&world, &paid.id, Wanted::Everything, true)
        .await
        .unwrap();
    assert_eq!(refused.state(), refund::State::Failed);
    assert!(refused.last_error.is_some());
    let again = process
        .refund(&world, &paid.id, Wanted::Everything, true)
        .await
        .unwrap();
    assert_eq!(again.state(), refund::State::Failed);
    assert_ne!(again.id, refused.id);
    assert_eq!(process.payment(&paid.id).await.refunded_minor(), 0);
    world.check().await;
}

#[tokio::test]
async fn nothing_captured_nothing_refunded() {
    let world = World::new().await;
    let process = world.process();
    for buy in [
        Buy::unconfirmed(),
        Buy::manual(),
        Buy::by("pm_card_declined"),
    ] {
        let payment = process.create(&world, buy).await.unwrap();
        let error = process
            .refund(&world, &payment.id, Wanted::Everything, false)
            .await;
        assert!(matches!(
            error,
            Err(Error::Rejected(Rejection::NothingCaptured(_)))
        ));
    }
}

/// Commands on a payment that another run carries out are recorded, and answered when it is through.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_at_the_same_time_queue_up() {
    let simulator = SimulatorConfig {
        latency_ms: 20,
        ..SimulatorConfig::default()
    };
    let world = Arc::new(World::with(simulator, Durability::Relaxed).await);
    let process = Arc::new(world.process());
    let buy = Buy {
        lines: owned(&[("A", 8), ("B", 1)]),
        ..Buy::manual()
    };
    let held = process.create(&world, buy).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (world, process, id) = (world.clone(), process.clone(), held.id.clone());
        calls.spawn(async move { process.capture(&world, &id, &[("A", 1)], false).await });
    }
    let mut captured = Vec::new();
    let mut refused = 0;
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            Ok(payment) => captured.push(payment),
            Err(Error::Rejected(Rejection::QuantityExceeded { left: 0, .. })) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((captured.len(), refused), (8, 2), "as many as there are");
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (world, process, id) = (world.clone(), process.clone(), held.id.clone());
        let wanted = Wanted::Lines(owned(&[("A", 1)]));
        calls.spawn(async move { process.refund(&world, &id, wanted, true).await });
    }
    let refunds: Vec<_> = calls
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::ok)
        .collect();
    assert_eq!(refunds.len(), 8);
    assert!(
        refunds
            .iter()
            .all(|refund| refund.state() == refund::State::Succeeded)
    );
    let last = process.payment(&held.id).await;
    assert_eq!((last.captured_minor(), last.refunded_minor()), (800, 800));
    world.settle(&process).await;
    world.check().await;
}
