//! What consumers gave up on, and what people do about it: look, replay, drop.
//!
//! The dead-letter queue is the one place: consumers record their letters here, malformed messages and
//! those that reached the delivery limit arrive by themselves. A queue can not replace an entry, so a
//! consumer that died between recording and acknowledging leaves the same letter twice; replaying both
//! has one effect, because the message id is the same.
//!
//! Looking takes letters out of the queue and puts them back when it is done; meanwhile nobody else
//! sees them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use lapin::{
    Acker, Channel, Connection,
    options::{BasicAckOptions, BasicGetOptions},
    types::ShortString,
};
use mesh_events::{BoxError, DeadLetter, DeadLetters, Event, PublishError};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::{
    RabbitMqConfig, RabbitMqError,
    envelope::{self, DEAD_AT_US, DEAD_REASON, decode, encode, encode_letter},
    lag::look,
    link::Link,
    publisher::{Message, Publisher},
    topology::Queues,
};

/// How long is waited for letters that were looked at to be back in their queue.
const PUT_BACK_TIMEOUT: Duration = Duration::from_secs(2);
const PUT_BACK_INTERVAL: Duration = Duration::from_millis(10);

/// The dead-letter queues of a broker, one for each consumer. Clones are the same.
#[derive(Clone)]
pub struct RabbitMqDeadLetters {
    pub(crate) config: Arc<RabbitMqConfig>,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) link: Arc<Link>,
}

/// Which letters of a queue are meant; all of them where nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Those of this kind, spelled exactly.
    pub kind: Option<String>,
    /// Those with this message id.
    pub message_id: Option<String>,
}

/// A message in a dead-letter queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The id of its event, or one that was made up for what is no event.
    pub message_id: String,
    /// The kind, where there is one.
    pub kind: String,
    /// Why it is here.
    pub reason: String,
    /// Since when, in microseconds since the Unix epoch; unknown when the broker moved it here.
    pub dead_at_us: Option<i64>,
    /// The event and how often it was tried, or why it is no event.
    pub event: Result<(Event, u32), String>,
    /// The body.
    pub body: Bytes,
}

/// What became of letters that were to be replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Put back into the queue of their consumer.
    pub replayed: usize,
    /// Still dead: they are no events, and would come back at once.
    pub malformed: usize,
}

impl RabbitMqDeadLetters {
    /// The first letters of a consumer that the filter lets through, at most `limit`, oldest first.
    pub async fn list(
        &self,
        consumer: &str,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Vec<Letter>, RabbitMqError> {
        let scan = self.scan(consumer, filter, limit).await?;
        scan.put_back().await
    }

    /// The letter with this message id; `None`: there is none.
    pub async fn show(
        &self,
        consumer: &str,
        message_id: &str,
    ) -> Result<Option<Letter>, RabbitMqError> {
        let filter = LetterFilter {
            message_id: Some(message_id.to_owned()),
            ..LetterFilter::default()
        };
        Ok(self.list(consumer, &filter, 1).await?.pop())
    }

    /// Puts letters back into the queue of their consumer, and of no other, under the message id they
    /// had and as a first attempt; at most `limit`, at most `per_second`. A letter leaves the dead-letter
    /// queue after the broker has confirmed that it is in the other. Safe to repeat.
    pub async fn replay(
        &self,
        consumer: &str,
        filter: &LetterFilter,
        limit: usize,
        per_second: u32,
    ) -> Result<Replayed, RabbitMqError> {
        let queues = Queues::new(&self.config, consumer)?;
        let mut pace = interval(Duration::from_secs(1) / per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut scan = self.scan(consumer, filter, limit).await?;
        let mut replayed = Replayed::default();
        for (letter, acker) in std::mem::take(&mut scan.found) {
            let Ok((event, _)) = letter.event else {
                replayed.malformed += 1;
                continue;
            };
            pace.tick().await;
            let message = to_queue(&queues.main, &event).map_err(RabbitMqError::Publish)?;
            let published = self.publisher.publish_one(message).await;
            published.map_err(RabbitMqError::Publish)?;
            scan.take_out(&acker).await?;
            replayed.replayed += 1;
        }
        scan.put_back().await?;
        Ok(replayed)
    }

    /// Removes letters for good, at most `limit`; their effect will never happen. How many.
    pub async fn drop(
        &self,
        consumer: &str,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<usize, RabbitMqError> {
        let mut scan = self.scan(consumer, filter, limit).await?;
        let found = std::mem::take(&mut scan.found);
        for (_, acker) in &found {
            scan.take_out(acker).await?;
        }
        scan.put_back().await?;
        Ok(found.len())
    }

    /// Takes letters out of the queue until `limit` of them pass the filter or each was seen once.
    async fn scan(
        &self,
        consumer: &str,
        filter: &LetterFilter,
        limit: usize,
    ) -> Result<Scan, RabbitMqError> {
        let queue = Queues::new(&self.config, consumer)?.dead;
        let connection = self.link.connection().await;
        let connection = connection.map_err(RabbitMqError::Unavailable)?;
        let channel = open(&connection).await?;
        let ready = count(&channel, &queue).await?;
        let mut found = Vec::new();
        for _ in 0..ready {
            if found.len() >= limit {
                break;
            }
            let got = channel
                .basic_get(queue.clone(), BasicGetOptions::default())
                .await;
            let reading = format!("reading queue \"{queue}\"");
            let Some(message) = got.map_err(RabbitMqError::broker(reading))? else {
                break; // Somebody else has the rest.
            };
            let lapin::message::Delivery {
                properties,
                data,
                acker,
                ..
            } = message.delivery;
            let letter = Letter::read(&properties, data.into());
            if filter.passes(&letter) {
                found.push((letter, acker));
            }
        }
        Ok(Scan {
            connection,
            channel,
            queue,
            found,
            left: ready,
        })
    }
}

#[async_trait]
impl DeadLetters for RabbitMqDeadLetters {
    async fn record(&self, letter: DeadLetter) -> Result<(), BoxError> {
        let queues = Queues::new(&self.config, &letter.consumer)?;
        let properties = encode_letter(&letter)?;
        let message = Message::to_queue(&queues.dead, properties, letter.event.body);
        Ok(self.publisher.publish_one(message).await?)
    }
}

/// Letters that are out of their queue for now, and the channel whose end puts them back.
struct Scan {
    connection: Arc<Connection>,
    channel: Channel,
    queue: ShortString,
    found: Vec<(Letter, Acker)>,
    /// Letters that the queue will hold when this is over.
    left: u32,
}

impl Scan {
    async fn take_out(&mut self, acker: &Acker) -> Result<(), RabbitMqError> {
        let acked = acker.ack(BasicAckOptions::default()).await;
        if !acked.map_err(RabbitMqError::broker("taking out a letter"))? {
            return Err(RabbitMqError::Unavailable("the channel is closed".into()));
        }
        self.left = self.left.saturating_sub(1);
        Ok(())
    }

    /// Ends the channel and waits until the letters are back: the broker puts them back a moment after
    /// it has said that the channel is closed, and whoever looks again at once would miss them.
    async fn put_back(self) -> Result<Vec<Letter>, RabbitMqError> {
        let closing = self.channel.close(200, "done".into()).await;
        closing.map_err(RabbitMqError::broker("closing a channel"))?;
        let channel = open(&self.connection).await?;
        let back = async {
            while count(&channel, &self.queue).await? < self.left {
                sleep(PUT_BACK_INTERVAL).await;
            }
            Ok::<_, RabbitMqError>(())
        };
        // Somebody else may have taken some meanwhile: then this waits in vain, and that is no error.
        if let Ok(counted) = timeout(PUT_BACK_TIMEOUT, back).await {
            counted?;
        }
        Ok(self.found.into_iter().map(|(letter, _)| letter).collect())
    }
}

async fn open(connection: &Connection) -> Result<Channel, RabbitMqError> {
    let opened = connection.create_channel().await;
    opened.map_err(RabbitMqError::broker("opening a channel"))
}

/// How many messages of a queue are ready for whoever asks.
async fn count(channel: &Channel, queue: &ShortString) -> Result<u32, RabbitMqError> {
    Ok(look(channel, queue).await?.message_count())
}

fn to_queue(queue: &ShortString, event: &Event) -> Result<Message, PublishError> {
    let properties = encode(event, 1).map_err(PublishError::Refused)?;
    Ok(Message::to_queue(queue, properties, event.body.clone()))
}

impl LetterFilter {
    fn passes(&self, letter: &Letter) -> bool {
        let is = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        is(&self.kind, &letter.kind) && is(&self.message_id, &letter.message_id)
    }
}

impl Letter {
    fn read(properties: &lapin::BasicProperties, body: Bytes) -> Letter {
        let property =
            |value: &Option<ShortString>| value.as_ref().map_or(String::new(), ToString::to_string);
        let reason = envelope::text(properties, DEAD_REASON).ok();
        let reason = reason.or_else(|| envelope::broker_reason(properties));
        Letter {
            message_id: property(properties.message_id()),
            kind: property(properties.kind()),
            reason: reason.unwrap_or_else(|| "unknown".into()),
            dead_at_us: envelope::number(properties, DEAD_AT_US).ok(),
            event: decode(properties, body.clone()),
            body,
        }
    }
}
