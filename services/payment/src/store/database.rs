//! The database that is configured: PostgreSQL where it has a URL, else a SQLite file.

use super::{
    AuditLog, Books, Desk, PostgresStore, Reconciliations, SqliteStore, Store, postgres, sqlite,
};
use crate::config::{ServiceConfig, SharedConfig};
use crate::provider::References;
use anyhow::{Context as _, ensure};
use mesh_events::{FaultPoints, Outbox};
use mesh_store::postgres::outbox::PostgresOutbox;
use mesh_store::sqlite::outbox::SqliteOutbox;
use mesh_store::{Postgres, PostgresConfig, Sqlite};
use std::sync::Arc;
use tokio::sync::Notify;

/// An open database.
pub(crate) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres, SharedConfig),
}

impl Database {
    /// Opens what is configured. Every commit passes `fault_points`.
    pub(crate) async fn open(
        config: &ServiceConfig,
        fault_points: FaultPoints,
    ) -> anyhow::Result<Self> {
        if !config.postgres.url.is_empty() {
            let postgres = Postgres::connect(&config.postgres, &postgres::MIGRATIONS)
                .await
                .context("the database of payments")?;
            let postgres = postgres.with_fault_points(fault_points);
            return Ok(Self::Postgres(postgres, config.shared.clone()));
        }
        let sqlite = Sqlite::open(&config.database, &sqlite::MIGRATIONS)
            .await
            .context("the database of payments")?
            .with_fault_points(fault_points);
        let resumed = SqliteStore::new(sqlite.clone())
            .end_leases()
            .await
            .context("payments left half done")?;
        tracing::debug!(payments = resumed, "left half done by the last process");
        Ok(Self::Sqlite(sqlite))
    }

    /// The storage in it.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteStore::new(sqlite.clone())),
            Self::Postgres(postgres, shared) => {
                Arc::new(PostgresStore::new(postgres.clone(), shared))
            }
        }
    }

    /// What providers call things.
    pub(crate) fn references(&self) -> Arc<dyn References> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteStore::new(sqlite.clone())),
            Self::Postgres(postgres, shared) => {
                Arc::new(PostgresStore::new(postgres.clone(), shared))
            }
        }
    }

    /// Who did what.
    pub(crate) fn audit(&self) -> Arc<dyn AuditLog> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteStore::new(sqlite.clone())),
            Self::Postgres(postgres, shared) => {
                Arc::new(PostgresStore::new(postgres.clone(), shared))
            }
        }
    }

    /// What operators look at.
    pub(crate) fn desk(&self) -> Arc<dyn Desk> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteStore::new(sqlite.clone())),
            Self::Postgres(postgres, shared) => {
                Arc::new(PostgresStore::new(postgres.clone(), shared))
            }
        }
    }

    /// What reconciliation needs.
    pub(crate) fn reconciliations(&self) -> Arc<dyn Reconciliations> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteStore::new(sqlite.clone())),
            Self::Postgres(postgres, shared) => {
                Arc::new(PostgresStore::new(postgres.clone(), shared))
            }
        }
    }

    /// The books, for the accountant.
    pub(crate) fn books(&self) -> Arc<dyn Books> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteStore::new(sqlite.clone())),
            Self::Postgres(postgres, shared) => {
                Arc::new(PostgresStore::new(postgres.clone(), shared))
            }
        }
    }

    /// Events that wait to be published.
    pub(crate) fn outbox(&self) -> Arc<dyn Outbox> {
        match self {
            Self::Sqlite(sqlite) => Arc::new(SqliteOutbox::new(sqlite.clone())),
            Self::Postgres(postgres, _) => Arc::new(PostgresOutbox::new(postgres.clone())),
        }
    }

    /// Notified when there may be a new one.
    pub(crate) fn wake(&self) -> Arc<Notify> {
        match self {
            Self::Sqlite(sqlite) => sqlite.wake(),
            Self::Postgres(postgres, _) => postgres.committed(),
        }
    }

    /// Waits for what is under way and closes it.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        match self {
            Self::Sqlite(sqlite) => Ok(sqlite.close().await?),
            Self::Postgres(postgres, _) => {
                postgres.close().await;
                Ok(())
            }
        }
    }
}

/// Who did what in the configured database, for whoever only reads it; it may be in use. A file must be there.
pub(crate) async fn audit(config: &ServiceConfig) -> anyhow::Result<Arc<dyn AuditLog>> {
    Ok(beside(config).await?.audit())
}

/// The configured database, for whoever looks into it while the service may be using it. A file must be there.
pub(crate) async fn beside(config: &ServiceConfig) -> anyhow::Result<Database> {
    if !config.postgres.url.is_empty() {
        let postgres = Postgres::connect(&config.postgres, &postgres::MIGRATIONS)
            .await
            .context("the database of payments")?;
        return Ok(Database::Postgres(postgres, config.shared.clone()));
    }
    let path = &config.database.path;
    ensure!(path.exists(), "there is no database at {}", path.display());
    let sqlite = Sqlite::open(&config.database, &sqlite::MIGRATIONS)
        .await
        .context("the database of payments")?;
    Ok(Database::Sqlite(sqlite))
}

/// Brings the schema up, and gives the role that the service runs under its rights; empty: none.
pub async fn migrate(config: &PostgresConfig, role: &str) -> anyhow::Result<()> {
    mesh_store::postgres::migrate(config, &postgres::schema(role))
        .await
        .context("the database of payments")
}
