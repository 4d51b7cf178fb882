//! Exchange, queues and bindings: what they are called, how they are declared, and what it means when
//! the broker has them already and they are different.
//!
//! Each consumer `c` of exchange `e` has the queues `e.c`, `e.c.retry.MS` for each rung of the ladder,
//! and `e.c.dead`. All are quorum queues that refuse what does not fit (`reject-publish`), without which
//! the broker would quietly dead-letter at most once.

use std::time::Duration;

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, ShortString},
};
use mesh_events::Subscription;

use crate::{RabbitMqConfig, RabbitMqError, connect::connect, envelope::short};

/// People look at dead letters again and again, and each look counts as a delivery. RabbitMQ 4 has a
/// low limit of its own unless one is given; 3.10 does not know `-1`.
const LOOKS_MAX: i32 = 1_000_000_000;

/// Creates the exchange and what each of the consumers needs, or checks that it is there as wanted.
/// Safe to repeat. `meshctl events declare` calls it; a service that starts calls [`RabbitMqBus::declare`](crate::RabbitMqBus::declare).
pub async fn declare(
    config: &RabbitMqConfig,
    consumers: &[Subscription],
) -> Result<(), RabbitMqError> {
    config.check()?;
    let connection = connect(config, "declare", 0).await?;
    let channel = connection.create_channel().await;
    let channel = channel.map_err(RabbitMqError::broker("opening a channel"))?;
    exchange(&channel, config).await?;
    for consumer in consumers {
        queues(&channel, config, consumer).await?;
    }
    let closing = connection.close(200, "done".into()).await;
    closing.map_err(RabbitMqError::broker("closing the connection"))
}

/// The queues of one consumer.
#[derive(Clone, Debug)]
pub(crate) struct Queues {
    /// What it consumes from.
    pub(crate) main: ShortString,
    /// What it gave up on.
    pub(crate) dead: ShortString,
    /// Waits and their queues, ascending.
    ladder: Vec<(u32, ShortString)>,
}

impl Queues {
    pub(crate) fn new(config: &RabbitMqConfig, consumer: &str) -> Result<Queues, RabbitMqError> {
        let RabbitMqConfig { exchange, .. } = config;
        let name = |suffix: &str| {
            short("queue", &format!("{exchange}.{consumer}{suffix}")).map_err(RabbitMqError::Config)
        };
        let rung = |&ms: &u32| Ok((ms, name(&format!(".retry.{ms}"))?));
        Ok(Queues {
            main: name("")?,
            dead: name(".dead")?,
            ladder: config
                .retry_ladder_ms
                .iter()
                .map(rung)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Where messages wait.
    pub(crate) fn rungs(&self) -> impl Iterator<Item = &ShortString> {
        self.ladder.iter().map(|(_, queue)| queue)
    }

    /// Where a message waits for about as long: the first rung that is not shorter, else the last.
    pub(crate) fn rung(&self, after: Duration) -> &ShortString {
        let enough = |(ms, _): &&(u32, ShortString)| Duration::from_millis(u64::from(*ms)) >= after;
        let rung = self.ladder.iter().find(enough).or(self.ladder.last());
        &rung
            .expect("a ladder has a rung, says the check of the configuration")
            .1
    }
}

pub(crate) async fn exchange(
    channel: &Channel,
    config: &RabbitMqConfig,
) -> Result<(), RabbitMqError> {
    let name = short("exchange", &config.exchange).map_err(RabbitMqError::Config)?;
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    channel
        .exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default())
        .await
        .map_err(|error| explain(format!("exchange {:?}", config.exchange), error))
}

/// Declares what a consumer needs, its dead letters first: nothing may be dead-lettered to nowhere.
pub(crate) async fn queues(
    channel: &Channel,
    config: &RabbitMqConfig,
    consumer: &Subscription,
) -> Result<Queues, RabbitMqError> {
    let queues = Queues::new(config, &consumer.consumer)?;
    let delivery_limit = i32::try_from(config.delivery_limit).expect("checked");
    let dead = arguments(config, LOOKS_MAX, None);
    queue(channel, &queues.dead, dead).await?;
    let main = arguments(config, delivery_limit, Some(&queues.dead));
    queue(channel, &queues.main, main).await?;
    for (ms, name) in &queues.ladder {
        let mut rung = arguments(config, delivery_limit, Some(&queues.main));
        rung.insert(
            "x-message-ttl".into(),
            AMQPValue::LongLongInt(i64::from(*ms)),
        );
        queue(channel, name, rung).await?;
    }
    let exchange = short("exchange", &config.exchange).map_err(RabbitMqError::Config)?;
    for kind in &consumer.kinds {
        let key = short("kind", kind).map_err(RabbitMqError::Config)?;
        let binding = format!("binding queue \"{}\" to {kind:?}", queues.main);
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                queues.main.clone(),
                exchange.clone(),
                key,
                options,
                FieldTable::default(),
            )
            .await
            .map_err(RabbitMqError::broker(binding))?;
    }
    Ok(queues)
}

async fn queue(
    channel: &Channel,
    name: &ShortString,
    arguments: FieldTable,
) -> Result<(), RabbitMqError> {
    channel
        .queue_declare(name.clone(), QueueDeclareOptions::durable(), arguments)
        .await
        .map_err(|error| explain(format!("queue \"{name}\""), error))?;
    Ok(())
}

fn arguments(
    config: &RabbitMqConfig,
    delivery_limit: i32,
    dead_letters: Option<&ShortString>,
) -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(text.into());
    let length = i32::try_from(config.queue_length_max).expect("checked");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(length));
    arguments.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongInt(delivery_limit),
    );
    if let Some(queue) = dead_letters {
        // The default exchange: to this queue and no other.
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(queue.as_str()));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    }
    arguments
}

/// Turns `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received
/// … but current is …` into an error that says so.
fn explain(object: String, error: lapin::Error) -> RabbitMqError {
    if let ErrorKind::ProtocolError(said) = error.kind()
        && *said.kind() == AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED)
    {
        let message = said.get_message().to_string();
        let argument = message.split('\'').nth(1).unwrap_or("property");
        let difference = message
            .split_once("': ")
            .map_or(message.as_str(), |(_, rest)| rest);
        return RabbitMqError::Mismatch {
            object,
            argument: argument.to_owned(),
            difference: difference.to_owned(),
        };
    }
    RabbitMqError::Broker {
        operation: format!("declaring {object}"),
        source: error,
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;

    use super::*;

    #[test]
    fn a_wait_is_rounded_up_to_a_rung_and_down_to_the_last() {
        let config = RabbitMqConfig {
            exchange: "e".into(),
            retry_ladder_ms: vec![100, 1_000],
            ..RabbitMqConfig::default()
        };
        let queues = Queues::new(&config, "c").unwrap();
        let rung = |ms| queues.rung(Duration::from_millis(ms)).as_str();
        assert_eq!([rung(0), rung(100)], ["e.c.retry.100"; 2]);
        assert_eq!([rung(101), rung(1_000), rung(9_999)], ["e.c.retry.1000"; 3]);
        assert_eq!(
            (queues.main.as_str(), queues.dead.as_str()),
            ("e.c", "e.c.dead")
        );
    }

    #[test]
    fn a_name_that_amqp_can_not_carry_is_refused() {
        let long = "c".repeat(250);
        let error = Queues::new(&RabbitMqConfig::default(), &long).unwrap_err();
        assert!(
            error.to_string().contains("longer than 255 bytes"),
            "{error}"
        );
    }

    #[test]
    fn a_mismatch_names_object_argument_and_difference() {
        let said = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in vhost \
                    '/': received the value '5' of type 'signedint' but current is none";
        let soft = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
        let error = ErrorKind::ProtocolError(AMQPError::new(soft, said.into()));
        assert_eq!(
            explain("queue \"q\"".into(), error.into()).to_string(),
            "queue \"q\" exists with another x-delivery-limit: received the value '5' of type \
             'signedint' but current is none"
        );
    }
}
