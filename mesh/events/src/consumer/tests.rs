//! One consumer and what can happen to an event: handled, refused, repeated, put off, given up. A list of cases over the
//! same few helpers, kept together so that a reader sees whether a case is there.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use prometheus::{Registry, proto::MetricFamily};
use tokio::{sync::Notify, task::JoinHandle};

use super::*;
use crate::{
    InMemoryBus, PublishError,
    testing::{Ledger, Letters, clock, consumer, event, eventually, number, start},
};

/// A handler whose outcome is a function of the event's number and how often it was seen.
struct Scripted {
    seen: Mutex<Vec<(i64, Instant)>>,
    outcome: fn(i64, usize) -> Result<(), HandlerError>,
}

impl Scripted {
    fn new(outcome: fn(i64, usize) -> Result<(), HandlerError>) -> Arc<Scripted> {
        Arc::new(Scripted {
            seen: Mutex::default(),
            outcome,
        })
    }

    fn times(&self, number: i64) -> Vec<Instant> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|(seen, _)| *seen == number)
            .map(|(_, at)| *at)
            .collect()
    }
}

#[async_trait]
impl Handler for Scripted {
    async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        self.seen
            .lock()
            .unwrap()
            .push((number(event), Instant::now()));
        (self.outcome)(number(event), self.times(number(event)).len())
    }
}

fn publish(bus: &InMemoryBus, events: Vec<Event>) -> JoinHandle<Vec<Result<(), PublishError>>> {
    let bus = bus.clone();
    mesh::spawn(async move { bus.publish(&events).await })
}

/// Lets the consumer that was just started subscribe.
async fn subscribed() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn poison_goes_to_the_dead_letters_at_once_and_blocks_nobody() {
    let (bus, letters) = (InMemoryBus::new(), Arc::new(Letters::default()));
    let handler = Scripted::new(|number, _| match number {
        3 => Err(HandlerError::Poison("body does not parse".into())),
        _ => Ok(()),
    });
    let begin = Instant::now();
    let one = start(consumer(
        "one",
        Arc::new(bus.clone()),
        handler.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    let events: Vec<_> = (0..20).map(event).collect();
    let results = publish(&bus, events.clone()).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(
        begin.elapsed() < Duration::from_millis(50),
        "{:?}",
        begin.elapsed()
    );
    let recorded = letters.recorded.lock().unwrap().clone();
    let letter = DeadLetter {
        consumer: "one".into(),
        event: events[3].clone(),
        reason: "body does not parse".into(),
        attempts: 1,
        dead_at_us: recorded[0].dead_at_us,
    };
    assert_eq!(recorded, [letter]);
    assert_eq!(handler.times(3).len(), 1);
    one.stop().await;
}

/// Prometheus sees a counter rise only if it was there before.
#[tokio::test(start_paused = true)]
async fn every_outcome_is_counted_from_zero() {
    let (bus, letters) = (InMemoryBus::new(), Arc::new(Letters::default()));
    let handler = Scripted::new(|_, _| Err(HandlerError::Poison("body does not parse".into())));
    let one = consumer("one", Arc::new(bus.clone()), handler, &letters, &clock());
    let registry = Registry::new();
    let counted = one.metrics.consumer_handled.clone();
    registry.register(Box::new(counted)).unwrap();
    let counts = || {
        let families = registry.gather();
        let metrics = families.iter().flat_map(MetricFamily::get_metric);
        let counts = metrics.map(|metric| metric.get_counter().get_value());
        counts.collect::<Vec<_>>()
    };
    let one = start(one);
    subscribed().await;
    assert_eq!(counts(), [0.0, 0.0, 0.0]);
    publish(&bus, vec![event(1)]).await.unwrap();
    bus.idle().await;
    assert_eq!(counts(), [0.0, 1.0, 0.0], "applied, dead_letter, retried");
    one.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_go_better_is_tried_again_with_growing_waits() {
    let (bus, letters) = (InMemoryBus::new(), Arc::new(Letters::default()));
    let handler = Scripted::new(|_, seen| match seen {
        1..=4 => Err(HandlerError::transient("database is locked")),
        _ => Ok(()),
    });
    let one = start(consumer(
        "one",
        Arc::new(bus.clone()),
        handler.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    publish(&bus, vec![event(1)]);
    eventually("handled", || handler.times(1).len() == 5).await;
    bus.idle().await;
    let waits: Vec<_> = handler
        .times(1)
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).as_millis())
        .collect();
    let close = waits
        .iter()
        .zip([100, 200, 400, 800])
        .all(|(wait, want)| wait.abs_diff(want) < 3);
    assert!(close, "{waits:?}");
    assert!(letters.recorded.lock().unwrap().is_empty());
    one.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_an_event_is_a_dead_letter_with_every_cause() {
    let (bus, letters) = (InMemoryBus::new(), Arc::new(Letters::default()));
    let handler = Scripted::new(|_, _| {
        Err(HandlerError::transient(HandlerError::transient(
            "disk is full",
        )))
    });
    let config = ConsumerConfig {
        attempts_max: 3,
        backoff_jitter: 0.0,
        ..ConsumerConfig::default()
    };
    let one = consumer(
        "one",
        Arc::new(bus.clone()),
        handler.clone(),
        &letters,
        &clock(),
    );
    let one = start(Consumer { config, ..one });
    subscribed().await;
    publish(&bus, vec![event(1)]);
    eventually("given up", || !letters.recorded.lock().unwrap().is_empty()).await;
    bus.idle().await;
    let letter = letters.recorded.lock().unwrap()[0].clone();
    assert_eq!(letter.attempts, 3);
    assert_eq!(
        letter.reason,
        "the event could not be applied now: disk is full"
    );
    assert_eq!(handler.times(1).len(), 3);
    one.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_attempt() {
    let (bus, letters) = (InMemoryBus::new(), Arc::new(Letters::default()));
    let handler = Scripted::new(|number, seen| {
        assert!(number != 1 || seen > 1, "index out of bounds");
        Ok(())
    });
    let one = start(consumer(
        "one",
        Arc::new(bus.clone()),
        handler.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    let results = publish(&bus, vec![event(1), event(2)]).await.unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!((handler.times(1).len(), handler.times(2).len()), (2, 1));
    one.stop().await;
}

/// Never finishes while shut.
#[derive(Default)]
struct Gate {
    open: AtomicBool,
    opened: Notify,
    inside: AtomicUsize,
    inside_max: AtomicUsize,
    entered: AtomicUsize,
}

#[async_trait]
impl Handler for Gate {
    async fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        self.entered.fetch_add(1, Ordering::Relaxed);
        let inside = self.inside.fetch_add(1, Ordering::Relaxed) + 1;
        self.inside_max.fetch_max(inside, Ordering::Relaxed);
        if !self.open.load(Ordering::Relaxed) {
            self.opened.notified().await;
        }
        self.inside.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_a_failed_attempt() {
    let (bus, letters, gate) = (
        InMemoryBus::new(),
        Arc::default(),
        Arc::new(Gate::default()),
    );
    let one = start(consumer(
        "one",
        Arc::new(bus.clone()),
        gate.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    let begin = Instant::now();
    publish(&bus, vec![event(1)]);
    eventually("tried again", || gate.entered.load(Ordering::Relaxed) == 2).await;
    let waited = begin.elapsed().as_millis();
    assert!((30_100..30_110).contains(&waited), "{waited} ms");
    gate.open.store(true, Ordering::Relaxed);
    gate.opened.notify_waiters();
    bus.idle().await;
    one.stop().await;
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_bounded() {
    let (bus, letters, gate) = (
        InMemoryBus::new(),
        Arc::default(),
        Arc::new(Gate::default()),
    );
    let one = start(consumer(
        "one",
        Arc::new(bus.clone()),
        gate.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    publish(&bus, (0..50).map(event).collect());
    eventually("as many as allowed", || {
        gate.inside.load(Ordering::Relaxed) == 8
    })
    .await;
    gate.open.store(true, Ordering::Relaxed);
    gate.opened.notify_waiters();
    bus.idle().await;
    assert_eq!(gate.entered.load(Ordering::Relaxed), 50);
    assert_eq!(gate.inside_max.load(Ordering::Relaxed), 8);
    one.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_in_the_middle_of_a_delivery_delivers_it_again() {
    let (bus, letters, gate) = (
        InMemoryBus::new(),
        Arc::default(),
        Arc::new(Gate::default()),
    );
    let shared: Arc<dyn Bus> = Arc::new(bus.clone());
    let first = start(consumer(
        "one",
        shared.clone(),
        gate.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    publish(&bus, vec![event(1)]);
    eventually("in the handler", || {
        gate.entered.load(Ordering::Relaxed) == 1
    })
    .await;
    let ledger = Arc::new(Ledger::default());
    let second = start(consumer("one", shared, ledger.clone(), &letters, &clock()));
    let begin = Instant::now();
    first.stop().await;
    assert_eq!(
        begin.elapsed(),
        Duration::from_secs(10),
        "the handler had its time to finish"
    );
    eventually("delivered again", || ledger.effects() == [(1, 1)]).await;
    bus.idle().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_a_handler_finish() {
    let (bus, letters, gate) = (
        InMemoryBus::new(),
        Arc::default(),
        Arc::new(Gate::default()),
    );
    let one = start(consumer(
        "one",
        Arc::new(bus.clone()),
        gate.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    let published = publish(&bus, vec![event(1)]);
    eventually("in the handler", || {
        gate.entered.load(Ordering::Relaxed) == 1
    })
    .await;
    let stopping = mesh::spawn(one.stop());
    tokio::task::yield_now().await;
    gate.opened.notify_waiters();
    stopping.await.unwrap();
    assert_eq!(published.await.unwrap(), [Ok(())]);
}

/// Fails as often as told, then records.
struct Forgetful {
    failures: AtomicUsize,
    letters: Letters,
}

#[async_trait]
impl DeadLetters for Forgetful {
    async fn record(&self, letter: DeadLetter) -> Result<(), BoxError> {
        if self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
            .is_ok()
        {
            return Err("disk is full".into());
        }
        self.letters.record(letter).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_stays_until_its_dead_letter_is_recorded() {
    let bus = InMemoryBus::new();
    let forgetful = Arc::new(Forgetful {
        failures: AtomicUsize::new(5),
        letters: Letters::default(),
    });
    let handler = Scripted::new(|_, _| Err(HandlerError::Poison("unknown product".into())));
    let one = consumer(
        "one",
        Arc::new(bus.clone()),
        handler.clone(),
        &Arc::default(),
        &clock(),
    );
    let one = start(Consumer {
        dead_letters: forgetful.clone(),
        ..one
    });
    subscribed().await;
    publish(&bus, vec![event(1)]);
    eventually("recorded", || {
        forgetful.letters.recorded.lock().unwrap().len() == 1
    })
    .await;
    bus.idle().await;
    assert_eq!(handler.times(1).len(), 6);
    one.stop().await;
}

/// Remembers the context that the handler ran in.
#[derive(Default)]
struct Witness(Mutex<Vec<(String, String)>>);

#[async_trait]
impl Handler for Witness {
    async fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        let context = CallContext::current();
        let principal = context.principal().name().to_owned();
        self.0.lock().unwrap().push((principal, context.trace_id()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_continues_the_trace_of_the_event_as_its_consumer() {
    let (bus, letters, witness) = (
        InMemoryBus::new(),
        Arc::default(),
        Arc::new(Witness::default()),
    );
    let one = start(consumer(
        "one",
        Arc::new(bus.clone()),
        witness.clone(),
        &letters,
        &clock(),
    ));
    subscribed().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = event(1).with_traceparent(format!("00-{trace}-b7ad6b7169203331-01"));
    publish(&bus, vec![traced, event(2)]).await.unwrap();
    let seen = witness.0.lock().unwrap().clone();
    assert_eq!(seen[0], ("one".to_owned(), trace.to_owned()));
    assert_eq!(seen[1].0, "one");
    assert_ne!(seen[1].1, trace);
    one.stop().await;
}

/// Ends the subscription before each of the first deliveries.
struct Unsteady {
    bus: InMemoryBus,
    losses: AtomicUsize,
    end: BusError,
}

struct Ended(BusError);

#[async_trait]
impl Deliveries for Ended {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        Err(self.0.clone())
    }
}

#[async_trait]
impl Bus for Unsteady {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>> {
        self.bus.publish(events).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
        let losses = self
            .losses
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        match losses {
            Ok(left) if left % 2 == 0 => Err(self.end.clone()),
            Ok(_) => Ok(Box::new(Ended(self.end.clone()))),
            Err(_) => self.bus.subscribe(subscription).await,
        }
    }
}

/// How many milliseconds pass before an event is taken through a bus that ends the first four subscriptions.
async fn waited_through(end: BusError) -> u128 {
    let (bus, letters) = (InMemoryBus::new(), Arc::default());
    let unsteady = Arc::new(Unsteady {
        bus: bus.clone(),
        losses: AtomicUsize::new(4),
        end,
    });
    let ledger = Arc::new(Ledger::default());
    let begin = Instant::now();
    let one = start(consumer(
        "one",
        unsteady,
        ledger.clone(),
        &letters,
        &clock(),
    ));
    let mandatory = event(1);
    while bus.publish(std::slice::from_ref(&mandatory)).await != [Ok(())] {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let waited = begin.elapsed().as_millis();
    assert_eq!(ledger.effects(), [(1, 1)]);
    one.stop().await;
    waited
}

#[tokio::test(start_paused = true)]
async fn a_lost_subscription_is_made_again_with_growing_waits() {
    let waited = waited_through(BusError::Lost("connection reset".into())).await;
    assert!(
        (1_500..1_510).contains(&waited),
        "0.1 + 0.2 + 0.4 + 0.8 s, not {waited} ms"
    );
}

#[tokio::test(start_paused = true)]
async fn a_quiet_subscription_is_made_again_at_once() {
    let waited = waited_through(BusError::Quiet).await;
    assert!(waited < 10, "{waited} ms");
}
