//! What the tests of this crate share: an outbox in memory, a handler with an inbox, dead letters in
//! memory. The clock is tokio's paused one throughout.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    BoxError, Bus, Consumer, ConsumerConfig, DeadLetter, DeadLetters, Event, Handler, HandlerError,
    Metrics, Now, Outbox, OutboxError, OutboxLag, Relay, RelayConfig,
};

pub(crate) const KIND: &str = "test.Happened.v1";

/// Microseconds since the test began.
pub(crate) fn clock() -> Now {
    let start = Instant::now();
    Arc::new(move || i64::try_from(start.elapsed().as_micros()).expect("tests are short"))
}

pub(crate) fn event(number: i64) -> Event {
    Event::new(
        KIND,
        format!("agg_{number}"),
        1,
        number,
        number.to_be_bytes().to_vec(),
    )
}

pub(crate) fn number(event: &Event) -> i64 {
    i64::from_be_bytes(
        event
            .body
            .as_ref()
            .try_into()
            .expect("a body of eight bytes"),
    )
}

/// Waits in virtual time until something holds; fails after ten minutes of it.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = timeout(Duration::from_mins(10), waiting).await;
    assert!(waited.is_ok(), "never: {what}");
}

#[derive(Default)]
pub(crate) struct MemoryOutbox {
    rows: Mutex<BTreeMap<Uuid, Row>>,
}

struct Row {
    event: Event,
    due_at_us: i64,
    leased_until_us: i64,
}

impl MemoryOutbox {
    pub(crate) fn append(&self, event: Event) {
        let row = Row {
            due_at_us: 0,
            leased_until_us: 0,
            event,
        };
        self.rows.lock().unwrap().insert(row.event.message_id, row);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.lock().unwrap().is_empty()
    }

    pub(crate) fn pending(&self) -> Vec<i64> {
        let mut pending: Vec<_> = self
            .rows
            .lock()
            .unwrap()
            .values()
            .map(|row| number(&row.event))
            .collect();
        pending.sort_unstable();
        pending
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
        let mut rows = self.rows.lock().unwrap();
        let due = rows
            .values_mut()
            .filter(|row| row.due_at_us <= now_us && row.leased_until_us <= now_us);
        Ok(due
            .take(limit)
            .map(|row| {
                row.leased_until_us = now_us + lease_us;
                row.event.clone()
            })
            .collect())
    }

    async fn published(&self, ids: &[Uuid]) -> Result<(), OutboxError> {
        self.rows.lock().unwrap().retain(|id, _| !ids.contains(id));
        Ok(())
    }

    async fn defer(&self, ids: &[Uuid], due_at_us: i64) -> Result<(), OutboxError> {
        for (_, row) in self
            .rows
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|(id, _)| ids.contains(id))
        {
            row.due_at_us = due_at_us;
            row.leased_until_us = 0;
        }
        Ok(())
    }

    async fn lag(&self, now_us: i64) -> Result<OutboxLag, OutboxError> {
        let rows = self.rows.lock().unwrap();
        let oldest_us = rows
            .values()
            .map(|row| row.event.occurred_at_us)
            .min()
            .unwrap_or(now_us);
        Ok(OutboxLag {
            pending: rows.len() as u64,
            oldest_age_us: now_us - oldest_us,
        })
    }
}

/// A handler with an inbox: counts deliveries and effects of each event, and fails on demand.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) state: Mutex<LedgerState>,
}

#[derive(Default)]
pub(crate) struct LedgerState {
    pub(crate) delivered: Vec<(i64, Instant)>,
    pub(crate) effects: HashMap<i64, u32>,
    inbox: HashSet<Uuid>,
}

impl Ledger {
    pub(crate) fn effects(&self) -> Vec<(i64, u32)> {
        let state = self.state.lock().unwrap();
        let mut effects: Vec<_> = state
            .effects
            .iter()
            .map(|(n, count)| (*n, *count))
            .collect();
        effects.sort_unstable();
        effects
    }

    pub(crate) fn deliveries(&self) -> usize {
        self.state.lock().unwrap().delivered.len()
    }
}

#[async_trait]
impl Handler for Ledger {
    async fn handle(&self, event: &Event) -> Result<(), HandlerError> {
        let mut state = self.state.lock().unwrap();
        state.delivered.push((number(event), Instant::now()));
        if state.inbox.insert(event.message_id) {
            *state.effects.entry(number(event)).or_default() += 1;
        }
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Letters {
    pub(crate) recorded: Mutex<Vec<DeadLetter>>,
}

#[async_trait]
impl DeadLetters for Letters {
    async fn record(&self, letter: DeadLetter) -> Result<(), BoxError> {
        self.recorded.lock().unwrap().push(letter);
        Ok(())
    }
}

/// A task of the test and how to stop it.
pub(crate) struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("runs to its end");
    }

    pub(crate) fn kill(self) {
        self.task.abort();
    }
}

pub(crate) fn start(run: impl Runnable) -> Running {
    let shutdown = CancellationToken::new();
    let task = mesh::spawn(run.run_until(shutdown.clone()));
    Running { shutdown, task }
}

/// What can be started: relays and consumers.
pub(crate) trait Runnable {
    fn run_until(self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static;
}

impl Runnable for Relay {
    fn run_until(self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        self.run(shutdown)
    }
}

impl Runnable for Consumer {
    fn run_until(self, shutdown: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        self.run(shutdown)
    }
}

pub(crate) fn relay(outbox: &Arc<MemoryOutbox>, bus: Arc<dyn Bus>, now: &Now) -> Relay {
    Relay {
        name: "test".into(),
        outbox: outbox.clone(),
        bus,
        config: RelayConfig {
            backoff_jitter: 0.0,
            ..RelayConfig::default()
        },
        now: now.clone(),
        wake: Arc::new(Notify::new()),
        metrics: Metrics::unregistered().expect("names are valid"),
    }
}

pub(crate) fn consumer(
    name: &str,
    bus: Arc<dyn Bus>,
    handler: Arc<dyn Handler>,
    dead_letters: &Arc<Letters>,
    now: &Now,
) -> Consumer {
    Consumer {
        name: name.into(),
        kinds: vec![KIND.into()],
        bus,
        handler,
        dead_letters: dead_letters.clone(),
        config: ConsumerConfig {
            backoff_jitter: 0.0,
            ..ConsumerConfig::default()
        },
        now: now.clone(),
        metrics: Metrics::unregistered().expect("names are valid"),
    }
}
