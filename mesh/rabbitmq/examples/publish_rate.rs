//! Confirmed publishes per second: the bus, with four windows of 256 at a time as relays have them,
//! beside a bare lapin publisher with the same windows on the same queue. The first argument is the
//! address of a broker without credentials: `amqp://127.0.0.1:5672/%2f`.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use mesh_events::{Bus as _, Event, Subscription};
use mesh_rabbitmq::{Metrics, RabbitMqBus, RabbitMqConfig, declare};

const ROUNDS: usize = 5;
const CHANNELS: usize = 4;
const WINDOW: usize = 256;
/// Windows of each channel in a round.
const WINDOWS: usize = 16;
const BODY_BYTES: usize = 1_024;
const KIND: &str = "rate.Measured.v1";

type Failed = Box<dyn Error>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let url = std::env::args()
        .nth(1)
        .ok_or("the address of a broker is missing")?;
    let config = RabbitMqConfig {
        url,
        exchange: format!("rate-{:016x}", rand::random::<u64>()),
        ..RabbitMqConfig::default()
    };
    let sink = Subscription {
        consumer: "sink".into(),
        kinds: vec![KIND.into()],
        prefetch: 1,
    };
    declare(&config, &[sink]).await?;
    let bus = RabbitMqBus::start(config.clone(), "rate", Metrics::unregistered()?)?;
    let connection = Connection::connect(&config.url, ConnectionProperties::default()).await?;
    let channels = try_join_all((0..CHANNELS).map(async |_| {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok::<_, lapin::Error>(channel)
    }));
    let channels = channels.await?;
    for round in 1..=ROUNDS {
        let started = Instant::now();
        try_join_all(
            channels
                .iter()
                .map(|channel| bare(channel, &config.exchange)),
        )
        .await?;
        let bare = rate(started.elapsed());
        let started = Instant::now();
        try_join_all((0..CHANNELS).map(|_| through_the_bus(&bus))).await?;
        let bus = rate(started.elapsed());
        println!(
            "round {round}: bare {bare:.0}/s, bus {bus:.0}/s, {:.2}",
            bus / bare
        );
    }
    Ok(())
}

fn rate(took: Duration) -> f64 {
    f64::from(u32::try_from(CHANNELS * WINDOWS * WINDOW).unwrap_or(u32::MAX)) / took.as_secs_f64()
}

async fn through_the_bus(bus: &RabbitMqBus) -> Result<(), Failed> {
    for _ in 0..WINDOWS {
        let event = || Event::new(KIND, "agg_1", 1, 0, vec![7; BODY_BYTES]);
        let events: Vec<_> = std::iter::repeat_with(event).take(WINDOW).collect();
        for published in bus.publish(&events).await {
            published?;
        }
    }
    Ok(())
}

/// What one writes first: publish, publish, …, then await the confirms. It tells nothing about returns.
async fn bare(channel: &Channel, exchange: &str) -> Result<(), Failed> {
    let body = [7; BODY_BYTES];
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    for _ in 0..WINDOWS {
        let mut confirms = Vec::with_capacity(WINDOW);
        for _ in 0..WINDOW {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let sent =
                channel.basic_publish(exchange.into(), KIND.into(), options, &body, properties);
            confirms.push(sent.await?);
        }
        for confirm in try_join_all(confirms).await? {
            if !confirm.is_ack() {
                return Err("not confirmed".into());
            }
        }
    }
    Ok(())
}
