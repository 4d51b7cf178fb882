//! The same key gets the same answer.

use crate::suite::world::{Buy, World, decoded, request};
use mesh_store::idempotency;
use payment::error::Error;
use payment::store::Viewer;
use payment::wire::method;
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_at_once_with_one_key_make_one_payment() {
    let world = Arc::new(World::new().await);
    let process = Arc::new(world.process());
    let order = Buy::some().order(&world);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..1_000 {
        let (process, order) = (process.clone(), order.clone());
        calls.spawn(async move {
            process
                .commands
                .create(request(method::CREATE_PAYMENT, "one"), order)
                .await
        });
    }
    let mut answers = Vec::new();
    let mut in_flight = 0;
    while let Some(call) = calls.join_next().await {
        match call.unwrap() {
            Ok(answer) => answers.push(answer),
            Err(Error::InFlight) => in_flight += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(answers.len() + in_flight, 1_000);
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.bytes == answers[0].bytes)
    );
    let last = process
        .commands
        .create(request(method::CREATE_PAYMENT, "one"), order)
        .await;
    let last = last.unwrap();
    assert!(last.replayed && last.bytes == answers[0].bytes);
    let payments = world.payments().await;
    assert_eq!((payments.len(), payments[0].attempts.len()), (1, 1));
    world.check().await;
}

#[tokio::test]
async fn another_request_under_a_used_key_is_refused() {
    let world = World::new().await;
    let process = world.process();
    let order = Buy::some().order(&world);
    process
        .commands
        .create(request(method::CREATE_PAYMENT, "k"), order.clone())
        .await
        .unwrap();
    let mut other = request(method::CREATE_PAYMENT, "k");
    other.fingerprint = idempotency::fingerprint(b"another body");
    let error = process.commands.create(other, order).await.unwrap_err();
    assert!(matches!(error, Error::KeyReused), "{error}");
}

#[tokio::test]
async fn keys_belong_to_a_caller_and_a_method() {
    let world = World::new().await;
    let process = world.process();
    let order = Buy::manual().order(&world);
    let mine = process
        .commands
        .create(request(method::CREATE_PAYMENT, "k"), order.clone())
        .await;
    let mine = decoded(&mine.unwrap());
    let mut theirs = request(method::CREATE_PAYMENT, "k");
    theirs.principal = "other".into();
    theirs.viewer = Viewer::Client("other".into());
    let other = decoded(&process.commands.create(theirs, order).await.unwrap());
    assert_ne!(
        mine.id, other.id,
        "the same order and key, of another caller"
    );
    let id = kernel::PaymentId::parse(&mine.id).unwrap();
    let canceled = process
        .commands
        .cancel(request(method::CANCEL_PAYMENT, "k"), id)
        .await;
    assert_eq!(decoded(&canceled.unwrap()).id, mine.id);
    let mut foreign = request(method::CANCEL_PAYMENT, "k2");
    foreign.viewer = Viewer::Client("other".into());
    let error = process.commands.cancel(foreign, id).await.unwrap_err();
    assert!(matches!(error, Error::PaymentNotFound(_)), "{error}");
}

#[tokio::test]
async fn a_replay_needs_no_product_service_and_stands_whatever_happened_since() {
    let world = World::new().await;
    let process = world.process();
    let order = Buy::manual().order(&world);
    let key = || request(method::CREATE_PAYMENT, "k");
    let first = process.commands.create(key(), order.clone()).await.unwrap();
    process.cancel(&world, &decoded(&first).id).await.unwrap();
    world.catalogue.set_down(true);
    let again = process.commands.create(key(), order).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.bytes, first.bytes);
}

#[tokio::test]
async fn a_refused_command_does_not_use_its_key_up() {
    let world = World::new().await;
    let process = world.process();
    let payment = process.create(&world, Buy::unconfirmed()).await.unwrap();
    let id = kernel::PaymentId::parse(&payment.id).unwrap();
    let key = || request(method::CAPTURE_PAYMENT, "k");
    let error = process
        .commands
        .capture(key(), id, vec![], true)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Rejected(_)), "{error}");
    assert!(
        process
            .store
            .find(&idempotency::Key {
                principal: "shop".into(),
                method: method::CAPTURE_PAYMENT.into(),
                request_id: "k".into(),
                fingerprint: idempotency::fingerprint(b"k"),
            })
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn without_a_key_every_call_is_one_of_its_own() {
    let world = World::new().await;
    let process = world.process();
    let answer = |order| {
        process
            .commands
            .create(request(method::CREATE_PAYMENT, ""), order)
    };
    let first = decoded(&answer(Buy::some().order(&world)).await.unwrap());
    let second = decoded(&answer(Buy::some().order(&world)).await.unwrap());
    assert_ne!(first.id, second.id);
    world.check().await;
}
