//! Where a service keeps its data: the embedded default, or what replicas share.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use mesh_events::{DeadLetters, FaultPoints, Outbox};
use mesh_runtime::Clock;
use mesh_store::{
    Postgres, Sqlite,
    postgres::{Schema, dead_letters::PostgresDeadLetters, outbox::PostgresOutbox},
    sqlite::{dead_letters::SqliteDeadLetters, outbox::SqliteOutbox},
};
use sqlx::{Executor as _, migrate::Migrator};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, SweepConfig, postgres, sqlite};

const HOUR_US: i64 = 3_600_000_000;

/// An open database. Clones are the same one.
#[derive(Clone)]
pub enum Database {
    /// A file.
    Sqlite(Sqlite),
    /// A server.
    Postgres(Postgres),
}

impl Database {
    /// Connects to PostgreSQL where its URL is given; else opens the database file, creating it where there is
    /// none. Every commit passes `fault_points`.
    pub async fn open(
        config: &Config,
        migrations: &Migrator,
        fault_points: FaultPoints,
    ) -> anyhow::Result<Self> {
        if config.postgres.url.is_empty() {
            let sqlite = Sqlite::open(&config.store, migrations).await?;
            return Ok(Self::Sqlite(sqlite.with_fault_points(fault_points)));
        }
        let postgres = Postgres::connect(&config.postgres, migrations).await?;
        Ok(Self::Postgres(postgres.with_fault_points(fault_points)))
    }

    /// Brings the schema of the configured PostgreSQL up. `role` is whom the service runs under; empty: the one
    /// that migrates.
    pub async fn migrate(config: &Config, migrations: &Migrator, role: &str) -> anyhow::Result<()> {
        let append_only = &[];
        let schema = Schema {
            migrations,
            role,
            append_only,
        };
        mesh_store::postgres::migrate(&config.postgres, &schema)
            .await
            .context("bringing the schema up")
    }

    /// Events that wait to be published.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteOutbox::new(sqlite.clone())),
            Self::Postgres(postgres) => Arc::new(PostgresOutbox::new(postgres.clone())),
        }
    }

    /// Events that could not be applied, where the bus has no place for them.
    pub(crate) fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteDeadLetters::new(sqlite.clone())),
            Self::Postgres(postgres) => Arc::new(PostgresDeadLetters::new(postgres.clone())),
        }
    }

    /// Notified when there may be events to publish.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        match self {
            Self::Sqlite(sqlite) => sqlite.wake(),
            Self::Postgres(postgres) => postgres.committed(),
        }
    }

    /// Whether it answers: a check for readiness. An error says why not. It costs the same however much the database
    /// holds: a service with a long outbox is ready.
    pub(crate) async fn answers(&self) -> Result<(), String> {
        const QUESTION: &str = "SELECT 1";
        let answered = match self {
            Self::Sqlite(sqlite) => sqlite.reader().execute(QUESTION).await.map(drop),
            Self::Postgres(postgres) => postgres.pool().execute(QUESTION).await.map(drop),
        };
        answered.map_err(|error| error.to_string())
    }

    /// Finishes what is under way and closes.
    pub async fn close(&self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(sqlite) => sqlite.close().await?,
            Self::Postgres(postgres) => postgres.close().await,
        }
        Ok(())
    }

    /// Forgets answers and message ids that were kept long enough; says how many.
    pub(crate) async fn sweep(&self, config: &SweepConfig, now_us: i64) -> Result<u64, Error> {
        let before = |hours: u32| now_us - i64::from(hours) * HOUR_US;
        let (answers_us, inbox_us) = (before(config.answers_hours), before(config.inbox_hours));
        let mut swept = 0;
        loop {
            let limit = config.batch_max;
            let trimmed = match self {
                Self::Sqlite(sqlite) => sqlite::trim(sqlite, answers_us, inbox_us, limit).await?,
                Self::Postgres(postgres) => {
                    postgres::trim(postgres, answers_us, inbox_us, limit).await?
                }
            };
            swept += trimmed;
            if trimmed == 0 {
                return Ok(swept);
            }
        }
    }

    /// Sweeps from time to time until `shutdown`.
    pub(crate) async fn keep_swept(
        self,
        config: SweepConfig,
        clock: Clock,
        shutdown: CancellationToken,
    ) {
        let mut ticks = interval(Duration::from_millis(config.interval_ms.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let round = self.sweep(&config, clock.now_us());
            match shutdown.run_until_cancelled(round).await {
                None => return,
                Some(Ok(0)) => {}
                Some(Ok(swept)) => tracing::debug!(swept, "swept"),
                Some(Err(error)) => tracing::warn!(%error, "not swept"),
            }
        }
    }
}
