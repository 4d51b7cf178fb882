//! Windows of confirmed publishes.
//!
//! Each window has a channel for itself. lapin hands a returned message to whichever confirm comes
//! next, not to its own, so nothing is known about a mandatory message before every confirm of its
//! channel is in; then returns are matched by message id. A window that breaks off takes its channel
//! with it, so no later window can meet its leftovers.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use lapin::{
    BasicProperties, Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::ShortString,
};
use mesh_events::PublishError;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{Metrics, RabbitMqConfig, RabbitMqError, error::chain, link::Link, topology};

/// One message and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    /// Whether a queue must take it.
    pub(crate) mandatory: bool,
    /// Carry the message id, by which a return is recognised.
    pub(crate) properties: BasicProperties,
    pub(crate) body: Bytes,
}

impl Message {
    /// A message for one queue, which must be there.
    pub(crate) fn to_queue(queue: &ShortString, properties: BasicProperties, body: Bytes) -> Self {
        Message {
            exchange: "".into(),
            routing_key: queue.clone(),
            mandatory: true,
            properties,
            body,
        }
    }
}

type Published = Result<(), PublishError>;

pub(crate) struct Publisher {
    config: Arc<RabbitMqConfig>,
    link: Link,
    windows: Semaphore,
    /// Channels whose last window was accepted as a whole.
    idle: Mutex<Vec<Channel>>,
}

impl Publisher {
    pub(crate) fn start(config: Arc<RabbitMqConfig>, name: &str, metrics: Metrics) -> Publisher {
        Publisher {
            link: Link::start(config.clone(), format!("{name}/publish"), metrics),
            windows: Semaphore::new(config.channels_max),
            idle: Mutex::default(),
            config,
        }
    }

    /// Whether it can publish now, and if not, why.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        self.link.connection().await.map(drop)
    }

    /// Publishes a window; result `n` belongs to message `n`.
    pub(crate) async fn publish(&self, messages: &[Message]) -> Vec<Published> {
        let limit = Duration::from_millis(self.config.publish_timeout_ms);
        let deadline = Instant::now() + limit;
        let Ok(permit) = timeout_at(deadline, self.windows.acquire()).await else {
            let reason = format!("every channel was in use for {limit:?}");
            return vec![Err(PublishError::Unavailable(reason)); messages.len()];
        };
        let _permit = permit.expect("the semaphore is never closed");
        let channel = match timeout_at(deadline, self.channel()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(reason)) => {
                return vec![Err(PublishError::Unavailable(reason)); messages.len()];
            }
            Err(_) => {
                let reason = format!("no channel within {limit:?}");
                return vec![Err(PublishError::Unavailable(reason)); messages.len()];
            }
        };
        let window = self.window(&channel, messages, deadline).await;
        // A channel keeps what it took for a queue's leader at its first message: when that node is dead, a quorum
        // queue refuses all that comes by this channel, and takes it by the next.
        let refused = |fate: &Option<Published>| matches!(fate, Some(Err(_)));
        let sound = window.broken_off.is_none() && !window.fates.iter().any(refused);
        let results = window.results(messages);
        if sound && channel.status().connected() {
            self.idle().push(channel);
        }
        results
    }

    pub(crate) async fn publish_one(&self, message: Message) -> Published {
        let mut results = self.publish(&[message]).await;
        results.pop().expect("a result for each message")
    }

    /// A channel that no other window uses, or why there is none now.
    async fn channel(&self) -> Result<Channel, String> {
        let connection = self.link.connection().await?; // Blocked: refused here, idle channel or not.
        while let Some(channel) = self.pop_idle() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let opening = async {
            let opened = connection.create_channel().await;
            let channel = opened.map_err(RabbitMqError::broker("opening a channel"))?;
            topology::exchange(&channel, &self.config).await?;
            let confirms = channel
                .confirm_select(ConfirmSelectOptions::default())
                .await;
            confirms.map_err(RabbitMqError::broker("asking for confirms"))?;
            Ok::<_, RabbitMqError>(channel)
        };
        opening.await.map_err(|error| chain(&error))
    }

    async fn window(&self, channel: &Channel, messages: &[Message], deadline: Instant) -> Window {
        let mut window = Window {
            fates: vec![None; messages.len()],
            returned: HashSet::new(),
            broken_off: None,
        };
        // All of them are handed over before the first is awaited: one write, not one per message.
        let mut confirms: FuturesUnordered<_> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| async move { (index, confirm(channel, message).await) })
            .collect();
        let all = async {
            while let Some((index, confirmed)) = confirms.next().await {
                window.resolve(index, confirmed);
            }
        };
        let unavailable = PublishError::Unavailable;
        let broken_off = tokio::select! {
            biased;
            () = all => None,
            reason = self.link.interrupted() => Some(unavailable(reason)),
            () = sleep_until(deadline) => {
                let limit_ms = self.config.publish_timeout_ms;
                Some(PublishError::Unconfirmed(format!("no confirm within {limit_ms} ms")))
            }
        };
        window.broken_off = window.broken_off.or(broken_off);
        window
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop_idle(&self) -> Option<Channel> {
        self.idle().pop()
    }
}

async fn confirm(channel: &Channel, message: &Message) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: message.mandatory,
        ..BasicPublishOptions::default()
    };
    let Message {
        exchange,
        routing_key,
        properties,
        body,
        ..
    } = message;
    channel
        .basic_publish(
            exchange.clone(),
            routing_key.clone(),
            options,
            body,
            properties.clone(),
        )
        .await?
        .await
}

/// What the broker has said so far about the messages of a window.
struct Window {
    fates: Vec<Option<Published>>,
    /// The message ids that came back, from whichever confirm lapin gave them to.
    returned: HashSet<ShortString>,
    /// Why some fates will never be known.
    broken_off: Option<PublishError>,
}

impl Window {
    fn resolve(&mut self, index: usize, confirmed: lapin::Result<Confirmation>) {
        let fate = match confirmed {
            Ok(confirmation) => {
                let fate = match &confirmation {
                    Confirmation::Ack(_) => Ok(()),
                    Confirmation::Nack(_) => {
                        Err(PublishError::Refused("not accepted by its queues".into()))
                    }
                    Confirmation::NotRequested => Err(PublishError::Unconfirmed(
                        "the channel confirms nothing".into(),
                    )),
                };
                if let Some(returned) = confirmation.take_message() {
                    let id = returned.delivery.properties.message_id().clone();
                    self.returned.extend(id);
                }
                fate
            }
            Err(error) => {
                let unconfirmed = PublishError::Unconfirmed(chain(&error));
                self.broken_off.get_or_insert(unconfirmed.clone());
                Err(unconfirmed)
            }
        };
        self.fates[index] = Some(fate);
    }

    /// The verdict on each message, now that nothing more will come.
    fn results(self, messages: &[Message]) -> Vec<Published> {
        let Window {
            fates,
            returned,
            broken_off,
        } = self;
        let verdict = |(message, fate): (&Message, Option<Published>)| {
            let id = message.properties.message_id().as_ref();
            match (fate, &broken_off) {
                _ if message.mandatory && id.is_some_and(|id| returned.contains(id)) => {
                    Err(PublishError::Unroutable)
                }
                // Its return may have been among those that never reached us.
                (Some(Ok(())), Some(_)) if message.mandatory => Err(PublishError::Unconfirmed(
                    "the window broke off before it was known whether a queue took the event"
                        .into(),
                )),
                (Some(fate), _) => fate,
                (None, Some(reason)) => Err(reason.clone()),
                (None, None) => Err(PublishError::Unconfirmed("no answer".into())),
            }
        };
        messages.iter().zip(fates).map(verdict).collect()
    }
}
