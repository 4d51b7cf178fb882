//! The bus that services use: publishing on one connection, consuming on another, so that a broker
//! that takes no messages still takes acknowledgements.

use std::sync::Arc;

use async_trait::async_trait;
use lapin::{
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use mesh_events::{Bus, BusError, Deliveries, Event, PublishError, Subscription};

use crate::{
    Metrics, RabbitMqConfig, RabbitMqDeadLetters, RabbitMqError,
    deliveries::RabbitMqDeliveries,
    envelope::{encode, short},
    error::chain,
    link::Link,
    publisher::{Message, Publisher},
    topology,
};

/// Carries events over RabbitMQ. Clones are the same bus. Its connections are opened in the background,
/// opened again when they are lost, and closed with the last clone.
#[derive(Clone)]
pub struct RabbitMqBus {
    config: Arc<RabbitMqConfig>,
    publisher: Arc<Publisher>,
    consuming: Arc<Link>,
    metrics: Metrics,
}

impl RabbitMqBus {
    /// Begins to connect under a name that people see at the broker: `product`. It succeeds without a
    /// broker; publishing and subscribing do not. Call it within a tokio runtime.
    pub fn start(
        config: RabbitMqConfig,
        name: &str,
        metrics: Metrics,
    ) -> Result<RabbitMqBus, RabbitMqError> {
        config.check()?;
        let config = Arc::new(config);
        let consuming = Link::start(config.clone(), format!("{name}/consume"), metrics.clone());
        Ok(RabbitMqBus {
            publisher: Arc::new(Publisher::start(config.clone(), name, metrics.clone())),
            consuming: Arc::new(consuming),
            config,
            metrics,
        })
    }

    /// Declares what the consumers need, for a service that starts: what exists and differs is an error, a
    /// broker that is away is not. Then the first to publish or to subscribe declares it.
    pub async fn declare(&self, consumers: &[Subscription]) -> Result<(), RabbitMqError> {
        match topology::declare(&self.config, consumers).await {
            Err(error) if !error.is_lasting() => {
                tracing::warn!(error = chain(&error), "exchange and queues are not checked");
                Ok(())
            }
            declared => declared,
        }
    }

    /// The dead-letter queues of all consumers: where a `mesh_events::Consumer` of this bus records
    /// what it gives up on, and where people look.
    pub fn dead_letters(&self) -> RabbitMqDeadLetters {
        RabbitMqDeadLetters {
            config: self.config.clone(),
            publisher: self.publisher.clone(),
            link: self.consuming.clone(),
        }
    }

    /// Whether it can publish and consume now, and if not, why: for a warning. Events wait meanwhile.
    pub async fn ready(&self) -> Result<(), String> {
        self.publisher.ready().await?;
        self.consuming.connection().await.map(drop)
    }

    fn message(&self, event: &Event) -> Result<Message, PublishError> {
        let (length, limit) = (event.body.len(), self.config.message_bytes_max);
        if length > limit {
            let reason = format!("a body of {length} bytes exceeds `message_bytes_max` = {limit}");
            return Err(PublishError::Refused(reason));
        }
        let properties = encode(event, 1).map_err(PublishError::Refused)?;
        Ok(Message {
            exchange: short("exchange", &self.config.exchange).map_err(PublishError::Refused)?,
            routing_key: short("kind", &event.kind).map_err(PublishError::Refused)?,
            mandatory: event.mandatory,
            properties,
            body: event.body.clone(),
        })
    }
}

#[async_trait]
impl Bus for RabbitMqBus {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>> {
        let mut results = Vec::with_capacity(events.len());
        let mut messages = Vec::with_capacity(events.len());
        for event in events {
            results.push(self.message(event).map(|message| messages.push(message)));
        }
        let mut published = self.publisher.publish(&messages).await.into_iter();
        for result in &mut results {
            if result.is_ok() {
                *result = published.next().expect("a result for each message");
            }
        }
        results
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
        if subscription.consumer.is_empty() || subscription.prefetch == 0 {
            let reason = "a subscription has a consumer and a prefetch above 0";
            return Err(BusError::Invalid(reason.into()));
        }
        let connection = self.consuming.connection().await.map_err(BusError::Lost)?;
        let channel = connection.create_channel().await.map_err(lost)?;
        topology::exchange(&channel, &self.config)
            .await
            .map_err(refused)?;
        let queues = topology::queues(&channel, &self.config, &subscription)
            .await
            .map_err(refused)?;
        let prefetch = u16::try_from(subscription.prefetch).unwrap_or(u16::MAX);
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .map_err(lost)?;
        let queue = queues.main.clone();
        let tag = "".into(); // The broker makes one up.
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(queue, tag, options, FieldTable::default())
            .await
            .map_err(lost)?;
        let malformed = self
            .metrics
            .malformed
            .with_label_values(&[&subscription.consumer]);
        Ok(Box::new(RabbitMqDeliveries::new(
            consumer,
            channel,
            self.publisher.clone(),
            queues,
            &self.config,
            malformed,
        )))
    }
}

fn lost(error: lapin::Error) -> BusError {
    BusError::Lost(chain(&error))
}

/// Subscribing again helps against a broken connection only.
fn refused(error: RabbitMqError) -> BusError {
    if error.is_lasting() {
        BusError::Invalid(chain(&error))
    } else {
        BusError::Lost(chain(&error))
    }
}
