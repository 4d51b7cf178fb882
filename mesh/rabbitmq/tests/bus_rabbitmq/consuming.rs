//! Attempts, retries, prefetch, and what is no event.

use std::time::Duration;

use lapin::{BasicProperties, options::BasicPublishOptions};
use mesh_events::{Bus as _, BusError};
use mesh_rabbitmq::LetterFilter;
use tokio::time::Instant;

use crate::support::{
    KIND, Ledger, bus, config, consumer, event, events, eventually, next, nothing_arrives, publish,
    subscribe, subscription,
};

#[tokio::test]
async fn a_retry_waits_raises_the_attempt_and_reaches_no_other_consumer() {
    let bus = bus(&config());
    let (mut a, mut b) = (subscribe(&bus, "a").await, subscribe(&bus, "b").await);
    let event =
        event(1).with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    publish(&bus, std::slice::from_ref(&event)).await;
    next(&mut b).await.ack().await.unwrap();
    for (attempt, after_ms) in [(1, 50), (2, 150), (3, 9_000)] {
        let delivery = next(&mut a).await;
        assert_eq!((&delivery.event, delivery.attempt), (&event, attempt));
        let started = Instant::now();
        delivery
            .retry(Duration::from_millis(after_ms))
            .await
            .unwrap();
        let rung_ms = if after_ms <= 100 { 100 } else { 400 };
        let again = next(&mut a).await;
        // The broker counts from when it has the message, a little before it says so.
        assert!(started.elapsed() + Duration::from_millis(20) >= Duration::from_millis(rung_ms));
        assert_eq!(again.attempt, attempt + 1);
        if attempt < 3 {
            // Dropped, so that the next round takes it up: the same attempt comes again.
            drop(again);
            assert!(matches!(a.next().await, Err(BusError::Lost(_))));
            a = subscribe(&bus, "a").await;
        } else {
            again.ack().await.unwrap();
        }
    }
    assert!(nothing_arrives(&mut a).await && nothing_arrives(&mut b).await);
}

#[tokio::test]
async fn consumers_that_die_raise_no_attempt_and_make_no_dead_letter() {
    let config = config();
    let bus = bus(&config);
    let mut deliveries = subscribe(&bus, "mortal").await;
    publish(&bus, &events(0..16)).await;
    for _ in 0..40 {
        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(next(&mut deliveries).await);
        }
        assert!(held.iter().all(|delivery| delivery.attempt == 1));
        drop((held, deliveries));
        deliveries = subscribe(&bus, "mortal").await;
    }
    for _ in 0..16 {
        next(&mut deliveries).await.ack().await.unwrap();
    }
    let letters = bus
        .dead_letters()
        .list("mortal", &LetterFilter::default(), 10)
        .await;
    assert_eq!(letters.unwrap(), []);
}

#[tokio::test]
async fn what_kills_its_consumer_every_time_becomes_a_dead_letter() {
    let mut config = config();
    config.delivery_limit = 3;
    let bus = bus(&config);
    let fatal = event(1);
    let mut deliveries = subscribe(&bus, "mortal").await;
    publish(&bus, std::slice::from_ref(&fatal)).await;
    for _ in 0..4 {
        let _fatal = next(&mut deliveries).await;
        drop(deliveries);
        deliveries = subscribe(&bus, "mortal").await;
    }
    let letters = bus.dead_letters();
    let none = LetterFilter::default();
    eventually("a dead letter", async || {
        !letters.list("mortal", &none, 1).await.unwrap().is_empty()
    })
    .await;
    let letter = letters
        .show("mortal", &fatal.message_id.to_string())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(letter.event, Ok((fatal, 1)));
    assert_eq!(letter.reason, "delivery_limit, says the broker");
}

#[tokio::test]
async fn a_quiet_subscription_is_to_be_renewed_unless_something_is_unsettled() {
    let mut config = config();
    config.quiet_ms = 300;
    let bus = bus(&config);
    let mut deliveries = subscribe(&bus, "quiet").await;
    publish(&bus, &events(0..1)).await;
    let held = next(&mut deliveries).await;
    assert!(nothing_arrives(&mut deliveries).await); // For twice as long.
    held.ack().await.unwrap();
    let settled = Instant::now();
    assert_eq!(deliveries.next().await.unwrap_err(), BusError::Quiet);
    assert!(settled.elapsed() < Duration::from_millis(600));
}

#[tokio::test]
async fn no_more_than_the_prefetch_is_delivered_unsettled() {
    let bus = bus(&config());
    let mut deliveries = bus.subscribe(subscription("slow", 3)).await.unwrap();
    publish(&bus, &events(0..5)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(next(&mut deliveries).await);
    }
    assert!(nothing_arrives(&mut deliveries).await);
    held.pop().unwrap().ack().await.unwrap();
    held.push(next(&mut deliveries).await);
}

#[tokio::test]
async fn what_is_no_event_is_a_dead_letter_at_once_and_stops_nobody() {
    let config = config();
    let bus = bus(&config);
    // As many as the prefetch: they must not hold their places.
    let mut deliveries = bus.subscribe(subscription("strict", 4)).await.unwrap();
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&config.url, properties)
        .await
        .unwrap();
    let stranger = connection.create_channel().await.unwrap();
    for number in 0..4 {
        let (exchange, options) = (
            config.exchange.as_str().into(),
            BasicPublishOptions::default(),
        );
        let properties = BasicProperties::default().with_type(format!("stranger {number}").into());
        let sent = stranger.basic_publish(exchange, KIND.into(), options, b"hello", properties);
        sent.await.unwrap().await.unwrap();
    }
    let good = event(5);
    publish(&bus, std::slice::from_ref(&good)).await;
    let delivery = next(&mut deliveries).await;
    assert_eq!(delivery.event, good);
    delivery.ack().await.unwrap();
    let letters = bus.dead_letters();
    let none = LetterFilter::default();
    eventually("four dead letters", async || {
        letters.list("strict", &none, 10).await.unwrap().len() == 4
    })
    .await;
    let found = letters.list("strict", &none, 1).await.unwrap().remove(0);
    assert!(found.kind.starts_with("stranger"), "{found:?}");
    assert_eq!(found.reason, "property message-id is missing");
    assert_eq!(found.body, "hello");
    // It can be named, though it had no name.
    assert_eq!(
        letters.show("strict", &found.message_id).await.unwrap(),
        Some(found)
    );
    assert!(nothing_arrives(&mut deliveries).await);
}

#[tokio::test]
async fn poison_is_a_dead_letter_while_the_others_flow() {
    let bus = bus(&config());
    let ledger = Ledger::new(|event| event.aggregate_version % 10 == 0);
    let consuming = consumer(&bus, "fussy", &ledger);
    eventually("subscribed", async || {
        bus.publish(&[event(1)]).await[0].is_ok()
    })
    .await;
    publish(&bus, &events(2..200)).await;
    eventually("180 effects", async || ledger.applied() == 180).await;
    let letters = bus.dead_letters();
    let none = LetterFilter::default();
    eventually("19 letters", async || {
        letters.list("fussy", &none, 99).await.unwrap().len() == 19
    })
    .await;
    for letter in letters.list("fussy", &none, 99).await.unwrap() {
        assert_eq!(letter.reason, "odd");
        let (event, attempts) = letter.event.unwrap();
        assert_eq!((event.aggregate_version % 10, attempts), (0, 1));
        assert!(letter.dead_at_us.is_some());
    }
    assert_eq!((ledger.deliveries(), ledger.doubled()), (199, 0));
    consuming.stop().await;
}

#[tokio::test]
async fn a_subscription_without_a_consumer_is_invalid() {
    let bus = bus(&config());
    for (name, prefetch) in [("", 1), ("a", 0)] {
        let refused = bus.subscribe(subscription(name, prefetch)).await;
        assert!(matches!(refused.map(drop), Err(BusError::Invalid(_))));
    }
}
