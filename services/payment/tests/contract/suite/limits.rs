//! What callers may ask for within a time: never more, however many ask at once and of however many replicas.

use crate::suite::api::{api, as_client, order, reason};
use crate::suite::world::{Buy, NOW_US, Process, SECOND_US, VISA, World, decoded, request};
use futures_util::future::join_all;
use payment::commands::Request;
use payment::error::Error;
use payment::limits::Limit;
use payment::rejection::Rejection;
use payment::store::{Retention, Viewer};
use payment::wire::method;
use proto::commerce::payment::v1 as pb;
use proto::commerce::payment::v1::payment_service_server::PaymentService as _;
use std::time::Duration;
use tonic::Code;
use tonic_types::StatusExt as _;

const DAY_S: u32 = 86_400;
const DAY_US: i64 = 86_400 * SECOND_US;
/// What [`Buy::some`] costs.
const PRICE: i64 = 450;

fn limit(principal: &str, amount_minor_max: i64, charges_max: u32) -> Limit {
    Limit {
        principal: principal.into(),
        currency: "USD".into(),
        window_s: DAY_S,
        amount_minor_max,
        charges_max,
    }
}

async fn limited(limits: &[Limit]) -> World {
    let mut world = World::new().await;
    world.config.limits = limits.to_vec();
    world
}

fn of(principal: &str, method: &'static str, key: &str) -> Request {
    Request {
        viewer: Viewer::Client(principal.into()),
        principal: principal.into(),
        ..request(method, key)
    }
}

/// A purchase by a caller, or what is left of the amount that it may spend.
async fn buy(process: &Process, world: &World, principal: &str) -> Result<pb::Payment, Rejection> {
    let key = format!("key-{}", world.number());
    let request = of(principal, method::CREATE_PAYMENT, &key);
    let answer = process
        .commands
        .create(request, Buy::some().order(world))
        .await;
    answer.map(|answer| decoded(&answer)).map_err(rejection)
}

fn rejection(error: Error) -> Rejection {
    match error {
        Error::Rejected(rejection @ Rejection::LimitReached { .. }) => rejection,
        other => panic!("{other:?}"),
    }
}

/// Twenty purchases of each of three callers, of two replicas, all at once: those of a batch that are refused take no
/// other one with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_ask_at_once_cannot_exceed_an_amount() {
    let world = limited(&[limit("", 2 * PRICE + 100, 0), limit("large", 20 * PRICE, 0)]).await;
    let processes = [world.process(), world.replica().await];
    let callers = ["small", "other", "large"];
    let calls = (0..60).map(|number| {
        let caller = callers[number % 3];
        let (process, world) = (&processes[number % 2], &world);
        async move { (caller, buy(process, world, caller).await) }
    });
    let answers = join_all(calls).await;
    let bought = |caller: &str| {
        let theirs = answers.iter().filter(|(of, _)| *of == caller);
        theirs.filter(|(_, answer)| answer.is_ok()).count()
    };
    assert_eq!(callers.map(bought), [2, 2, 20]);
    for refused in answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().err())
    {
        let Rejection::LimitReached { left, retry_us, .. } = refused else {
            unreachable!("nothing else is let through")
        };
        let left = left
            .expect("it is the amount that is limited")
            .amount_minor();
        assert!([100, 100 + PRICE].contains(&left), "{left}");
        assert_eq!(*retry_us, Some(DAY_US - NOW_US % DAY_US));
    }
    let spent = world.storage.texts(
        "SELECT principal || ' ' || CAST(amount_minor AS TEXT) FROM spending ORDER BY principal",
    );
    let expected = [("large", 20), ("other", 2), ("small", 2)];
    let expected = expected.map(|(caller, count)| format!("{caller} {}", count * PRICE));
    assert_eq!(spent.await, expected);
    assert_eq!(
        world.storage.count("payments").await,
        24,
        "what is refused leaves nothing"
    );
    world.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn confirmations_at_once_cannot_exceed_a_number() {
    let world = limited(&[limit("", 0, 3)]).await;
    let processes = [world.process(), world.replica().await];
    let mut ids = Vec::new();
    for _ in 0..12 {
        // To create one asks no provider for anything.
        ids.push(
            processes[0]
                .create(&world, Buy::unconfirmed())
                .await
                .unwrap()
                .id,
        );
    }
    let calls = ids.iter().enumerate().map(|(number, id)| {
        let (process, world) = (&processes[number % 2], &world);
        async move { process.confirm(world, id, VISA).await.map_err(rejection) }
    });
    let answers = join_all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    let refused = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(
        refused
            .clone()
            .all(|refused| matches!(refused, Rejection::LimitReached { left: None, .. }))
    );
    assert_eq!(refused.count(), 9);
    let charges = "SELECT CAST(charges AS TEXT) FROM spending";
    assert_eq!(world.storage.texts(charges).await, ["3"]);
    world.check().await;
}

#[tokio::test]
async fn a_refusal_says_why_and_when_to_come_again() {
    let world = limited(&[limit("", 700, 2)]).await;
    let api = api(&world.process());
    as_client("shop", async {
        let bought = api.create_payment(order("1", "k1")).await.unwrap();
        let id = bought.into_inner().payment.unwrap().id;
        api.create_payment(order("2", "k2")).await.unwrap();
        let refused = api.create_payment(order("3", "k3")).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::ResourceExhausted, "VELOCITY_LIMIT")
        );
        let details = refused.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.metadata["currency_code"], "USD");
        assert_eq!(info.metadata["window_s"], "86400");
        let pause = details.retry_info().unwrap().retry_delay.unwrap();
        let rest = u64::try_from(DAY_US - NOW_US % DAY_US).unwrap();
        assert_eq!(pause, Duration::from_micros(rest));
        // What was answered is answered again, and what is no charge is not counted.
        let again = api.create_payment(order("1", "k1")).await.unwrap();
        assert_eq!(again.into_inner().payment.unwrap().id, id);
        let mut unconfirmed = order("3", "k4");
        unconfirmed.get_mut().confirm = false;
        let waiting = api.create_payment(unconfirmed).await.unwrap().into_inner();
        let confirm = |key: &str| {
            tonic::Request::new(pb::ConfirmPaymentRequest {
                id: waiting.payment.clone().unwrap().id,
                request_id: key.into(),
                ..Default::default()
            })
        };
        let refused = api.confirm_payment(confirm("k5")).await.unwrap_err();
        assert_eq!(reason(&refused), "VELOCITY_LIMIT");
        world
            .clock
            .advance(i64::try_from(pause.as_micros()).unwrap() - 1);
        let refused = api.confirm_payment(confirm("k6")).await.unwrap_err();
        assert_eq!(
            reason(&refused),
            "VELOCITY_LIMIT",
            "a microsecond too early"
        );
        world.clock.advance(1);
        let done = api
            .confirm_payment(confirm("k7"))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(done.payment.unwrap().state(), pb::payment::State::Succeeded);
        // 200 are spent in this window: 500 are left, for which six units are too many, and eight always are.
        for (quantity, left, comes) in [(6, "500", true), (8, "500", false)] {
            let mut large = order("4", &format!("large {quantity}"));
            large.get_mut().items[0].quantity = quantity;
            let refused = api.create_payment(large).await.unwrap_err();
            assert_eq!(reason(&refused), "SPENDING_LIMIT");
            let details = refused.get_error_details();
            assert_eq!(details.error_info().unwrap().metadata["left_minor"], left);
            let retry = details.retry_info().and_then(|info| info.retry_delay);
            assert_eq!(retry.is_some(), comes, "{quantity}");
        }
    })
    .await;
    world.check().await;
}

/// Somebody who tries out cards is stopped by declines, and another payment method does not begin anew.
#[tokio::test]
async fn declines_count() {
    let world = limited(&[limit("", 0, 2)]).await;
    let process = world.process();
    let declined = process
        .create(&world, Buy::by("pm_card_declined"))
        .await
        .unwrap();
    process
        .confirm(&world, &declined.id, "pm_card_declined")
        .await
        .unwrap();
    let refused = process
        .confirm(&world, &declined.id, VISA)
        .await
        .unwrap_err();
    assert!(matches!(rejection(refused), Rejection::LimitReached { .. }));
    assert_eq!(process.payment(&declined.id).await.attempts.len(), 2);
    world.check().await;
}

/// A customer who comes back from authentication goes on with the charge that was counted.
#[tokio::test]
async fn to_go_on_with_a_charge_is_no_second_one() {
    let world = limited(&[limit("", 0, 1)]).await;
    let process = world.process();
    let asks = "pm_card_authentication_ok";
    let waits = process.create(&world, Buy::by(asks)).await.unwrap();
    let done = process.confirm(&world, &waits.id, asks).await.unwrap();
    assert_eq!(done.state(), pb::payment::State::Succeeded);
    world.check().await;
}

#[tokio::test]
async fn windows_that_ended_are_forgotten() {
    let world = limited(&[limit("", 0, 1)]).await;
    let process = world.process();
    process.create(&world, Buy::some()).await.unwrap();
    world.clock.advance(DAY_US);
    process.create(&world, Buy::some()).await.unwrap();
    assert_eq!(world.storage.count("spending").await, 2);
    let retention = Retention {
        answers_before_us: 0,
        changes_before_us: 0,
        webhooks_before_us: 0,
        windows_before_us: world.clock.now_us(),
        rows_max: 10,
    };
    assert_eq!(process.store.sweep(retention).await.unwrap(), 1);
    let refused = process.create(&world, Buy::some()).await.unwrap_err();
    assert!(
        matches!(rejection(refused), Rejection::LimitReached { .. }),
        "this one's is kept"
    );
}
