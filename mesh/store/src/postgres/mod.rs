//! A PostgreSQL database as the storage of one service, shared by all its replicas.
//!
//! The schema is brought up by [`migrate`], under a role of its own, before a release is rolled out; the
//! service itself may only read and write rows, and refuses to start on a schema that is older than it.
//! A newer schema is fine: migrations only add, and the release that added may be rolling out just now.

pub mod dead_letters;
mod error;
pub mod idempotency;
pub mod inbox;
mod migrate;
mod open;
pub mod outbox;
mod parts;
mod password;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    path::PathBuf,
    sync::Arc,
};

use mesh_events::{AFTER_COMMIT, BEFORE_COMMIT, FaultPoints};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool, Transaction, migrate::Migrator};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::{Durability, Reads, span::TransactionSpan};

pub use error::OpenError;
pub use migrate::{Schema, migrate};
pub use parts::with_parts;

/// Where a service keeps its data, and what a statement may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://user@host:port/database`; `?sslmode=verify-full&sslrootcert=FILE` asks for TLS.
    pub url: String,
    /// A file with the password, so that no password stands in a configuration; when it changes, new connections
    /// use the new one. Empty: none is sent.
    pub password_file: PathBuf,
    /// Whether an acknowledged write must survive a power cut of the server.
    pub durability: Durability,
    /// Connections at most.
    pub connections_max: u32,
    /// How long to wait for a free connection, in milliseconds.
    pub acquire_timeout_ms: u64,
    /// How long to go on trying to connect at the start, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a statement may run, in milliseconds.
    pub statement_timeout_ms: u64,
    /// How long a statement may wait for a lock, in milliseconds.
    pub lock_timeout_ms: u64,
    /// How long a transaction may stay open and do nothing, in milliseconds.
    pub idle_in_transaction_timeout_ms: u64,
}

impl Default for PostgresConfig {
    fn default() -> PostgresConfig {
        PostgresConfig {
            url: String::new(),
            password_file: PathBuf::new(),
            durability: Durability::Full,
            connections_max: 16,
            acquire_timeout_ms: 2_000,
            connect_timeout_ms: 30_000,
            statement_timeout_ms: 5_000,
            lock_timeout_ms: 2_000,
            idle_in_transaction_timeout_ms: 10_000,
        }
    }
}

/// An open database. Clones are the same database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    /// For spans.
    name: Arc<str>,
    committed: Arc<Notify>,
    fault_points: FaultPoints,
    /// Ends with the last clone.
    _following: Arc<AbortOnDropHandle<()>>,
}

impl Postgres {
    /// Connects, checks that acknowledged commits are on the server's disk, and that the schema has every
    /// migration of this crate and of the service.
    pub async fn connect(
        config: &PostgresConfig,
        migrations: &Migrator,
    ) -> Result<Postgres, OpenError> {
        let pool = open::pool(config, migrations).await?;
        let name = pool.connect_options().get_database().map(Arc::from);
        let following = password::follow(pool.clone(), config.clone());
        Ok(Postgres {
            pool,
            name: name.unwrap_or_default(),
            committed: Arc::new(Notify::new()),
            fault_points: FaultPoints::default(),
            _following: Arc::new(AbortOnDropHandle::new(mesh::spawn(following))),
        })
    }

    /// The same database, where every commit passes these places.
    #[must_use]
    pub fn with_fault_points(self, fault_points: FaultPoints) -> Postgres {
        Postgres {
            fault_points,
            ..self
        }
    }

    /// Begins a transaction. Never hold it across network I/O to anybody else.
    pub async fn begin(&self) -> Result<Write, sqlx::Error> {
        // In a task that nobody's going away ends: sqlx 0.9 forgets a BEGIN that is dropped before it is answered.
        // The connection would go back to the pool with an open transaction, and swallow what others commit on it.
        let (pool, span) = (self.pool.clone(), self.transaction());
        let begun = mesh::spawn(async move { pool.begin().await });
        Ok(Write {
            transaction: begun.await.map_err(|_stopping| sqlx::Error::PoolClosed)??,
            committed: self.committed.clone(),
            fault_points: self.fault_points.clone(),
            span,
        })
    }

    /// Connections for statements that change something.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Reads, outside of a transaction.
    pub fn reads(&self) -> Reads<'_, sqlx::Postgres> {
        Reads::new(&self.pool, "postgresql", &self.name)
    }

    /// Notified after each commit of a [`Write`], and by [`Committing::has_committed`]: wakes the relay.
    pub fn committed(&self) -> Arc<Notify> {
        self.committed.clone()
    }

    /// To be called before a statement is sent that is a transaction by itself, and kept until it is answered.
    pub fn committing(&self) -> Committing<'_> {
        self.fault_points.pass(BEFORE_COMMIT);
        Committing {
            postgres: self,
            span: self.transaction(),
        }
    }

    fn transaction(&self) -> TransactionSpan {
        TransactionSpan::begin("postgresql", &self.name)
    }

    /// Waits for connections in use and closes all of them.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

/// A statement that is a transaction by itself, while it is under way.
#[derive(Debug)]
#[must_use = "to be kept until the statement is answered"]
pub struct Committing<'p> {
    postgres: &'p Postgres,
    span: TransactionSpan,
}

impl Committing<'_> {
    /// To be called when it has changed something; `events`: whether it may have left some in the outbox.
    pub fn has_committed(self, events: bool) {
        self.postgres.fault_points.pass(AFTER_COMMIT);
        if events {
            self.postgres.committed.notify_one();
        }
        drop(self.span);
    }
}

/// A transaction. Dropped without [`Write::commit`], it is rolled back.
#[derive(Debug)]
pub struct Write {
    transaction: Transaction<'static, sqlx::Postgres>,
    committed: Arc<Notify>,
    fault_points: FaultPoints,
    span: TransactionSpan,
}

impl Write {
    /// Commits. When it returns `Ok` the changes are on the server's disk. When it fails, or is dropped
    /// while it runs, they may or may not be.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.fault_points.pass(BEFORE_COMMIT);
        let committed = self.transaction.commit().await;
        committed.inspect_err(|error| self.span.failed(error))?;
        self.fault_points.pass(AFTER_COMMIT);
        self.committed.notify_one();
        Ok(())
    }

    /// Takes everything back and waits until that is done.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.transaction.rollback().await
    }
}

impl Deref for Write {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }
}
