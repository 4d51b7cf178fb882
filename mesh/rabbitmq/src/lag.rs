//! How far consumers are behind, as their queues tell it.
//!
//! Deliberately without what is delivered and not yet settled: AMQP does not say, only the broker's own tools do.
//! It is at most the prefetch of each consumer, whose metric `mesh_consumer_in_flight` has it.

use lapin::{
    Channel, Queue,
    options::QueueDeclareOptions,
    types::{FieldTable, ShortString},
};

use crate::{RabbitMqConfig, RabbitMqError, connect::connect, topology::Queues};

/// What waits for one consumer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLag {
    /// Events that are ready to be delivered.
    pub ready: u32,
    /// Events that wait for another attempt, on the rungs of the configured ladder.
    pub waiting: u32,
    /// Dead letters.
    pub dead: u32,
    /// Replicas that consume now.
    pub replicas: u32,
}

/// Asks for the queues of these consumers; result `n` belongs to consumer `n`. A queue that was never declared is
/// an error that names it.
pub async fn lag(
    config: &RabbitMqConfig,
    consumers: &[String],
) -> Result<Vec<QueueLag>, RabbitMqError> {
    config.check()?;
    let connection = connect(config, "lag", 0).await?;
    let channel = connection.create_channel().await;
    let channel = channel.map_err(RabbitMqError::broker("opening a channel"))?;
    let mut lags = Vec::with_capacity(consumers.len());
    for consumer in consumers {
        let queues = Queues::new(config, consumer)?;
        let main = look(&channel, &queues.main).await?;
        let mut waiting = 0;
        for rung in queues.rungs() {
            waiting += look(&channel, rung).await?.message_count();
        }
        lags.push(QueueLag {
            ready: main.message_count(),
            waiting,
            dead: look(&channel, &queues.dead).await?.message_count(),
            replicas: main.consumer_count(),
        });
    }
    let closing = connection.close(200, "done".into()).await;
    closing.map_err(RabbitMqError::broker("closing the connection"))?;
    Ok(lags)
}

/// A queue as it is; it is not created.
pub(crate) async fn look(channel: &Channel, queue: &ShortString) -> Result<Queue, RabbitMqError> {
    let options = QueueDeclareOptions::default().passive();
    channel
        .queue_declare(queue.clone(), options, FieldTable::default())
        .await
        .map_err(RabbitMqError::broker(format!(
            "looking for queue \"{queue}\""
        )))
}
