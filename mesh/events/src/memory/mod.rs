//! The bus of a single process. It holds nothing that matters: a publish is confirmed only after
//! every subscribed consumer has settled the event, so until then the event is in the outbox too and
//! a kill at any instant loses nothing.
//!
//! Differences to a broker, on purpose: a queue lives only as long as somebody is subscribed to it
//! (an event that is not mandatory and finds no queue is gone), and publishing what is still in a
//! queue joins it instead of adding another copy, so that a slow consumer does not fill the memory.

mod queue;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep_until, timeout_at},
};

use self::queue::{Copy, Fate, Queue, QueueRef, State};
use crate::{
    Bus, BusError, Deliveries, Delivery, Event, Faults, PublishError, Settle, Subscription,
    faults::Dice,
};

/// The limits of an [`InMemoryBus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InMemoryBusConfig {
    /// Events in one queue, delivered and delayed ones included; more are refused.
    pub queue_max: usize,
    /// How long a publish waits for consumers before it calls an event unconfirmed, in milliseconds.
    /// Well below the relay's own timeout, so that one slow event does not hold up its window.
    pub confirm_ms: u64,
}

impl Default for InMemoryBusConfig {
    fn default() -> InMemoryBusConfig {
        InMemoryBusConfig {
            queue_max: 10_000,
            confirm_ms: 1_000,
        }
    }
}

/// Carries events between tasks of one process. Clones are the same bus.
#[derive(Clone, Debug)]
pub struct InMemoryBus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: InMemoryBusConfig,
    state: Mutex<State>,
    emptied: Notify,
}

impl Default for InMemoryBus {
    fn default() -> InMemoryBus {
        InMemoryBus::new()
    }
}

impl InMemoryBus {
    /// A bus that works, with the default limits.
    pub fn new() -> InMemoryBus {
        InMemoryBus::with_config(InMemoryBusConfig::default(), Faults::default())
    }

    /// A bus that loses, duplicates, delays and reorders, for tests.
    pub fn with_faults(faults: Faults) -> InMemoryBus {
        InMemoryBus::with_config(InMemoryBusConfig::default(), faults)
    }

    /// A bus with limits and faults of one's own.
    pub fn with_config(config: InMemoryBusConfig, faults: Faults) -> InMemoryBus {
        let state = State::new(Dice::new(faults));
        let shared = Shared {
            config,
            state: Mutex::new(state),
            emptied: Notify::new(),
        };
        InMemoryBus {
            shared: Arc::new(shared),
        }
    }

    /// Deliveries that wait in queues, are delayed, or are not settled yet.
    pub fn in_flight(&self) -> usize {
        self.shared.lock().in_flight()
    }

    /// Waits until nothing is in flight. What an outbox still holds is not in flight yet: look at its
    /// lag first.
    pub async fn idle(&self) {
        loop {
            let emptied = self.shared.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable(); // From here on no wake-up is missed.
            if self.in_flight() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

#[async_trait]
impl Bus for InMemoryBus {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>> {
        let fates = {
            let mut state = self.shared.lock();
            let queue_max = self.shared.config.queue_max;
            events
                .iter()
                .map(|event| state.put(event, queue_max))
                .collect::<Vec<_>>()
        };
        let deadline = Instant::now() + Duration::from_millis(self.shared.config.confirm_ms);
        let mut results = Vec::with_capacity(fates.len());
        for fate in fates {
            results.push(match fate {
                Fate::Known(result) => result,
                Fate::Waiting {
                    settled,
                    confirm_lost,
                } => confirm(settled, confirm_lost, deadline).await,
            });
        }
        results
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
        let Subscription {
            consumer,
            kinds,
            prefetch,
        } = subscription;
        if consumer.is_empty() {
            return Err(BusError::Invalid("consumer is empty".into()));
        }
        if kinds.is_empty() {
            return Err(BusError::Invalid(format!(
                "consumer \"{consumer}\": kinds is empty"
            )));
        }
        if prefetch == 0 {
            return Err(BusError::Invalid(format!(
                "consumer \"{consumer}\": prefetch is 0"
            )));
        }
        let (queue, changed) = self.shared.lock().join(consumer, kinds);
        Ok(Box::new(MemoryDeliveries {
            shared: self.shared.clone(),
            queue,
            changed,
            prefetch: Arc::new(Semaphore::new(prefetch)),
        }))
    }
}

async fn confirm(
    settled: Vec<watch::Receiver<bool>>,
    confirm_lost: bool,
    deadline: Instant,
) -> Result<(), PublishError> {
    for mut settled in settled {
        match timeout_at(deadline, settled.wait_for(|settled| *settled)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(PublishError::Unconfirmed("a consumer went away".into())),
            Err(_) => return Err(PublishError::Unconfirmed("a consumer is not done".into())),
        }
    }
    if confirm_lost {
        return Err(PublishError::Unconfirmed("the confirm was lost".into()));
    }
    Ok(())
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while holding the lock")
    }

    /// Changes a queue, unless it is gone, and tells those who wait for nothing to be in flight.
    fn change(&self, queue: &QueueRef, change: impl FnOnce(&mut Queue)) {
        let mut state = self.lock();
        if let Some(queue) = state.queue(queue) {
            change(queue);
        }
        self.tell_if_idle(&state);
    }

    fn tell_if_idle(&self, state: &State) {
        if state.in_flight() == 0 {
            self.emptied.notify_waiters();
        }
    }
}

struct MemoryDeliveries {
    shared: Arc<Shared>,
    queue: QueueRef,
    changed: Arc<Notify>,
    prefetch: Arc<Semaphore>,
}

#[async_trait]
impl Deliveries for MemoryDeliveries {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        let permit = self
            .prefetch
            .clone()
            .acquire_owned()
            .await
            .expect("never closed");
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // From here on no wake-up is missed.
            let taken = match self.shared.lock().queue(&self.queue) {
                Some(queue) => queue.take(),
                None => return Err(BusError::Lost("the queue is gone".into())),
            };
            match taken {
                Ok((event, copy)) => {
                    let attempt = copy.attempt;
                    let settle = MemorySettle {
                        shared: self.shared.clone(),
                        queue: self.queue.clone(),
                        copy: Some(copy),
                        _permit: permit,
                    };
                    return Ok(Delivery::new(event, attempt, Box::new(settle)));
                }
                Err(None) => changed.await,
                Err(Some(due)) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }
}

impl Drop for MemoryDeliveries {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.leave(&self.queue);
        self.shared.tell_if_idle(&state);
    }
}

struct MemorySettle {
    shared: Arc<Shared>,
    queue: QueueRef,
    copy: Option<Copy>,
    _permit: OwnedSemaphorePermit,
}

impl MemorySettle {
    fn finish(mut self) {
        if self.shared.lock().acknowledgement_lost() {
            return; // Dropping it delivers again, as a broker does that lost the acknowledgement.
        }
        if let Some(copy) = self.copy.take() {
            self.shared
                .change(&self.queue, |queue| queue.settle(copy.message_id));
        }
    }
}

#[async_trait]
impl Settle for MemorySettle {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.finish();
        Ok(())
    }

    async fn retry(mut self: Box<Self>, after: Duration) -> Result<(), BusError> {
        if let Some(copy) = self.copy.take() {
            let again = Copy {
                attempt: copy.attempt.saturating_add(1),
                ..copy
            };
            self.shared
                .change(&self.queue, |queue| queue.put_later(again, after));
        }
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, _reason: &str) -> Result<(), BusError> {
        self.finish();
        Ok(())
    }
}

impl Drop for MemorySettle {
    fn drop(&mut self) {
        if let Some(copy) = self.copy.take() {
            self.shared
                .change(&self.queue, |queue| queue.put_back(copy));
        }
    }
}
