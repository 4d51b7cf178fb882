//! Opens connections and refuses those on which an acknowledged write might not be on disk.

#[cfg(test)]
mod tests;

use std::{borrow::Cow, path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tracing::warn;

use super::{Durability, SqliteConfig};
use crate::{OpenError, folder::create_folder};

/// Tables of this crate. They have a migrations table of their own, so that their versions and a
/// service's never meet and each can tell a newer schema from its own.
static MESH_MIGRATIONS: Migrator = sqlx::migrate!("src/sqlite/migrations");
const MESH_MIGRATIONS_TABLE: &str = "_mesh_migrations";

/// The write-ahead log shrinks back to this size once it has been moved into the file.
const LOG_BYTES_MAX: u32 = 64 << 20;

/// The connection that writes, with settings checked and migrations applied.
pub(super) async fn writer(
    config: &SqliteConfig,
    migrations: &Migrator,
) -> Result<SqliteConnection, OpenError> {
    create_folder_of(&config.path)?;
    let failed = |error| OpenError::of(config.path.clone(), error);
    let mut connection = options(config).connect().await.map_err(failed)?;
    check(&mut connection, config).await?;
    probe(&mut connection).await.map_err(failed)?;
    migrate(&mut connection, config, &mesh_migrations()).await?;
    migrate(&mut connection, config, migrations).await?;
    Ok(connection)
}

/// Another connection that writes, after the first was lost. Migrations were applied before.
pub(super) async fn reopen(config: &SqliteConfig) -> Result<SqliteConnection, sqlx::Error> {
    let mut connection = options(config).create_if_missing(false).connect().await?;
    check(&mut connection, config)
        .await
        .map_err(|error| sqlx::Error::Configuration(Box::new(error)))?;
    Ok(connection)
}

/// Connections that can not write, whatever they are asked.
pub(super) async fn readers(config: &SqliteConfig) -> Result<SqlitePool, OpenError> {
    SqlitePoolOptions::new()
        .max_connections(config.readers_max.max(1))
        .acquire_timeout(Duration::from_millis(config.queue_timeout_ms))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false) // A file does not hang up.
        .connect_with(options(config).create_if_missing(false).read_only(true))
        .await
        .map_err(|error| OpenError::of(config.path.clone(), error))
}

fn options(config: &SqliteConfig) -> SqliteConnectOptions {
    let synchronous = match config.durability {
        Durability::Full => SqliteSynchronous::Full,
        Durability::Relaxed => SqliteSynchronous::Normal,
    };
    SqliteConnectOptions::new()
        .filename(&config.path)
        .create_if_missing(true)
        .busy_timeout(Duration::from_millis(config.busy_timeout_ms))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(true)
        .pragma("fullfsync", "ON") // On macOS a plain fsync stops at the drive's cache.
        .pragma("checkpoint_fullfsync", "ON")
        .pragma("journal_size_limit", LOG_BYTES_MAX.to_string())
        .disable_statement_logging()
}

/// SQLite syncs the folder of its file, but nobody syncs the folder above for it.
fn create_folder_of(path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    else {
        return Ok(());
    };
    create_folder(folder).map_err(|source| OpenError::Folder {
        path: folder.into(),
        source,
    })
}

/// Reads the settings back: SQLite does not report an error when one does not take hold.
async fn check(connection: &mut SqliteConnection, config: &SqliteConfig) -> Result<(), OpenError> {
    let failed = |error| OpenError::of(config.path.clone(), error);
    let journal_mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let foreign_keys: i64 = sqlx::query_scalar("PRAGMA foreign_keys")
        .fetch_one(&mut *connection)
        .await
        .map_err(failed)?;
    let refuse = |setting, wanted, found: &str| OpenError::Setting {
        path: config.path.clone(),
        setting,
        wanted,
        found: found.into(),
    };
    if foreign_keys != 1 {
        return Err(refuse("foreign_keys", "ON", "OFF"));
    }
    let less = if journal_mode != "wal" {
        refuse("journal_mode", "wal", &journal_mode)
    } else if synchronous < 2 {
        refuse(
            "synchronous",
            "FULL",
            ["OFF", "NORMAL"][usize::from(synchronous == 1)],
        )
    } else {
        return Ok(());
    };
    match config.durability {
        Durability::Full => Err(less),
        Durability::Relaxed => {
            warn!(path = %config.path.display(), journal_mode, synchronous,
                "durability is relaxed: a power cut may take acknowledged writes back");
            Ok(())
        }
    }
}

/// Writes and takes it back, so that a file that only can be read fails now and not at the first
/// customer. `BEGIN IMMEDIATE` alone does not tell: SQLite quietly begins a reading transaction.
async fn probe(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("BEGIN IMMEDIATE; CREATE TABLE mesh_probe (id); ROLLBACK")
        .execute(connection)
        .await?;
    Ok(())
}

fn mesh_migrations() -> Migrator {
    Migrator {
        migrations: Cow::Borrowed(&MESH_MIGRATIONS.migrations),
        table_name: Cow::Borrowed(MESH_MIGRATIONS_TABLE),
        ..Migrator::DEFAULT
    }
}

async fn migrate(
    connection: &mut SqliteConnection,
    config: &SqliteConfig,
    migrations: &Migrator,
) -> Result<(), OpenError> {
    let path = config.path.clone();
    let known = migrations
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0);
    migrations
        .run(connection)
        .await
        .map_err(|source| match source {
            MigrateError::VersionMissing(found) if found > known => {
                OpenError::NewerSchema { path, found, known }
            }
            source => OpenError::Migration { path, source },
        })
}
