//! What people do to dead letters.

use mesh_events::{Bus as _, DeadLetter, DeadLetters as _, Event};
use mesh_rabbitmq::{LetterFilter, RabbitMqDeadLetters, Replayed};

use crate::support::{
    KIND, Ledger, bus, config, consumer, event, events, eventually, next, nothing_arrives, publish,
    subscribe, subscription,
};

const ALL: LetterFilter = LetterFilter {
    kind: None,
    message_id: None,
};

async fn record(letters: &RabbitMqDeadLetters, consumer: &str, event: &Event) {
    let letter = DeadLetter {
        consumer: consumer.into(),
        event: event.clone(),
        reason: "no such product".into(),
        attempts: 5,
        dead_at_us: 77,
    };
    letters.record(letter).await.unwrap();
}

#[tokio::test]
async fn letters_are_listed_shown_replayed_and_dropped_by_kind_and_id() {
    let bus = bus(&config());
    let (mut a, mut b) = (subscribe(&bus, "a").await, subscribe(&bus, "b").await);
    let letters = bus.dead_letters();
    let mut other = event(2);
    other.kind = "test.Other.v1".into();
    let (first, last) = (event(1), event(3));
    for event in [&first, &other, &last] {
        record(&letters, "a", event).await;
    }

    // Looking changes nothing, however often.
    for _ in 0..3 {
        let listed = letters.list("a", &ALL, 9).await.unwrap();
        let found: Vec<_> = listed
            .iter()
            .map(|letter| letter.event.clone().unwrap())
            .collect();
        assert_eq!(
            found,
            [(first.clone(), 5), (other.clone(), 5), (last.clone(), 5)]
        );
        assert_eq!(
            (listed[0].reason.as_str(), listed[0].dead_at_us),
            ("no such product", Some(77))
        );
    }
    assert_eq!(letters.list("a", &ALL, 2).await.unwrap().len(), 2);
    assert_eq!(letters.list("b", &ALL, 9).await.unwrap(), []);
    let of_other = LetterFilter {
        kind: Some("test.Other.v1".into()),
        ..ALL
    };
    assert_eq!(letters.list("a", &of_other, 9).await.unwrap().len(), 1);
    let id = last.message_id.to_string();
    assert_eq!(
        letters.show("a", &id).await.unwrap().unwrap().event,
        Ok((last.clone(), 5))
    );
    assert_eq!(letters.show("a", "nobody").await.unwrap(), None);

    let only_last = LetterFilter {
        message_id: Some(id),
        ..ALL
    };
    let replayed = letters.replay("a", &only_last, 9, 1_000).await.unwrap();
    assert_eq!(
        replayed,
        Replayed {
            replayed: 1,
            malformed: 0
        }
    );
    let delivery = next(&mut a).await;
    assert_eq!((&delivery.event, delivery.attempt), (&last, 1));
    delivery.ack().await.unwrap();
    assert!(nothing_arrives(&mut b).await);

    assert_eq!(letters.drop("a", &of_other, 9).await.unwrap(), 1);
    let left = letters.list("a", &ALL, 9).await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].event, Ok((first, 5)));
}

#[tokio::test]
async fn a_consumer_that_was_never_declared_has_no_letters_and_says_so() {
    let letters = bus(&config()).dead_letters();
    let error = letters
        .list("nobody", &ALL, 1)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("nobody.dead"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_letters_are_replayed_without_a_double_effect() {
    let bus = bus(&config());
    let letters = bus.dead_letters();
    let ledger = Ledger::new(|_| false);
    let consuming = consumer(&bus, "back", &ledger);
    eventually("subscribed", async || {
        bus.publish(&[event(0)]).await[0].is_ok()
    })
    .await;
    let dead = events(1..1_001);
    // A tenth of them had their effect before they were recorded, and a tenth is there twice.
    publish(&bus, &dead[..100]).await;
    for (number, event) in dead.iter().enumerate() {
        record(&letters, "back", event).await;
        if number % 10 == 0 {
            record(&letters, "back", event).await;
        }
    }
    let kind = LetterFilter {
        kind: Some(KIND.into()),
        ..ALL
    };
    // In two goes, the second of which finds what the first has left.
    let first = letters.replay("back", &kind, 600, 100_000).await.unwrap();
    let second = letters.replay("back", &kind, 9_999, 100_000).await.unwrap();
    assert_eq!((first.replayed, second.replayed), (600, 500));
    eventually("all effects", async || ledger.applied() == 1_001).await;
    eventually("all deliveries", async || ledger.deliveries() == 1_201).await;
    assert_eq!(ledger.doubled(), 0);
    assert_eq!(letters.list("back", &ALL, 9).await.unwrap(), []);
    consuming.stop().await;
}

#[tokio::test]
async fn what_is_no_event_is_not_replayed() {
    let config = config();
    let bus = bus(&config);
    let _queues = bus.subscribe(subscription("a", 1)).await.unwrap();
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&config.url, properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let queue = format!("{}.a.dead", config.exchange);
    let (options, none) = Default::default();
    let sent = channel
        .basic_publish("".into(), queue.into(), options, b"?", none)
        .await;
    sent.unwrap().await.unwrap();
    let letters = bus.dead_letters();
    eventually("a letter", async || {
        letters.list("a", &ALL, 1).await.unwrap().len() == 1
    })
    .await;
    let replayed = letters.replay("a", &ALL, 9, 1_000).await.unwrap();
    assert_eq!(
        replayed,
        Replayed {
            replayed: 0,
            malformed: 1
        }
    );
    let letter = letters.list("a", &ALL, 9).await.unwrap().remove(0);
    assert_eq!(
        (letter.message_id.as_str(), letter.reason.as_str()),
        ("", "unknown")
    );
    assert_eq!(letters.drop("a", &ALL, 9).await.unwrap(), 1);
}
