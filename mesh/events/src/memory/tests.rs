use std::{pin::pin, task::Poll};

use futures_util::poll;
use tokio::time::advance;

use super::*;
use crate::testing::{KIND, event};

fn subscription(consumer: &str) -> Subscription {
    Subscription {
        consumer: consumer.into(),
        kinds: vec![KIND.into()],
        prefetch: 10,
    }
}

async fn next(deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    deliveries.next().await.expect("subscribed")
}

#[tokio::test(start_paused = true)]
async fn a_confirm_waits_for_every_consumer() {
    let bus = InMemoryBus::new();
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    let mut two = bus.subscribe(subscription("two")).await.unwrap();
    let events = [event(1)];
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    assert_eq!(bus.in_flight(), 2);
    next(&mut one).await.ack().await.unwrap();
    assert!(
        poll!(&mut publish).is_pending(),
        "confirmed before the second consumer was done"
    );
    next(&mut two).await.dead_letter("poison").await.unwrap();
    assert_eq!(poll!(&mut publish), Poll::Ready(vec![Ok(())]));
    assert_eq!(bus.in_flight(), 0);
    bus.idle().await;
}

#[tokio::test]
async fn only_a_mandatory_event_needs_a_consumer() {
    let bus = InMemoryBus::new();
    let results = bus.publish(&[event(1), event(2).optional()]).await;
    assert_eq!(results, [Err(PublishError::Unroutable), Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_is_not_done_in_time_leaves_the_event_unconfirmed() {
    let bus = InMemoryBus::new();
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    let [result] = bus.publish(&[event(1)]).await.try_into().unwrap();
    assert!(
        matches!(result, Err(PublishError::Unconfirmed(_))),
        "{result:?}"
    );
    // Publishing it again joins the copy that is still there, and its settlement confirms both.
    let events = [event(1), event(2)];
    let first = next(&mut one).await;
    let again = [Event {
        message_id: first.event.message_id,
        ..events[0].clone()
    }];
    let mut publish = pin!(bus.publish(&again));
    assert!(poll!(&mut publish).is_pending());
    assert_eq!(bus.in_flight(), 1);
    first.ack().await.unwrap();
    assert_eq!(publish.await, [Ok(())]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_delivery_comes_again_at_once_with_the_same_attempt() {
    let bus = InMemoryBus::new();
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    let events = [event(1), event(2)];
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    let first = next(&mut one).await;
    assert_eq!((&first.event, first.attempt), (&events[0], 1));
    drop(first);
    let again = next(&mut one).await;
    assert_eq!((&again.event, again.attempt), (&events[0], 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_comes_after_its_wait_with_the_next_attempt_and_blocks_nobody() {
    let bus = InMemoryBus::new();
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    let events = [event(1), event(2)];
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    let begin = Instant::now();
    next(&mut one)
        .await
        .retry(Duration::from_millis(300))
        .await
        .unwrap();
    let other = next(&mut one).await;
    assert_eq!(
        (&other.event, begin.elapsed()),
        (&events[1], Duration::ZERO)
    );
    other.ack().await.unwrap();
    let again = next(&mut one).await;
    assert_eq!((&again.event, again.attempt), (&events[0], 2));
    assert!(
        (300..310).contains(&begin.elapsed().as_millis()),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn publishers_learn_that_the_last_subscriber_left() {
    let bus = InMemoryBus::new();
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    let replica = bus.subscribe(subscription("one")).await.unwrap();
    let events = [event(1)];
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    let held = next(&mut one).await;
    drop(replica);
    assert!(poll!(&mut publish).is_pending(), "one subscriber is left");
    drop(one);
    let Poll::Ready(results) = poll!(&mut publish) else {
        panic!("still waiting")
    };
    assert!(
        matches!(results[..], [Err(PublishError::Unconfirmed(_))]),
        "{results:?}"
    );
    // A settlement that comes too late reaches no later queue of the same name.
    let _new = bus.subscribe(subscription("one")).await.unwrap();
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    held.ack().await.unwrap();
    assert!(poll!(&mut publish).is_pending());
    assert_eq!(bus.in_flight(), 1);
}

#[tokio::test(start_paused = true)]
async fn replicas_share_a_queue() {
    let bus = InMemoryBus::new();
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    let mut replica = bus.subscribe(subscription("one")).await.unwrap();
    let events = [event(1), event(2)];
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    let (first, second) = (next(&mut one).await, next(&mut replica).await);
    assert_eq!((&first.event, &second.event), (&events[0], &events[1]));
    assert!(poll!(pin!(one.next())).is_pending(), "delivered to both");
}

#[tokio::test(start_paused = true)]
async fn prefetch_bounds_what_is_unsettled() {
    let bus = InMemoryBus::new();
    let two = Subscription {
        prefetch: 2,
        ..subscription("one")
    };
    let mut one = bus.subscribe(two).await.unwrap();
    let events = [event(1), event(2), event(3)];
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    let first = next(&mut one).await;
    let _second = next(&mut one).await;
    assert!(poll!(pin!(one.next())).is_pending());
    first.ack().await.unwrap();
    assert_eq!(next(&mut one).await.event, events[2]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_next_takes_nothing() {
    let bus = InMemoryBus::new();
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    for _ in 0..20 {
        assert!(poll!(pin!(one.next())).is_pending()); // Dropped while it waits.
    }
    let events = [event(1)];
    let mut publish = pin!(bus.publish(&events));
    assert!(poll!(&mut publish).is_pending());
    assert_eq!(next(&mut one).await.event, events[0]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses() {
    let config = InMemoryBusConfig {
        queue_max: 2,
        ..InMemoryBusConfig::default()
    };
    let bus = InMemoryBus::with_config(config, Faults::default());
    let _one = bus.subscribe(subscription("one")).await.unwrap();
    let results = bus.publish(&[event(1), event(2), event(3)]).await;
    assert!(
        matches!(results[1], Err(PublishError::Unconfirmed(_))),
        "{results:?}"
    );
    assert_eq!(
        results[2],
        Err(PublishError::Refused("the queue holds 2 events".into()))
    );
    assert_eq!(bus.in_flight(), 2);
}

#[tokio::test]
async fn senseless_subscriptions_are_refused_by_name() {
    let bus = InMemoryBus::new();
    for (subscription, message) in [
        (subscription(""), "invalid subscription: consumer is empty"),
        (
            Subscription {
                kinds: vec![],
                ..subscription("one")
            },
            "invalid subscription: consumer \"one\": kinds is empty",
        ),
        (
            Subscription {
                prefetch: 0,
                ..subscription("one")
            },
            "invalid subscription: consumer \"one\": prefetch is 0",
        ),
    ] {
        let error = bus.subscribe(subscription).await.err().expect("refused");
        assert_eq!(error.to_string(), message);
    }
}

/// What one consumer receives of 200 events on a bus with faults, and what the publisher is told.
async fn seen(faults: Faults) -> (Vec<i64>, usize) {
    let bus = InMemoryBus::with_faults(faults);
    let mut one = bus.subscribe(subscription("one")).await.unwrap();
    let events: Vec<_> = (0..200).map(event).collect();
    let mut publish = pin!(bus.publish(&events));
    let mut seen = Vec::new();
    let results = loop {
        if let Poll::Ready(results) = poll!(&mut publish) {
            break results;
        }
        while let Poll::Ready(delivery) = poll!(pin!(one.next())) {
            let delivery = delivery.unwrap();
            seen.push(crate::testing::number(&delivery.event));
            delivery.ack().await.unwrap();
        }
        advance(Duration::from_millis(10)).await;
    };
    (seen, results.iter().filter(|result| result.is_ok()).count())
}

#[tokio::test(start_paused = true)]
async fn each_fault_happens_and_repeats_by_seed() {
    let none = seen(Faults::default()).await;
    assert_eq!(none, ((0..200).collect(), 200));

    let lose = Faults {
        lose: 0.2,
        seed: 7,
        ..Faults::default()
    };
    let (lost, confirmed) = seen(lose).await;
    assert!(
        (80..180).contains(&confirmed),
        "{confirmed} of 200 confirmed"
    );
    assert!((0..200).any(|n| !lost.contains(&n)), "no event was lost");
    assert!(
        lost.windows(2).any(|pair| pair[0] == pair[1]),
        "no acknowledgement was lost"
    );
    assert_eq!(seen(lose).await, (lost.clone(), confirmed), "the same seed");
    assert_ne!(
        seen(Faults { seed: 8, ..lose }).await.0,
        lost,
        "another seed"
    );

    let (duplicated, confirmed) = seen(Faults {
        duplicate: 0.5,
        ..Faults::default()
    })
    .await;
    assert!(
        (250..350).contains(&duplicated.len()),
        "{}",
        duplicated.len()
    );
    assert_eq!(confirmed, 200);

    let delay_max = Duration::from_millis(500);
    let (delayed, _) = seen(Faults {
        delay: 0.5,
        delay_max,
        ..Faults::default()
    })
    .await;
    let (reordered, _) = seen(Faults {
        reorder: 0.5,
        ..Faults::default()
    })
    .await;
    for mut shuffled in [delayed, reordered] {
        assert!(!shuffled.is_sorted());
        shuffled.sort_unstable();
        assert_eq!(shuffled, (0..200).collect::<Vec<_>>());
    }
}
