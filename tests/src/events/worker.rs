//! The process that is killed: a relay, or a consumer with its effects.
//!
//! It runs until its standard input ends: so it stops in good order when the test wants it to, and never outlives
//! the test.

use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mesh_events::{Consumer, ConsumerConfig, Metrics as EventMetrics, Now, Relay, RelayConfig};
use mesh_rabbitmq::{Metrics, RabbitMqBus};
use mesh_runtime::{
    Clock,
    telemetry::{self, TelemetryConfig},
};
use mesh_store::{Postgres, PostgresConfig, postgres::outbox::PostgresOutbox};
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use super::{
    broker,
    effect::{Effect, Effects, migrations},
};

/// Events handled at the same time by a consumer.
const CONCURRENCY: usize = 32;

/// Which part of the way of an event this process is.
#[derive(Debug, Parser)]
pub struct Args {
    /// Where the database is that outbox, inbox and effects are in.
    #[arg(long)]
    postgres: String,
    /// Where the broker is; the nodes of a cluster with commas between.
    #[arg(long)]
    broker: String,
    /// The exchange.
    #[arg(long)]
    exchange: String,
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Publishes what is in the outbox.
    Relay,
    /// Consumes.
    Consume {
        /// Names queue and inbox.
        #[arg(long)]
        name: String,
        /// The kinds that it wants.
        #[arg(long = "kind", required = true)]
        kinds: Vec<String>,
        /// What it makes of them.
        #[arg(long, value_enum)]
        effect: Effect,
        /// Attempts before an event becomes a dead letter.
        #[arg(long, default_value_t = 12)]
        attempts_max: u32,
        /// Every so many events are poison.
        #[arg(long, default_value_t = 0)]
        poison_every: i64,
        /// Every so many events fail whenever they are tried.
        #[arg(long, default_value_t = 0)]
        stubborn_every: i64,
    },
}

/// Runs until standard input ends.
pub async fn run(args: Args) -> anyhow::Result<()> {
    // Outages and poison are the point here.
    let filter = "error,lapin=off,mesh_events::consumer=off".to_owned();
    let config = TelemetryConfig {
        filter,
        ..TelemetryConfig::default()
    };
    let _telemetry = telemetry::init(&config, mesh::log_context)?;
    let postgres = connect(&args.postgres).await?;
    let config = broker(&args.broker, &args.exchange);
    let bus = RabbitMqBus::start(config, "worker", Metrics::unregistered()?)?;
    let clock = Clock::system();
    let now: Now = Arc::new(move || clock.now_us());
    let shutdown = CancellationToken::new();
    let running = match args.part {
        Part::Relay => mesh::spawn(relay(postgres, bus, now)?.run(shutdown.clone())),
        consume @ Part::Consume { .. } => {
            mesh::spawn(consumer(consume, postgres, bus, now)?.run(shutdown.clone()))
        }
    };
    let mut input = Vec::new();
    tokio::io::stdin().read_to_end(&mut input).await?;
    shutdown.cancel();
    running.await.context("the worker panicked")
}

/// Opens the database; several workers and the test share the server's connections.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Postgres> {
    let config = PostgresConfig {
        url: url.to_owned(),
        ..PostgresConfig::default()
    };
    Ok(Postgres::connect(&config, &migrations()).await?)
}

fn relay(postgres: Postgres, bus: RabbitMqBus, now: Now) -> anyhow::Result<Relay> {
    Ok(Relay {
        name: "test".into(),
        wake: postgres.committed(),
        outbox: Arc::new(PostgresOutbox::new(postgres)),
        bus: Arc::new(bus),
        config: RelayConfig {
            backoff_max_ms: 500,
            // Above the bus's own limit. What a killed relay had leased is given again so much sooner.
            publish_timeout_ms: 4_000,
            ..RelayConfig::default()
        },
        now,
        metrics: EventMetrics::unregistered()?,
    })
}

fn consumer(
    part: Part,
    postgres: Postgres,
    bus: RabbitMqBus,
    now: Now,
) -> anyhow::Result<Consumer> {
    let Part::Consume {
        name,
        kinds,
        effect,
        attempts_max,
        poison_every,
        stubborn_every,
    } = part
    else {
        anyhow::bail!("a relay consumes nothing");
    };
    let effects = Effects {
        postgres,
        consumer: name.clone(),
        effect,
        poison_every,
        stubborn_every,
    };
    Ok(Consumer {
        name,
        kinds,
        dead_letters: Arc::new(bus.dead_letters()),
        bus: Arc::new(bus),
        handler: Arc::new(effects),
        config: ConsumerConfig {
            concurrency_max: CONCURRENCY,
            attempts_max,
            backoff_max_ms: 400, // The longest wait of the ladder.
            ..ConsumerConfig::default()
        },
        now,
        metrics: EventMetrics::unregistered()?,
    })
}
