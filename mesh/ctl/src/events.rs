//! Events on RabbitMQ: declares exchange and queues, looks after what consumers gave up on, and tells how far behind
//! all of it is.

mod lag;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use crate::admin::Admin;
use anyhow::Context as _;
use mesh_events::Subscription;
use mesh_rabbitmq::{
    Letter, LetterFilter, Metrics, RabbitMqBus, RabbitMqConfig, RabbitMqDeadLetters, declare,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Where the broker is. What queues are made of (limits, retry ladder) is in the file.
#[derive(clap::Args)]
pub(crate) struct Broker {
    /// The file (TOML) with the keys of the services' RabbitMQ section; the defaults without one.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the broker is, instead of what the file says.
    #[arg(long)]
    url: Option<String>,
    /// The exchange, instead of what the file says.
    #[arg(long)]
    exchange: Option<String>,
    /// Who connects, instead of what the file says.
    #[arg(long)]
    user: Option<String>,
    /// The file that holds the password, instead of what the file says.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Creates the exchange and the queues of a consumer, or checks that they are there as wanted.
    Declare {
        #[command(flatten)]
        broker: Broker,
        /// The consumer, such as `product`.
        #[arg(long)]
        consumer: String,
        /// A kind of event that it wants; may be given several times.
        #[arg(long = "kind", value_name = "KIND", required = true)]
        kinds: Vec<String>,
    },
    /// Lists dead letters: id, kind, attempts, since when, reason.
    List {
        #[command(flatten)]
        letters: Letters,
    },
    /// Shows one dead letter with its body.
    Show {
        #[command(flatten)]
        broker: Broker,
        /// The consumer whose letter it is.
        #[arg(long)]
        consumer: String,
        /// The message id.
        #[arg(long)]
        id: String,
    },
    /// Gives dead letters to their consumer once more.
    Replay {
        #[command(flatten)]
        letters: Letters,
        /// The most letters in a second.
        #[arg(long, default_value_t = 100)]
        per_second: u32,
        /// Only lists what would be replayed.
        #[arg(long)]
        dry_run: bool,
    },
    /// Shows how far publishing and consuming are behind: outboxes as services report them, queues as the broker does.
    Lag {
        #[command(flatten)]
        broker: Broker,
        /// A consumer, such as `product`; may be given several times.
        #[arg(
            long = "consumer",
            value_name = "CONSUMER",
            required_unless_present = "admins"
        )]
        consumers: Vec<String>,
        /// The admin endpoint of a service, such as `http://127.0.0.1:9090`; may be given several times.
        #[arg(long = "admin", value_name = "URL")]
        admins: Vec<Admin>,
        /// Only those that are behind.
        #[arg(long)]
        behind: bool,
    },
    /// Removes dead letters for good: their effect will never happen.
    Drop {
        #[command(flatten)]
        letters: Letters,
        /// Without an id and a kind: all of them are meant.
        #[arg(long, required_unless_present_any = ["id", "kind"])]
        all: bool,
        /// Only lists what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Which dead letters.
#[derive(clap::Args)]
pub(crate) struct Letters {
    #[command(flatten)]
    broker: Broker,
    /// The consumer whose letters they are.
    #[arg(long)]
    consumer: String,
    /// Only those of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Only the one with this message id.
    #[arg(long)]
    id: Option<String>,
    /// The most letters, oldest first.
    #[arg(long, default_value_t = 1_000)]
    limit: usize,
}

impl Letters {
    fn filter(&self) -> LetterFilter {
        LetterFilter {
            kind: self.kind.clone(),
            message_id: self.id.clone(),
        }
    }
}

/// Carries out a command; `out` gets what people are to read.
pub(crate) fn run(command: Command, out: &mut impl Write) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Declare {
                broker,
                consumer,
                kinds,
            } => {
                let subscription = Subscription {
                    consumer,
                    kinds,
                    prefetch: 1,
                };
                Ok(declare(&config(broker)?, &[subscription]).await?)
            }
            Command::Lag {
                broker,
                consumers,
                admins,
                behind,
            } => lag::run(&config(broker)?, &consumers, &admins, behind, out).await,
            Command::Show {
                broker,
                consumer,
                id,
            } => {
                let found = open(broker)?.show(&consumer, &id).await?;
                let letter = found.with_context(|| format!("dead letter \"{id}\" not found"))?;
                Ok(show(&letter, out)?)
            }
            Command::List { letters }
            | Command::Replay {
                letters,
                dry_run: true,
                ..
            }
            | Command::Drop {
                letters,
                dry_run: true,
                ..
            } => list(letters, out).await,
            Command::Replay {
                letters,
                per_second,
                ..
            } => {
                let (filter, limit) = (letters.filter(), letters.limit);
                let dead = open(letters.broker)?;
                let done = dead
                    .replay(&letters.consumer, &filter, limit, per_second)
                    .await?;
                let (replayed, malformed) = (done.replayed, done.malformed);
                Ok(writeln!(
                    out,
                    "{replayed} replayed, {malformed} are no events and stay"
                )?)
            }
            Command::Drop { letters, .. } => {
                let (filter, limit) = (letters.filter(), letters.limit);
                let dead = open(letters.broker)?;
                let dropped = dead.drop(&letters.consumer, &filter, limit).await?;
                Ok(writeln!(out, "{dropped} dropped")?)
            }
        }
    })
}

async fn list(letters: Letters, out: &mut impl Write) -> anyhow::Result<()> {
    let (filter, limit) = (letters.filter(), letters.limit);
    let dead = open(letters.broker)?;
    for letter in dead.list(&letters.consumer, &filter, limit).await? {
        let attempts = match &letter.event {
            Ok((_, attempts)) => attempts.to_string(),
            Err(_) => "-".to_owned(),
        };
        let Letter {
            message_id,
            kind,
            reason,
            ..
        } = &letter;
        let since = since(&letter);
        writeln!(out, "{message_id}\t{kind}\t{attempts}\t{since}\t{reason}")?;
    }
    Ok(())
}

fn show(letter: &Letter, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "message id: {}", letter.message_id)?;
    writeln!(out, "kind: {}", letter.kind)?;
    writeln!(out, "reason: {}", letter.reason)?;
    writeln!(out, "dead since: {}", since(letter))?;
    match &letter.event {
        Ok((event, attempts)) => {
            writeln!(out, "attempts: {attempts}")?;
            writeln!(out, "aggregate: {}", event.aggregate_id)?;
            writeln!(out, "version: {}", event.aggregate_version)?;
            writeln!(out, "occurred at: {}", instant(event.occurred_at_us))?;
            let trace = event.traceparent.as_deref().unwrap_or("-");
            writeln!(out, "trace: {trace}")?;
        }
        Err(wrong) => writeln!(out, "no event: {wrong}")?,
    }
    writeln!(out, "body: {}", hex::encode(&letter.body))
}

fn since(letter: &Letter) -> String {
    letter.dead_at_us.map_or("-".to_owned(), instant)
}

/// Microseconds since the Unix epoch as RFC 3339; the number itself where that has no date for it.
fn instant(us: i64) -> String {
    let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(us) * 1_000);
    let text = instant
        .ok()
        .and_then(|instant| instant.format(&Rfc3339).ok());
    text.unwrap_or_else(|| us.to_string())
}

fn open(broker: Broker) -> anyhow::Result<RabbitMqDeadLetters> {
    let bus = RabbitMqBus::start(config(broker)?, "meshctl", Metrics::unregistered()?)?;
    Ok(bus.dead_letters())
}

fn config(broker: Broker) -> anyhow::Result<RabbitMqConfig> {
    let mut config = match &broker.config {
        Some(path) => read(path)?,
        None => RabbitMqConfig::default(),
    };
    if let Some(url) = broker.url {
        config.url = url;
    }
    if let Some(exchange) = broker.exchange {
        config.exchange = exchange;
    }
    if let Some(user) = broker.user {
        config.user = user;
    }
    if let Some(file) = broker.password_file {
        config.password_file = Some(file);
    }
    Ok(config)
}

fn read(path: &Path) -> anyhow::Result<RabbitMqConfig> {
    let shown = path.display();
    let text =
        fs::read_to_string(path).with_context(|| format!("file \"{shown}\" cannot be read"))?;
    toml::from_str(&text).with_context(|| format!("file \"{shown}\" is no RabbitMQ configuration"))
}
