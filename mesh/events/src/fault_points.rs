//! Places where a process may be told to die, to show that nothing is lost there.
//!
//! A place is passed whether or not it is armed; an armed one aborts the process at its n-th passing: no
//! destructor runs, no buffer is flushed, as by `kill -9`. [`FaultPoints::default`] is armed nowhere and costs
//! one comparison. Programs arm it by a flag and by nothing else. Deliberately without faults that a process
//! survives: those are [`Faults`](crate::Faults).

use std::{
    future::poll_fn,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::Poll,
    time::Duration,
};

use async_trait::async_trait;
use uuid::Uuid;

use crate::{
    Bus, BusError, Deliveries, Delivery, Event, Outbox, OutboxError, OutboxLag, PublishError,
    Settle, Subscription,
};

/// Where to die, if anywhere. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct FaultPoints {
    armed: Option<Arc<Armed>>,
}

#[derive(Debug)]
struct Armed {
    point: String,
    passings: AtomicU32,
}

/// A fault point that can not be read.
#[derive(Debug, thiserror::Error)]
#[error("fault point \"{0}\" is not NAME or NAME:COUNT with a COUNT from 1")]
pub struct InvalidFaultPoint(String);

impl FromStr for FaultPoints {
    type Err = InvalidFaultPoint;

    /// `before_ack` dies at the first passing, `before_ack:3` at the third.
    fn from_str(text: &str) -> Result<FaultPoints, InvalidFaultPoint> {
        let (point, count) = match text.split_once(':') {
            Some((point, count)) => (point, count.parse().ok()),
            None => (text, Some(1)),
        };
        match count {
            Some(count @ 1..) if POINTS.contains(&point) => Ok(FaultPoints::at(point, count)),
            _ => Err(InvalidFaultPoint(text.to_owned())),
        }
    }
}

/// Before a transaction commits, or a statement that is one by itself is sent.
pub const BEFORE_COMMIT: &str = "before_commit";
/// After it is on disk, before anybody was told.
pub const AFTER_COMMIT: &str = "after_commit";
/// Before the payment provider is asked; that it will be is on disk.
pub const BEFORE_PROVIDER_CALL: &str = "before_provider_call";
/// After it has answered, before the answer is on disk.
pub const AFTER_PROVIDER_CALL: &str = "after_provider_call";

/// Every place there is.
pub const POINTS: [&str; 11] = [
    BEFORE_COMMIT,
    AFTER_COMMIT,
    "before_publish",
    "before_confirm",
    "after_confirm",
    "after_outbox_delete",
    "before_ack",
    "after_ack",
    "before_retry",
    BEFORE_PROVIDER_CALL,
    AFTER_PROVIDER_CALL,
];

impl FaultPoints {
    fn at(point: &str, count: u32) -> FaultPoints {
        FaultPoints {
            armed: Some(Arc::new(Armed {
                point: point.to_owned(),
                passings: AtomicU32::new(count),
            })),
        }
    }

    /// Passes a place; does not return if it is the one.
    pub fn pass(&self, point: &'static str) {
        let Some(armed) = &self.armed else { return };
        if armed.point == point && armed.passings.fetch_sub(1, Ordering::Relaxed) == 1 {
            eprintln!("fault point {point}: aborting");
            std::process::abort();
        }
    }

    /// A bus with places around publishing and settling; the same bus where nothing is armed.
    pub fn bus(&self, bus: Arc<dyn Bus>) -> Arc<dyn Bus> {
        match &self.armed {
            None => bus,
            Some(_) => Arc::new(DeadlyBus {
                bus,
                points: self.clone(),
            }),
        }
    }

    /// An outbox with a place after its events are forgotten; the same where nothing is armed.
    pub fn outbox(&self, outbox: Arc<dyn Outbox>) -> Arc<dyn Outbox> {
        match &self.armed {
            None => outbox,
            Some(_) => Arc::new(DeadlyOutbox {
                outbox,
                points: self.clone(),
            }),
        }
    }
}

struct DeadlyBus {
    bus: Arc<dyn Bus>,
    points: FaultPoints,
}

#[async_trait]
impl Bus for DeadlyBus {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>> {
        self.points.pass("before_publish");
        let mut publishing = self.bus.publish(events);
        // The first step hands the events over, the others wait for the confirms.
        let first = poll_fn(|context| Poll::Ready(publishing.as_mut().poll(context))).await;
        self.points.pass("before_confirm");
        let published = match first {
            Poll::Ready(published) => published,
            Poll::Pending => publishing.await,
        };
        self.points.pass("after_confirm");
        published
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
        Ok(Box::new(DeadlyDeliveries {
            deliveries: self.bus.subscribe(subscription).await?,
            points: self.points.clone(),
        }))
    }
}

struct DeadlyDeliveries {
    deliveries: Box<dyn Deliveries>,
    points: FaultPoints,
}

#[async_trait]
impl Deliveries for DeadlyDeliveries {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        let delivery = self.deliveries.next().await?;
        let (event, attempt) = (delivery.event.clone(), delivery.attempt);
        let settle = DeadlySettle {
            delivery,
            points: self.points.clone(),
        };
        Ok(Delivery::new(event, attempt, Box::new(settle)))
    }
}

struct DeadlySettle {
    delivery: Delivery,
    points: FaultPoints,
}

#[async_trait]
impl Settle for DeadlySettle {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.points.pass("before_ack");
        let settled = self.delivery.ack().await;
        self.points.pass("after_ack");
        settled
    }

    async fn retry(self: Box<Self>, after: Duration) -> Result<(), BusError> {
        self.points.pass("before_retry");
        self.delivery.retry(after).await
    }

    async fn dead_letter(self: Box<Self>, reason: &str) -> Result<(), BusError> {
        self.delivery.dead_letter(reason).await
    }
}

struct DeadlyOutbox {
    outbox: Arc<dyn Outbox>,
    points: FaultPoints,
}

#[async_trait]
impl Outbox for DeadlyOutbox {
    async fn lease(
        &self,
        limit: usize,
        lease_us: i64,
        now_us: i64,
    ) -> Result<Vec<Event>, OutboxError> {
        self.outbox.lease(limit, lease_us, now_us).await
    }

    async fn published(&self, ids: &[Uuid]) -> Result<(), OutboxError> {
        let published = self.outbox.published(ids).await;
        self.points.pass("after_outbox_delete");
        published
    }

    async fn defer(&self, ids: &[Uuid], due_at_us: i64) -> Result<(), OutboxError> {
        self.outbox.defer(ids, due_at_us).await
    }

    async fn lag(&self, now_us: i64) -> Result<OutboxLag, OutboxError> {
        self.outbox.lag(now_us).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_place_is_read_with_and_without_a_count() {
        let points: FaultPoints = "before_ack:3".parse().unwrap();
        let armed = points.armed.unwrap();
        assert_eq!(armed.point, "before_ack");
        assert_eq!(armed.passings.load(Ordering::Relaxed), 3);
        for wrong in [
            "",
            "nowhere",
            "before_ack:",
            "before_ack:0",
            "before_ack:-1",
        ] {
            let error = wrong.parse::<FaultPoints>().unwrap_err();
            assert!(error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn other_places_and_earlier_passings_are_survived() {
        let points: FaultPoints = "before_ack:3".parse().unwrap();
        points.pass("after_ack");
        points.pass("before_ack");
        points.pass("before_ack"); // The third would end this test's process.
        FaultPoints::default().pass("before_ack");
    }

    #[test]
    fn every_place_has_a_name_of_its_own() {
        assert_eq!(POINTS.iter().collect::<BTreeSet<_>>().len(), POINTS.len());
    }
}
