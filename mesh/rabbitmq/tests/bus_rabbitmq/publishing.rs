//! What counts as published, and what does not.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use lapin::{
    BasicProperties, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use mesh_events::{Bus as _, Event, PublishError};
use mesh_rabbitmq::declare;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::time::Instant;

use crate::support::{
    KIND, UNWANTED, bus, config, event, events, next, publish, subscribe, subscription,
};

/// 3,000 events in random order, every third of which no queue takes.
fn mixed(random: &mut StdRng) -> Vec<Event> {
    let mut events = events(0..3_000);
    for event in events.iter_mut().step_by(3) {
        event.kind = UNWANTED.into();
    }
    events.shuffle(random);
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn no_event_that_was_returned_counts_as_published() {
    let config = config();
    declare(&config, &[subscription("sink", 1)]).await.unwrap();
    let bus = bus(&config);
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for round in 0..50 {
        let events = mixed(&mut random);
        // Four windows at a time, as relays do.
        let published = join_all(events.chunks(750).map(async |part| {
            let mut results = Vec::new();
            for window in part.chunks(250) {
                results.extend(bus.publish(window).await);
            }
            results
        }));
        let results = published.await.concat();
        for (event, result) in events.iter().zip(results) {
            let expected = match event.kind.as_str() {
                KIND => Ok(()),
                _ => Err(PublishError::Unroutable),
            };
            assert_eq!(result, expected, "round {round}");
        }
    }
}

/// The trap that the test above is about: whoever believes that a confirm carries the return of its
/// own message takes unroutable events for published ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_naive_publisher_takes_returned_events_for_published_ones() {
    let config = config();
    declare(&config, &[subscription("sink", 1)]).await.unwrap();
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&config.url, properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let mut random = StdRng::seed_from_u64(0);
    let mut wrong = 0;
    for _ in 0..50 {
        for window in mixed(&mut random).chunks(250) {
            let confirms = window.iter().map(async |event| {
                let options = BasicPublishOptions {
                    mandatory: true,
                    ..BasicPublishOptions::default()
                };
                let (exchange, key) = (config.exchange.as_str().into(), event.kind.as_str().into());
                let publish = channel.basic_publish(
                    exchange,
                    key,
                    options,
                    &event.body,
                    BasicProperties::default(),
                );
                publish.await.unwrap().await.unwrap()
            });
            let confirms = join_all(confirms).await;
            let published = |confirm: &Confirmation| matches!(confirm, Confirmation::Ack(None));
            wrong += window
                .iter()
                .zip(&confirms)
                .filter(|(event, confirm)| event.kind == UNWANTED && published(confirm))
                .count();
        }
        if wrong > 0 {
            return;
        }
    }
    panic!("the trap is gone: windows need no channel of their own any more");
}

#[tokio::test]
async fn an_event_reaches_each_consumer_that_wants_its_kind() {
    let bus = bus(&config());
    let (mut a, mut b) = (subscribe(&bus, "a").await, subscribe(&bus, "b").await);
    let event =
        event(1).with_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    publish(&bus, std::slice::from_ref(&event)).await;
    for deliveries in [&mut a, &mut b] {
        let delivery = next(deliveries).await;
        assert_eq!((&delivery.event, delivery.attempt), (&event, 1));
        delivery.ack().await.unwrap();
    }
}

#[tokio::test]
async fn what_nobody_has_to_take_is_published_without_a_queue() {
    let config = config();
    let bus = bus(&config);
    let results = bus.publish(&[event(1).optional(), event(2)]).await;
    assert_eq!(results, [Ok(()), Err(PublishError::Unroutable)]);
}

#[tokio::test]
async fn a_body_that_is_too_long_is_refused_and_the_others_are_published() {
    let mut config = config();
    config.message_bytes_max = 10;
    let bus = bus(&config);
    let mut deliveries = subscribe(&bus, "a").await;
    let mut long = event(1);
    long.body = vec![0; 11].into();
    let short = event(2);
    let results = bus.publish(&[long, short.clone()]).await;
    assert!(
        matches!(&results[0], Err(PublishError::Refused(why)) if why.contains("message_bytes_max"))
    );
    assert_eq!(results[1], Ok(()));
    assert_eq!(next(&mut deliveries).await.event, short);
}

#[tokio::test]
async fn a_full_queue_refuses() {
    let mut config = config();
    config.queue_length_max = 10;
    declare(&config, &[subscription("full", 1)]).await.unwrap();
    let bus = bus(&config);
    let mut refused = 0;
    for window in events(0..200).chunks(20) {
        for result in bus.publish(window).await {
            match result {
                Ok(()) => {}
                Err(PublishError::Refused(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
    }
    // The limit takes a moment to take effect.
    assert!(refused >= 100, "{refused} of 200 refused");
}

#[tokio::test]
async fn without_a_broker_nothing_is_published_and_nobody_waits() {
    let mut config = config();
    config.url = "amqp://127.0.0.1:1/%2f".into();
    let bus = bus(&config);
    let started = Instant::now();
    for _ in 0..10 {
        let results = bus.publish(&events(0..3)).await;
        let unavailable = |result: &_| matches!(result, Err(PublishError::Unavailable(_)));
        assert!(
            results.len() == 3 && results.iter().all(unavailable),
            "{results:?}"
        );
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn an_address_that_lets_nobody_in_is_passed_over() {
    let mut config = config();
    let (nobody, broker) = ("amqp://127.0.0.1:1/%2f", config.url.clone());
    for url in [format!("{nobody},{broker}"), format!("{broker},{nobody}")] {
        config.url = url;
        declare(&config, &[subscription("sink", 1)]).await.unwrap();
        // Each bus begins at an address of its own choice.
        for _ in 0..4 {
            publish(&bus(&config), &[event(1)]).await;
        }
    }
    config.url = format!("{nobody},{nobody}");
    let error = declare(&config, &[]).await.unwrap_err().to_string();
    assert_eq!(error, "cannot connect to amqp://127.0.0.1:1");
}

#[tokio::test]
async fn a_publish_that_is_given_up_disturbs_no_other() {
    let config = config();
    declare(&config, &[subscription("sink", 1)]).await.unwrap();
    let bus = bus(&config);
    let mut unwanted = events(0..250);
    for event in &mut unwanted {
        event.kind = UNWANTED.into();
    }
    let wanted = events(0..250);
    for delay_us in 0..50 {
        let given_up = tokio::time::timeout(
            Duration::from_micros(delay_us * 100),
            bus.publish(&unwanted),
        );
        let _ = given_up.await;
        let results: HashSet<_> = bus
            .publish(&wanted)
            .await
            .into_iter()
            .map(|r| r.is_ok())
            .collect();
        assert_eq!(results, HashSet::from([true]));
    }
}
