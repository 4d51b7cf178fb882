//! What these tests share: a configuration with an exchange of its own, an outbox in memory, a handler
//! with an inbox, and waiting with a limit.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use mesh_events::{
    Bus as _, Consumer, ConsumerConfig, Deliveries, Delivery, Event, Handler, HandlerError,
    Metrics as EventMetrics, Now, Outbox, OutboxError, OutboxLag, Relay, RelayConfig, Subscription,
};
use mesh_rabbitmq::{Metrics, RabbitMqBus, RabbitMqConfig};
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const KIND: &str = "test.Happened.v1";
/// No queue of any test wants it.
pub(crate) const UNWANTED: &str = "test.Ignored.v1";

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_mins(1);

/// The broker of all tests, with an exchange that no other test uses.
pub(crate) fn config() -> RabbitMqConfig {
    let url = std::env::var_os("SHOP_RABBITMQ")
        .expect("SHOP_RABBITMQ is not set: run `cargo xtask test`, or `cargo xtask servers`");
    config_at(&url.to_string_lossy())
}

pub(crate) fn config_at(url: &str) -> RabbitMqConfig {
    RabbitMqConfig {
        url: url.replace("guest:guest@", ""), // The default credentials.
        exchange: format!("test-{:016x}", rand::random::<u64>()),
        retry_ladder_ms: vec![100, 400],
        ..RabbitMqConfig::default()
    }
}

pub(crate) fn bus(config: &RabbitMqConfig) -> RabbitMqBus {
    let metrics = Metrics::unregistered().unwrap();
    RabbitMqBus::start(config.clone(), "test", metrics).unwrap()
}

pub(crate) fn event(number: i64) -> Event {
    Event::new(
        KIND,
        format!("agg_{number}"),
        number,
        number,
        number.to_be_bytes().to_vec(),
    )
}

pub(crate) fn events(numbers: std::ops::Range<i64>) -> Vec<Event> {
    numbers.map(event).collect()
}

pub(crate) fn subscription(consumer: &str, prefetch: usize) -> Subscription {
    Subscription {
        consumer: consumer.into(),
        kinds: vec![KIND.into()],
        prefetch,
    }
}

pub(crate) async fn subscribe(bus: &RabbitMqBus, consumer: &str) -> Box<dyn Deliveries> {
    bus.subscribe(subscription(consumer, 16)).await.unwrap()
}

pub(crate) async fn next(deliveries: &mut Box<dyn Deliveries>) -> Delivery {
    timeout(PATIENCE, deliveries.next()).await.unwrap().unwrap()
}

/// Whether nothing arrives; waits longer than the ladder is long.
pub(crate) async fn nothing_arrives(deliveries: &mut Box<dyn Deliveries>) -> bool {
    timeout(Duration::from_millis(600), deliveries.next())
        .await
        .is_err()
}

/// Publishes all of them or fails.
pub(crate) async fn publish(bus: &RabbitMqBus, events: &[Event]) {
    for window in events.chunks(250) {
        for published in bus.publish(window).await {
            published.unwrap();
        }
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "never: {what}");
}

/// Microseconds since the test began.
fn clock() -> Now {
    let start = Instant::now();
    Arc::new(move || i64::try_from(start.elapsed().as_micros()).unwrap())
}

/// Outbox rows with the time at which each is due again.
#[derive(Default)]
pub(crate) struct MemoryOutbox(Mutex<BTreeMap<Uuid, (Event, i64)>>);

impl MemoryOutbox {
    pub(crate) fn append(&self, events: impl IntoIterator<Item = Event>) {
        let rows = events
            .into_iter()
            .map(|event| (event.message_id, (event, 0)));
        self.0.lock().unwrap().extend(rows);
    }

    pub(crate) fn pending(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[async_trait]
impl Outbox for MemoryOutbox {
    async fn lease(
        &self,
        limit: usize,
        lease_us: i64,
        now_us: i64,
    ) -> Result<Vec<Event>, OutboxError> {
        let mut rows = self.0.lock().unwrap();
        let due = rows.values_mut().filter(|(_, due_us)| *due_us <= now_us);
        let leased = due.take(limit).map(|(event, due_us)| {
            *due_us = now_us + lease_us;
            event.clone()
        });
        Ok(leased.collect())
    }

    async fn published(&self, ids: &[Uuid]) -> Result<(), OutboxError> {
        let mut rows = self.0.lock().unwrap();
        for id in ids {
            rows.remove(id);
        }
        Ok(())
    }

    async fn defer(&self, ids: &[Uuid], due_at_us: i64) -> Result<(), OutboxError> {
        let mut rows = self.0.lock().unwrap();
        for id in ids {
            if let Some((_, due_us)) = rows.get_mut(id) {
                *due_us = due_at_us;
            }
        }
        Ok(())
    }

    async fn lag(&self, _: i64) -> Result<OutboxLag, OutboxError> {
        let pending = self.pending() as u64;
        Ok(OutboxLag {
            pending,
            oldest_age_us: 0,
        })
    }
}

/// A handler with an inbox. Counts deliveries and effects; `poison` says what can never be applied.
pub(crate) struct Ledger {
    pub(crate) poison: fn(&Event) -> bool,
    state: Mutex<HashMap<Uuid, (u32, u32)>>,
}

impl Ledger {
    pub(crate) fn new(poison: fn(&Event) -> bool) -> Arc<Ledger> {
        let state = Mutex::default();
        Arc::new(Ledger { poison, state })
    }

    /// Events with an effect.
    pub(crate) fn applied(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.values().filter(|(_, effects)| *effects > 0).count()
    }

    /// Events with more than one effect.
    pub(crate) fn doubled(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.values().filter(|(_, effects)| *effects > 1).count()
    }

    pub(crate) fn deliveries(&self) -> u32 {
        self.state
            .lock()
            .unwrap()
            .values()
            .map(|(delivered, _)| delivered)
            .sum()
    }
}

#[async_trait]
impl Handler for Ledger {
    async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let mut state = self.state.lock().unwrap();
        let (delivered, effects) = state.entry(event.message_id).or_default();
        *delivered += 1;
        if (self.poison)(event) {
            return Err(HandlerError::Poison("odd".into()));
        }
        if *effects == 0 {
            *effects += 1;
        }
        Ok(())
    }
}

/// A relay or consumer of the test.
pub(crate) struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start<F: Future<Output = ()> + Send + 'static>(
        run: impl FnOnce(CancellationToken) -> F,
    ) -> Self {
        let shutdown = CancellationToken::new();
        let task = mesh::spawn(run(shutdown.clone()));
        Running { shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

pub(crate) fn relay(
    bus: &RabbitMqBus,
    outbox: &Arc<MemoryOutbox>,
    metrics: &EventMetrics,
) -> Running {
    let relay = Relay {
        name: "test".into(),
        outbox: outbox.clone(),
        bus: Arc::new(bus.clone()),
        config: RelayConfig {
            backoff_max_ms: 500,
            ..RelayConfig::default()
        },
        now: clock(),
        wake: Arc::new(Notify::new()),
        metrics: metrics.clone(),
    };
    Running::start(|shutdown| relay.run(shutdown))
}

pub(crate) fn consumer<H: Handler + 'static>(
    bus: &RabbitMqBus,
    name: &str,
    handler: &Arc<H>,
) -> Running {
    let consumer = Consumer {
        name: name.into(),
        kinds: vec![KIND.into()],
        bus: Arc::new(bus.clone()),
        handler: handler.clone(),
        dead_letters: Arc::new(bus.dead_letters()),
        config: ConsumerConfig {
            backoff_max_ms: 400,
            ..ConsumerConfig::default()
        },
        now: clock(),
        metrics: EventMetrics::unregistered().unwrap(),
    };
    Running::start(|shutdown| consumer.run(shutdown))
}
