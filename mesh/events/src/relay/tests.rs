use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use prometheus::Registry;

use super::*;
use crate::{
    BusError, Deliveries, Faults, InMemoryBus, Subscription,
    testing::{
        Ledger, Letters, MemoryOutbox, clock, consumer, event, eventually, number, relay, start,
    },
};

/// A bus that answers as told and writes down what it was given.
#[derive(Default)]
struct ScriptedBus {
    script: Mutex<VecDeque<Script>>,
    published: Mutex<Vec<i64>>,
    calls: AtomicUsize,
}

enum Script {
    Answer(fn(i64) -> Result<(), PublishError>),
    TooFew,
    Hang,
}

impl ScriptedBus {
    fn new(script: impl IntoIterator<Item = Script>) -> Arc<ScriptedBus> {
        let bus = ScriptedBus::default();
        bus.script.lock().unwrap().extend(script);
        Arc::new(bus)
    }

    fn published(&self) -> Vec<i64> {
        let mut published = self.published.lock().unwrap().clone();
        published.sort_unstable();
        published
    }
}

#[async_trait]
impl Bus for ScriptedBus {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let script = self.script.lock().unwrap().pop_front();
        let answer = match script {
            None => |_| Ok(()),
            Some(Script::Answer(answer)) => answer,
            Some(Script::TooFew) => return vec![Ok(())],
            Some(Script::Hang) => std::future::pending().await,
        };
        let mut published = self.published.lock().unwrap();
        events
            .iter()
            .map(|event| {
                let result = answer(number(event));
                published.extend(result.is_ok().then(|| number(event)));
                result
            })
            .collect()
    }

    async fn subscribe(&self, _: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
        unreachable!("relays do not subscribe")
    }
}

fn filled(events: i64) -> Arc<MemoryOutbox> {
    let outbox = Arc::new(MemoryOutbox::default());
    (0..events).for_each(|number| outbox.append(event(number)));
    outbox
}

#[tokio::test(start_paused = true)]
async fn lost_duplicated_delayed_and_reordered_events_have_one_effect_at_each_consumer() {
    for seed in 0..10 {
        let faults = Faults {
            lose: 0.25,
            duplicate: 0.25,
            delay: 0.25,
            reorder: 0.5,
            seed,
            ..Faults::default()
        };
        let bus = InMemoryBus::with_faults(faults);
        let shared: Arc<dyn Bus> = Arc::new(bus.clone());
        let (outbox, now, letters) = (filled(300), clock(), Arc::new(Letters::default()));
        let ledgers = [Arc::new(Ledger::default()), Arc::new(Ledger::default())];
        let consumers = ["one", "two"]
            .into_iter()
            .zip(&ledgers)
            .map(|(name, ledger)| {
                start(consumer(
                    name,
                    shared.clone(),
                    ledger.clone(),
                    &letters,
                    &now,
                ))
            });
        let mut running: Vec<_> = consumers.collect();
        running.push(start(relay(&outbox, shared.clone(), &now)));

        eventually("the outbox is empty", || outbox.is_empty()).await;
        bus.idle().await;
        for ledger in ledgers {
            assert_eq!(
                ledger.effects(),
                (0..300).map(|n| (n, 1)).collect::<Vec<_>>()
            );
            assert!(
                ledger.deliveries() > 330,
                "seed {seed}: the faults did not happen"
            );
        }
        assert!(letters.recorded.lock().unwrap().is_empty());
        for task in running {
            task.stop().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_confirmed_events_leave_the_outbox() {
    let bus = ScriptedBus::new([
        Script::Answer(|number| match number % 5 {
            0 => Ok(()),
            1 => Err(PublishError::Unroutable),
            2 => Err(PublishError::Refused("full".into())),
            3 => Err(PublishError::Unconfirmed("late".into())),
            _ => Err(PublishError::Unavailable("gone".into())),
        }),
        Script::TooFew,
        Script::Hang,
    ]);
    let outbox = filled(10);
    let relay = start(relay(&outbox, bus.clone(), &clock()));
    eventually("the first window is done", || outbox.pending().len() < 10).await;
    assert_eq!(outbox.pending(), [1, 2, 3, 4, 6, 7, 8, 9]);
    assert_eq!(bus.published(), [0, 5]);
    eventually("the rest follows", || outbox.is_empty()).await;
    // The one event that "too few answers" confirmed was not written down by the script.
    assert_eq!(bus.published().len(), 9);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn relays_that_share_an_outbox_publish_each_event_once() {
    let (bus, outbox, now) = (ScriptedBus::new([]), filled(2_000), clock());
    let relays = [(); 3].map(|()| start(relay(&outbox, bus.clone(), &now)));
    eventually("the outbox is empty", || outbox.is_empty()).await;
    for relay in relays {
        relay.stop().await;
    }
    assert_eq!(bus.published(), (0..2_000).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_relay_had_leased_is_published_by_another() {
    let (bus, outbox, now) = (ScriptedBus::new([Script::Hang]), filled(10), clock());
    let killed = start(relay(&outbox, bus.clone(), &now));
    eventually("the window is on its way", || {
        bus.calls.load(Ordering::Relaxed) == 1
    })
    .await;
    killed.kill();
    let begin = Instant::now();
    let other = start(relay(&outbox, bus.clone(), &now));
    eventually("the outbox is empty", || outbox.is_empty()).await;
    assert!(
        begin.elapsed() > Duration::from_secs(14),
        "took leased events: {:?}",
        begin.elapsed()
    );
    assert_eq!(bus.published(), (0..10).collect::<Vec<_>>());
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_bus_is_asked_less_and_less() {
    let down = || Script::Answer(|_| Err(PublishError::Unavailable("down".into())));
    let bus = ScriptedBus::new(std::iter::repeat_with(down).take(12));
    let outbox = filled(5);
    let begin = Instant::now();
    let relay = start(relay(&outbox, bus.clone(), &clock()));
    eventually("the bus is back", || outbox.is_empty()).await;
    // 0.1 + 0.2 + 0.4 + … + 6.4 s, then 10 s each.
    let waited = begin.elapsed().as_secs();
    assert!((60..65).contains(&waited), "waited {waited} s");
    assert_eq!(bus.calls.load(Ordering::Relaxed), 13);
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_mandatory_event_stays_until_a_consumer_subscribes() {
    let bus: Arc<dyn Bus> = Arc::new(InMemoryBus::new());
    let (outbox, now) = (filled(3), clock());
    outbox.append(event(3).optional());
    let relay = start(relay(&outbox, bus.clone(), &now));
    eventually("the optional one is gone", || outbox.pending() == [0, 1, 2]).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(outbox.pending(), [0, 1, 2]);
    let ledger = Arc::new(Ledger::default());
    let consumer = start(consumer("one", bus, ledger.clone(), &Arc::default(), &now));
    eventually("the outbox is empty", || outbox.is_empty()).await;
    assert_eq!(ledger.effects(), [(0, 1), (1, 1), (2, 1)]);
    relay.stop().await;
    consumer.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_publishes_at_once_and_polling_is_the_safety_net() {
    let (bus, outbox) = (ScriptedBus::new([]), filled(0));
    let relay = relay(&outbox, bus, &clock());
    let wake = relay.wake.clone();
    let relay = start(relay);
    tokio::time::sleep(Duration::from_millis(1_005)).await; // Between two polls.
    outbox.append(event(1));
    let begin = Instant::now();
    wake.notify_one();
    eventually("the outbox is empty", || outbox.is_empty()).await;
    assert!(
        begin.elapsed() <= Duration::from_millis(2),
        "woken: {:?}",
        begin.elapsed()
    );
    outbox.append(event(2)); // Nobody is told.
    let begin = Instant::now();
    eventually("the outbox is empty", || outbox.is_empty()).await;
    let waited = begin.elapsed().as_millis();
    assert!((10..=201).contains(&waited), "polled: {waited} ms");
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_writes_down_what_is_on_its_way() {
    let bus: Arc<dyn Bus> = Arc::new(InMemoryBus::new());
    let subscription = Subscription {
        consumer: "one".into(),
        kinds: vec![event(1).kind],
        prefetch: 10,
    };
    let mut deliveries = bus.subscribe(subscription).await.unwrap();
    let outbox = filled(1);
    let relay = start(relay(&outbox, bus, &clock()));
    let delivery = deliveries.next().await.unwrap();
    let stopping = mesh::spawn(relay.stop());
    tokio::task::yield_now().await;
    assert!(!stopping.is_finished());
    delivery.ack().await.unwrap();
    stopping.await.unwrap();
    assert!(outbox.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_no_queue_takes_is_tried_less_and_less_often() {
    let unroutable = || Script::Answer(|_| Err(PublishError::Unroutable));
    let bus = ScriptedBus::new((0..9).map(|_| unroutable()));
    let outbox = filled(1);
    let relay = start(relay(&outbox, bus.clone(), &clock()));
    let mut waits_s = Vec::new();
    for calls in 1..=10 {
        let before = Instant::now();
        eventually("it is tried", || bus.calls.load(Ordering::Relaxed) == calls).await;
        waits_s.push(before.elapsed().as_secs());
    }
    assert!(waits_s.is_sorted(), "{waits_s:?}");
    assert_eq!(waits_s[..3], [0, 1, 1], "at first as configured");
    assert_eq!(waits_s[8..], [30, 30], "and no less often than that");
    assert!(
        (60..120).contains(&waits_s[..9].iter().sum::<u64>()),
        "{waits_s:?}"
    );
    eventually("the outbox is empty", || outbox.is_empty()).await;
    relay.stop().await;
}

#[tokio::test(start_paused = true)]
async fn metrics_tell_how_far_publishing_is_behind() {
    let registry = Registry::new();
    let unroutable = || Script::Answer(|_| Err(PublishError::Unroutable));
    let (bus, outbox) = (ScriptedBus::new([unroutable(), unroutable()]), filled(4));
    let metrics = Metrics::register(&registry).unwrap();
    let relay = start(Relay {
        metrics: metrics.clone(),
        ..relay(&outbox, bus, &clock())
    });
    let value = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name)?;
        let metric = &family.get_metric()[0];
        Some(metric.get_gauge().get_value() + metric.get_counter().get_value())
    };
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(value("mesh_outbox_pending"), Some(4.0));
    let age = value("mesh_outbox_oldest_age_seconds").unwrap();
    assert!((0.99..1.1).contains(&age), "{age} s");
    eventually("the outbox is empty", || outbox.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(value("mesh_outbox_pending"), Some(0.0));
    assert_eq!(value("mesh_outbox_published_total"), Some(4.0));
    assert_eq!(value("mesh_outbox_failed_total"), Some(8.0));
    relay.stop().await;
}
