//! The receiving end: deliveries become events, and what a consumer decides becomes an acknowledgement
//! after, where it has to wait or is no event at all, a confirmed copy in another queue. A crash in
//! between makes a duplicate, never a loss.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use lapin::{Acker, Channel, options::BasicAckOptions};
use mesh_events::{Backoff, BusError, Deliveries, Delivery, Event, PublishError, Settle};
use prometheus::IntCounter;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{error, warn};

use crate::{
    RabbitMqConfig,
    envelope::{dead, decode, encode},
    error::chain,
    publisher::{Message, Publisher},
    topology::Queues,
};

pub(crate) struct RabbitMqDeliveries {
    consumer: lapin::Consumer,
    subscription: Arc<Subscribed>,
    /// Messages that are no events, on their way to the dead letters. At most the prefetch.
    malformed: JoinSet<Result<(), BusError>>,
    malformed_total: IntCounter,
    quiet: Duration,
    /// When the subscription is renewed, if nothing comes.
    renewal: Instant,
}

/// What a subscription shares with the deliveries it handed out.
struct Subscribed {
    channel: Channel,
    publisher: Arc<Publisher>,
    queues: Queues,
    backoff: Backoff,
    /// A delivery was dropped unsettled: only the end of the channel puts it back into its queue.
    lost: CancellationToken,
}

impl RabbitMqDeliveries {
    pub(crate) fn new(
        consumer: lapin::Consumer,
        channel: Channel,
        publisher: Arc<Publisher>,
        queues: Queues,
        config: &RabbitMqConfig,
        malformed_total: IntCounter,
    ) -> RabbitMqDeliveries {
        let subscription = Arc::new(Subscribed {
            channel,
            publisher,
            queues,
            backoff: config.backoff(),
            lost: CancellationToken::new(),
        });
        RabbitMqDeliveries {
            consumer,
            subscription,
            malformed: JoinSet::new(),
            malformed_total,
            quiet: Duration::from_millis(config.quiet_ms),
            renewal: Instant::now() + Duration::from_millis(config.quiet_ms),
        }
    }

    /// The delivery as an event; none for what is no event and goes to the dead letters at once.
    fn take(&mut self, delivery: lapin::message::Delivery) -> Option<Delivery> {
        let lapin::message::Delivery {
            properties,
            data,
            acker,
            ..
        } = delivery;
        let unsettled = Unsettled {
            acker,
            guard: self.subscription.lost.clone().drop_guard(),
            subscription: self.subscription.clone(),
        };
        let body = Bytes::from(data);
        match decode(&properties, body.clone()) {
            Ok((event, attempt)) => {
                let settle = Settlement {
                    event: event.clone(),
                    attempt,
                    unsettled,
                };
                Some(Delivery::new(event, attempt, Box::new(settle)))
            }
            Err(reason) => {
                let Queues {
                    main, dead: queue, ..
                } = &self.subscription.queues;
                error!(queue = %main, reason, "not an event, becomes a dead letter");
                self.malformed_total.inc();
                let letter = Message::to_queue(queue, dead(properties, &reason, None), body);
                self.malformed.spawn(unsettled.move_to(letter));
                None
            }
        }
    }
}

#[async_trait]
impl Deliveries for RabbitMqDeliveries {
    async fn next(&mut self) -> Result<Delivery, BusError> {
        loop {
            tokio::select! {
                biased;
                () = self.subscription.lost.cancelled() => {
                    return Err(BusError::Lost("a delivery was dropped without being settled".into()));
                }
                Some(_) = self.malformed.join_next(), if !self.malformed.is_empty() => {}
                next = self.consumer.next() => match next {
                    Some(Ok(delivery)) => {
                        self.renewal = Instant::now() + self.quiet;
                        if let Some(delivery) = self.take(delivery) {
                            return Ok(delivery);
                        }
                    }
                    Some(Err(error)) => return Err(BusError::Lost(chain(&error))),
                    None => return Err(BusError::Lost("the broker ended the consumer".into())),
                },
                () = sleep_until(self.renewal) => {
                    let unsettled = Arc::strong_count(&self.subscription) > 1;
                    if !unsettled {
                        return Err(BusError::Quiet);
                    }
                    self.renewal = Instant::now() + self.quiet;
                }
            }
        }
    }
}

/// A delivery that is still in its queue as far as the broker knows.
struct Unsettled {
    acker: Acker,
    guard: DropGuard,
    subscription: Arc<Subscribed>,
}

impl Unsettled {
    async fn ack(self) -> Result<(), BusError> {
        match self.acker.ack(BasicAckOptions::default()).await {
            Ok(true) => {
                self.guard.disarm();
                Ok(())
            }
            Ok(false) => Err(BusError::Lost("the channel is closed".into())),
            Err(error) => Err(BusError::Lost(chain(&error))),
        }
    }

    /// Puts a copy into another queue, then takes this one out of its own. A broker that takes no
    /// messages now is waited for, as long as the subscription lives: giving up would put everything
    /// that is being handled back into the queue, again and again.
    async fn move_to(self, message: Message) -> Result<(), BusError> {
        let mut failures = 0;
        loop {
            let Subscribed {
                publisher,
                channel,
                backoff,
                ..
            } = &*self.subscription;
            let refused = match publisher.publish_one(message.clone()).await {
                Ok(()) => return self.ack().await,
                Err(refused) => refused,
            };
            let queue = &message.routing_key;
            failures += 1;
            warn!(%queue, error = %refused, failures, "message not moved");
            // Subscribing again declares a queue that is gone.
            if refused == PublishError::Unroutable || !channel.status().connected() {
                return Err(BusError::Lost(format!("queue \"{queue}\": {refused}")));
            }
            sleep(backoff.after(failures)).await;
        }
    }
}

struct Settlement {
    event: Event,
    attempt: u32,
    unsettled: Unsettled,
}

#[async_trait]
impl Settle for Settlement {
    async fn ack(self: Box<Self>) -> Result<(), BusError> {
        self.unsettled.ack().await
    }

    async fn retry(self: Box<Self>, after: Duration) -> Result<(), BusError> {
        let Settlement {
            event,
            attempt,
            unsettled,
        } = *self;
        let properties = encode(&event, attempt.saturating_add(1)).map_err(BusError::Lost)?;
        let rung = unsettled.subscription.queues.rung(after).clone();
        let message = Message::to_queue(&rung, properties, event.body);
        unsettled.move_to(message).await
    }

    /// The letter is in the dead-letter queue (or wherever the service keeps its own) already: it was
    /// recorded with reason and time, which are not known here.
    async fn dead_letter(self: Box<Self>, _: &str) -> Result<(), BusError> {
        self.unsettled.ack().await
    }
}
