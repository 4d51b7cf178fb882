//! Any bus, with deliveries that come twice or behind later ones: what every broker may do, as often as a test
//! asks for. Of [`Faults`] only `duplicate`, `reorder` and `seed` count here. Deliberately without losses: a
//! consumer cannot lose what the broker keeps until it is acknowledged.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::time::timeout;
use tracing::info;

use crate::{
    Bus, BusError, Deliveries, Delivery, Event, Faults, PublishError, Settle, Subscription,
    faults::Dice,
};

/// How long a delivery waits for one that overtakes it.
const OVERTAKEN_WITHIN: Duration = Duration::from_millis(100);

impl Faults {
    /// The same bus with these faults on its deliveries; without any, the bus itself.
    pub fn on(self, bus: Arc<dyn Bus>) -> Arc<dyn Bus> {
        if self.duplicate > 0.0 || self.reorder > 0.0 {
            Arc::new(UnrulyBus { bus, faults: self })
        } else {
            bus
        }
    }
}

struct UnrulyBus {
    bus: Arc<dyn Bus>,
    faults: Faults,
}

#[async_trait]
impl Bus for UnrulyBus {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>> {
        self.bus.publish(events).await
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
        Ok(Box::new(UnrulyDeliveries {
            deliveries: self.bus.subscribe(subscription).await?,
            dice: Dice::new(self.faults),
            ready: VecDeque::new(),
            overtaken: None,
        }))
    }
}

struct UnrulyDeliveries {
    deliveries: Box<dyn Deliveries>,
    dice: Dice,
    ready: VecDeque<Delivery>,
    /// Waits for another one to go first.
    overtaken: Option<Delivery>,
}

#[async_trait]
impl Deliveries for UnrulyDeliveries {
    /// What was taken is kept in `self` before anything is waited for, so nothing is lost by a dropped call.
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Ok(delivery);
            }
            if self.overtaken.is_none() {
                let delivery = self.deliveries.next().await?;
                if self.dice.overtaken() {
                    info!(message.id = %delivery.event.message_id, "delivery held back");
                    self.overtaken = Some(delivery);
                } else {
                    self.hand_over(delivery);
                }
                continue;
            }
            let overtaking = timeout(OVERTAKEN_WITHIN, self.deliveries.next()).await;
            if let Ok(delivery) = overtaking {
                let delivery = delivery?;
                self.hand_over(delivery);
            }
            let overtaken = self.overtaken.take();
            self.hand_over(overtaken.expect("only this call takes it"));
        }
    }
}

impl UnrulyDeliveries {
    fn hand_over(&mut self, delivery: Delivery) {
        if self.dice.copies() > 1 {
            info!(message.id = %delivery.event.message_id, "delivery doubled");
            let copy = Delivery::new(delivery.event.clone(), delivery.attempt, Box::new(Copy));
            self.ready.push_back(copy);
        }
        self.ready.push_back(delivery);
    }
}

/// Settles nothing: its original does.
struct Copy;

#[async_trait]
impl Settle for Copy {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        Ok(())
    }

    async fn retry(self: Box<Self>, _after: Duration) -> Result<(), BusError> {
        Ok(())
    }

    async fn dead_letter(self: Box<Self>, _reason: &str) -> Result<(), BusError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        InMemoryBus,
        testing::{KIND, event, number},
    };

    async fn delivered(faults: Faults, count: i64) -> (Vec<Event>, Vec<Event>) {
        let inner = InMemoryBus::new();
        let bus = faults.on(Arc::new(inner.clone()));
        let subscription = Subscription {
            consumer: "one".into(),
            kinds: vec![KIND.into()],
            prefetch: 100,
        };
        let mut deliveries = bus.subscribe(subscription).await.unwrap();
        let events: Vec<_> = (1..=count).map(event).collect();
        let sent = events.clone();
        let publishing = mesh::spawn(async move { bus.publish(&sent).await });
        let mut seen = Vec::new();
        while !publishing.is_finished() {
            if let Ok(delivery) = timeout(Duration::from_secs(1), deliveries.next()).await {
                let delivery = delivery.unwrap();
                seen.push(delivery.event.clone());
                delivery.ack().await.unwrap();
            }
        }
        assert!(publishing.await.unwrap().iter().all(Result::is_ok));
        (events, seen)
    }

    #[tokio::test(start_paused = true)]
    async fn without_faults_nothing_is_changed() {
        let (sent, seen) = delivered(Faults::default(), 20).await;
        assert_eq!(sent, seen);
    }

    #[tokio::test(start_paused = true)]
    async fn every_delivery_comes_at_least_once_some_twice_some_late() {
        let faults = Faults {
            duplicate: 0.3,
            reorder: 0.3,
            seed: 7,
            ..Faults::default()
        };
        let (sent, seen) = delivered(faults, 100).await;
        for event in &sent {
            let count = seen.iter().filter(|other| *other == event).count();
            assert!((1..=2).contains(&count), "{count}");
        }
        assert!((110..=150).contains(&seen.len()), "{}", seen.len());
        assert!(
            !seen.iter().map(number).is_sorted(),
            "nothing was overtaken"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_one_is_not_held_back_for_ever() {
        let always = Faults {
            reorder: 1.0,
            ..Faults::default()
        };
        let (sent, seen) = delivered(always, 1).await;
        assert_eq!(sent, seen);
    }
}
