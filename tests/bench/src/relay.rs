//! The relay of events, beside a bare publisher that waits for the same confirms in the same windows on the same
//! queue; and how long an event takes from its commit to its consumer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions},
    types::FieldTable,
};
use mesh_events::{Bus as _, Event, Metrics, Relay, RelayConfig, Subscription};
use mesh_rabbitmq::{RabbitMqBus, RabbitMqConfig, declare};
use mesh_runtime::Clock;
use mesh_store::{
    Postgres, PostgresConfig,
    postgres::{Schema, migrate, outbox},
};
use sqlx::migrate::Migrator;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use xtask::servers::Servers;

use crate::{
    house,
    load::{per_second, percentile_ms},
};

const DATABASE: &str = "relay";
const CONSUMER: &str = "sink";
const KIND: &str = "bench.Measured.v1";
/// Like `PaymentCaptured`.
const BODY_BYTES: usize = 300;
/// Events that are published for one figure: windows of every channel.
const WINDOWS: usize = 20;
/// Events a second, for the latency.
const PACE: u32 = 500;
const PATIENCE: Duration = Duration::from_mins(2);

/// An outbox, a bus, and a queue for the events of both.
pub(crate) struct Bench {
    postgres: Postgres,
    bus: RabbitMqBus,
    queue: String,
    exchange: String,
    admin: Channel,
    bare: Vec<Channel>,
    relay: RelayConfig,
    metrics: Metrics,
    clock: Clock,
}

/// What a round came to.
pub(crate) struct Round {
    /// Events a second of the bare publisher.
    pub(crate) bare: f64,
    /// Events a second of the relay, which takes them from the outbox and forgets them there.
    pub(crate) relayed: f64,
    /// From before the commit until the consumer has the event, ascending.
    pub(crate) latencies_us: Vec<u64>,
}

impl Round {
    /// Of the latencies.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        percentile_ms(&self.latencies_us, percent)
    }
}

impl Bench {
    /// A database of its own, the queue, and as many channels as the relay has windows.
    pub(crate) async fn open(servers: &Servers) -> Result<Bench> {
        let admin = servers.postgres().url();
        house::execute(&admin, &format!("CREATE DATABASE {DATABASE}")).await?;
        let config = PostgresConfig {
            url: servers.postgres().url_of("postgres", DATABASE),
            ..PostgresConfig::default()
        };
        let nothing = Migrator::DEFAULT;
        let schema = Schema {
            migrations: &nothing,
            role: "",
            append_only: &[],
        };
        migrate(&config, &schema).await?;
        let config_of_bus = RabbitMqConfig {
            url: servers.rabbitmq().address(),
            exchange: "bench".to_owned(),
            ..RabbitMqConfig::default()
        };
        declare(&config_of_bus, &[subscription()]).await?;
        let connection =
            Connection::connect(&servers.rabbitmq().url(), ConnectionProperties::default()).await?;
        let relay = RelayConfig::default();
        let bare = try_join_all((0..relay.windows_max).map(async |_| {
            let channel = connection.create_channel().await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok::<_, lapin::Error>(channel)
        }));
        Ok(Bench {
            postgres: Postgres::connect(&config, &nothing).await?,
            queue: format!("{}.{CONSUMER}", config_of_bus.exchange),
            exchange: config_of_bus.exchange.clone(),
            bus: RabbitMqBus::start(
                config_of_bus,
                "bench",
                mesh_rabbitmq::Metrics::unregistered()?,
            )?,
            admin: connection.create_channel().await?,
            bare: bare.await?,
            relay,
            metrics: Metrics::unregistered()?,
            clock: Clock::system(),
        })
    }

    /// All three, one after another.
    pub(crate) async fn round(&self, length: Duration) -> Result<Round> {
        Ok(Round {
            bare: self.bare().await?,
            relayed: self.relayed().await?,
            latencies_us: self.latencies(length).await?,
        })
    }

    fn events(&self) -> usize {
        self.relay.windows_max * self.relay.window_max * WINDOWS
    }

    async fn bare(&self) -> Result<f64> {
        let started = Instant::now();
        let publishing = self.bare.iter().map(|channel| self.publish(channel));
        try_join_all(publishing).await?;
        let rate = per_second(self.events(), started.elapsed());
        self.purge(self.events()).await?;
        Ok(rate)
    }

    /// What one writes first: publish a window, await its confirms, publish the next.
    async fn publish(&self, channel: &Channel) -> Result<()> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let body = [7; BODY_BYTES];
        for _ in 0..WINDOWS {
            let mut confirms = Vec::with_capacity(self.relay.window_max);
            for _ in 0..self.relay.window_max {
                let exchange = self.exchange.as_str().into();
                let properties = BasicProperties::default().with_delivery_mode(2);
                let sent = channel.basic_publish(exchange, KIND.into(), options, &body, properties);
                confirms.push(sent.await?);
            }
            for confirm in try_join_all(confirms).await? {
                ensure!(confirm.is_ack(), "a message was not confirmed");
            }
        }
        Ok(())
    }

    async fn relayed(&self) -> Result<f64> {
        let events: Vec<_> = (0..self.events()).map(|_| self.event()).collect();
        for some in events.chunks(1_000) {
            let mut write = self.postgres.begin().await?;
            outbox::append(&mut write, some, self.clock.now_us()).await?;
            write.commit().await?;
        }
        let started = Instant::now();
        let relay = self.start_relay();
        while self.waiting().await? > 0 {
            ensure!(started.elapsed() < PATIENCE, "the relay does not get done");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let rate = per_second(events.len(), started.elapsed());
        relay.stop().await?;
        self.purge(events.len()).await?;
        Ok(rate)
    }

    async fn latencies(&self, length: Duration) -> Result<Vec<u64>> {
        let relay = self.start_relay();
        let mut deliveries = self.bus.subscribe(subscription()).await?;
        let count = PACE * u32::try_from(length.as_secs().max(1))?;
        let consuming = async {
            let mut latencies_us = Vec::new();
            for _ in 0..count {
                let delivery = tokio::time::timeout(PATIENCE, deliveries.next()).await??;
                let age_us = self.clock.now_us() - delivery.event.occurred_at_us;
                latencies_us.push(u64::try_from(age_us)?);
                delivery.ack().await?;
            }
            anyhow::Ok(latencies_us)
        };
        let ((), mut latencies_us) = tokio::try_join!(self.append_at_pace(count), consuming)?;
        drop(deliveries);
        relay.stop().await?;
        self.purge(0).await?;
        latencies_us.sort_unstable();
        Ok(latencies_us)
    }

    /// A transaction each, at their times: a slow one holds up none after it.
    async fn append_at_pace(&self, count: u32) -> Result<()> {
        let mut pace = interval(Duration::from_secs(1) / PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut writing = Vec::with_capacity(usize::try_from(count)?);
        for _ in 0..count {
            pace.tick().await;
            let (postgres, event) = (self.postgres.clone(), self.event());
            writing.push(mesh::spawn(async move {
                let mut write = postgres.begin().await?;
                outbox::append(
                    &mut write,
                    std::slice::from_ref(&event),
                    event.occurred_at_us,
                )
                .await?;
                write.commit().await
            }));
        }
        for written in writing {
            written.await??;
        }
        Ok(())
    }

    fn event(&self) -> Event {
        Event::new(KIND, "agg_1", 1, self.clock.now_us(), vec![7; BODY_BYTES])
    }

    async fn waiting(&self) -> Result<i64> {
        let query =
            sqlx::query_scalar("SELECT count(*) FROM (SELECT FROM mesh_outbox LIMIT 1) AS one");
        Ok(query.fetch_one(self.postgres.pool()).await?)
    }

    /// Empties the queue, which must hold exactly so many.
    async fn purge(&self, expected: usize) -> Result<()> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let name = self.queue.as_str();
        let declared = self
            .admin
            .queue_declare(name.into(), options, FieldTable::default())
            .await?;
        let found = usize::try_from(declared.message_count())?;
        ensure!(
            found == expected,
            "{found} of {expected} messages are in the queue"
        );
        self.admin
            .queue_purge(name.into(), QueuePurgeOptions::default())
            .await?;
        Ok(())
    }

    fn start_relay(&self) -> Running {
        let clock = self.clock.clone();
        let relay = Relay {
            name: "bench".to_owned(),
            outbox: Arc::new(outbox::PostgresOutbox::new(self.postgres.clone())),
            bus: Arc::new(self.bus.clone()),
            config: self.relay.clone(),
            now: Arc::new(move || clock.now_us()),
            wake: self.postgres.committed(),
            metrics: self.metrics.clone(),
        };
        let stop = CancellationToken::new();
        let task = mesh::spawn(relay.run(stop.clone()));
        Running { stop, task }
    }
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.task.await.context("the relay")
    }
}

fn subscription() -> Subscription {
    Subscription {
        consumer: CONSUMER.to_owned(),
        kinds: vec![KIND.to_owned()],
        prefetch: 256,
    }
}
