//! A database and an exchange of a test's own, the processes between them, and the audit afterwards.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::Context as _;
use mesh_events::{Event, Subscription};
use mesh_rabbitmq::{
    Metrics, QueueLag, RabbitMqBus, RabbitMqConfig, RabbitMqDeadLetters, declare, lag,
};
use mesh_store::{
    Postgres, PostgresConfig,
    postgres::{Schema, migrate, outbox},
};
use uuid::Uuid;

use super::{
    KIND, broker,
    effect::{Effect, migrations},
    worker::connect,
};
use crate::{
    eventually,
    ground::{administer, variable, without_password},
};

/// Where events go through.
pub struct Stage {
    /// The broker.
    pub config: RabbitMqConfig,
    /// The database of outbox, inbox and effects.
    pub postgres: Postgres,
    database: String,
    url: String,
    admin: String,
    program: PathBuf,
}

/// What a consumer of a test is told; see [`super::worker`].
#[derive(Clone, Copy)]
pub struct Consume<'a> {
    /// Names queue and inbox.
    pub name: &'a str,
    /// What it makes of events.
    pub effect: Effect,
    /// Further words of its command line.
    pub more: &'a [&'a str],
}

/// What became of events that were appended with [`Effect::Row`] as their effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Events with an effect.
    pub applied: i64,
    /// Events with more than one.
    pub doubled: i64,
    /// Deliveries of events that had their effect before.
    pub repeated: i64,
}

impl Stage {
    /// A fresh database on the server that all tests share, and an exchange at a broker: the one at `addresses`,
    /// else the one that all tests share. `program` is the worker.
    pub async fn set(program: &str, addresses: Option<String>) -> anyhow::Result<Stage> {
        let admin = variable("SHOP_POSTGRES")?;
        let addresses = match addresses {
            Some(addresses) => addresses,
            None => without_password(&variable("SHOP_RABBITMQ")?),
        };
        let id = Uuid::now_v7().simple();
        let database = format!("events_{id}");
        administer(&admin, &format!("CREATE DATABASE {database}")).await?;
        let server = admin.rsplit_once('/').context("SHOP_POSTGRES is a URL")?.0;
        let url = format!("{server}/{database}");
        let config = PostgresConfig {
            url: url.clone(),
            ..PostgresConfig::default()
        };
        let schema = Schema {
            migrations: &migrations(),
            role: "",
            append_only: &[],
        };
        migrate(&config, &schema).await?;
        Ok(Stage {
            config: broker(&addresses, &format!("test.{id}")),
            postgres: connect(&url).await?,
            database,
            url,
            admin,
            program: program.into(),
        })
    }

    /// Declares the queues of a consumer and binds them to kinds, besides those that they are bound to.
    pub async fn bind(&self, consumer: &str, kinds: &[&str]) -> anyhow::Result<()> {
        let subscription = Subscription {
            consumer: consumer.to_owned(),
            kinds: kinds.iter().map(ToString::to_string).collect(),
            prefetch: 1,
        };
        Ok(declare(&self.config, &[subscription]).await?)
    }

    /// The bus in this process.
    pub fn bus(&self) -> anyhow::Result<RabbitMqBus> {
        let metrics = Metrics::unregistered()?;
        Ok(RabbitMqBus::start(self.config.clone(), "test", metrics)?)
    }

    /// The dead letters in this process.
    pub fn dead_letters(&self) -> anyhow::Result<RabbitMqDeadLetters> {
        Ok(self.bus()?.dead_letters())
    }

    /// Commits events in one transaction.
    pub async fn append(&self, events: &[Event]) -> anyhow::Result<()> {
        let mut write = self.postgres.begin().await?;
        outbox::append(&mut write, events, 1).await?;
        Ok(write.commit().await?)
    }

    /// Events of a kind that wait in the outbox.
    pub async fn pending(&self, kind: &str) -> anyhow::Result<i64> {
        let count = sqlx::query_scalar("SELECT count(*) FROM mesh_outbox WHERE kind = $1");
        Ok(count.bind(kind).fetch_one(self.postgres.pool()).await?)
    }

    /// Effects so far.
    pub async fn effects(&self) -> anyhow::Result<i64> {
        let count = sqlx::query_scalar("SELECT count(*) FROM effect");
        Ok(count.fetch_one(self.postgres.pool()).await?)
    }

    /// What became of the events.
    pub async fn rows(&self) -> anyhow::Result<Rows> {
        let audit = sqlx::query_as(
            "WITH applied AS (SELECT count(*) AS times FROM effect GROUP BY message_id) \
             SELECT (SELECT count(*) FROM applied), (SELECT count(*) FROM applied WHERE times > 1), \
                 (SELECT count(*) FROM repeated)",
        );
        let (applied, doubled, repeated) = audit.fetch_one(self.postgres.pool()).await?;
        Ok(Rows {
            applied,
            doubled,
            repeated,
        })
    }

    /// What waits for a consumer at the broker.
    pub async fn lag(&self, consumer: &str) -> anyhow::Result<QueueLag> {
        let lags = lag(&self.config, &[consumer.to_owned()]).await?;
        lags.first().copied().context("one consumer was asked for")
    }

    /// Starts a relay.
    pub fn relay(&self) -> anyhow::Result<Worker> {
        self.start(&["relay"])
    }

    /// Starts a consumer of both kinds of these tests as far as its queue is bound to them: it binds none.
    pub fn consumer(&self, consume: Consume<'_>) -> anyhow::Result<Worker> {
        let effect = match consume.effect {
            Effect::Row => "row",
            Effect::State => "state",
            Effect::Total => "total",
            Effect::TotalWithoutInbox => "total-without-inbox",
        };
        let words = ["consume", "--name", consume.name, "--kind", KIND];
        let words = [&words[..], &["--effect", effect], consume.more].concat();
        self.start(&words)
    }

    fn start(&self, words: &[&str]) -> anyhow::Result<Worker> {
        let mut worker = Command::new(&self.program);
        worker.args(["--postgres", &self.url]);
        worker.args(["--broker", &self.config.url]);
        worker.args(["--exchange", &self.config.exchange]);
        let child = worker.args(words).stdin(Stdio::piped()).spawn();
        Ok(Worker(child.context("cannot start a worker")?))
    }

    /// Gives the database back.
    pub async fn clear(self) -> anyhow::Result<()> {
        self.postgres.close().await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.database);
        Ok(administer(&self.admin, &drop).await?)
    }
}

/// A relay or consumer that runs.
pub struct Worker(Child);

impl Worker {
    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }

    /// Asks it to stop in good order, and waits until it has.
    pub async fn stop(mut self) {
        drop(self.0.stdin.take());
        eventually("a worker that ends", || {
            let ended = self.0.try_wait().expect("it is our child");
            assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
            std::future::ready(ended.is_some())
        })
        .await;
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
