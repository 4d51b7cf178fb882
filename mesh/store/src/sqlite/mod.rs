//! A SQLite file as the database of one service: one writer, several readers, and every commit on
//! disk before it is acknowledged.
//!
//! SQLite has one writer at a time. Instead of letting connections find that out by `SQLITE_BUSY`,
//! writers queue here for the one connection, first come first served, and begin with
//! `BEGIN IMMEDIATE`, so that a transaction which may begin can also finish.

pub mod dead_letters;
pub mod idempotency;
pub mod inbox;
mod open;
pub mod outbox;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_events::{AFTER_COMMIT, BEFORE_COMMIT, FaultPoints};
use serde::{Deserialize, Serialize};
use sqlx::{Connection as _, SqliteConnection, SqlitePool, migrate::Migrator};
use tokio::{
    runtime::Handle,
    sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard},
    time::timeout,
};

use crate::{OpenError, Reads, span::TransactionSpan};

/// Where a service keeps its data, and what it may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SqliteConfig {
    /// The database file. It and its folder are created when missing.
    pub path: PathBuf,
    /// Whether an acknowledged write must survive a power cut.
    pub durability: Durability,
    /// Connections that only read.
    pub readers_max: u32,
    /// How long to wait for another process that holds a lock on the file, in milliseconds.
    pub busy_timeout_ms: u64,
    /// How long a write or a read may queue for a connection within this process, in milliseconds.
    pub queue_timeout_ms: u64,
}

impl Default for SqliteConfig {
    fn default() -> SqliteConfig {
        SqliteConfig {
            path: PathBuf::from("data/store.db"),
            durability: Durability::Full,
            readers_max: 4,
            busy_timeout_ms: 5_000,
            queue_timeout_ms: 10_000,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// A power cut: `synchronous = FULL` and a write-ahead log, checked when opening.
    #[default]
    Full,
    /// The end of the process only: `synchronous = NORMAL`, and whatever journal the file system
    /// allows. A power cut may take the last commits back. For throw-away data.
    Relaxed,
}

/// An open database. Clones are the same database.
#[derive(Clone)]
pub struct Sqlite {
    shared: Arc<Shared>,
    fault_points: FaultPoints,
}

struct Shared {
    config: SqliteConfig,
    /// The file's name, for spans.
    name: String,
    writer: Arc<AsyncMutex<Writer>>,
    readers: SqlitePool,
    committed: Arc<Notify>,
    leases: AsyncMutex<outbox::Leases>,
}

struct Writer {
    /// `None` before the first use after the connection was lost, and after closing.
    connection: Option<SqliteConnection>,
    /// Whether a transaction may be open that nobody will finish any more.
    dirty: bool,
}

impl Sqlite {
    /// Opens or creates the database, checks that its settings took hold, and applies the migrations
    /// of this crate (recorded in `_mesh_migrations`) and of the service (`_sqlx_migrations`).
    pub async fn open(config: &SqliteConfig, migrations: &Migrator) -> Result<Sqlite, OpenError> {
        let connection = open::writer(config, migrations).await?;
        let readers = open::readers(config).await?;
        let writer = Writer {
            connection: Some(connection),
            dirty: false,
        };
        let name = config.path.file_name().unwrap_or_default();
        let shared = Shared {
            config: config.clone(),
            name: name.to_string_lossy().into_owned(),
            writer: Arc::new(AsyncMutex::new(writer)),
            readers,
            committed: Arc::new(Notify::new()),
            leases: AsyncMutex::default(),
        };
        Ok(Sqlite {
            shared: Arc::new(shared),
            fault_points: FaultPoints::default(),
        })
    }

    /// The same database, where every commit passes these places.
    #[must_use]
    pub fn with_fault_points(self, fault_points: FaultPoints) -> Sqlite {
        Sqlite {
            fault_points,
            ..self
        }
    }

    /// Waits for the writer and begins a transaction. Never hold it across network I/O: every other
    /// write of the service waits. After `queue_timeout_ms` it fails with `PoolTimedOut`.
    pub async fn begin(&self) -> Result<Write, sqlx::Error> {
        let span = TransactionSpan::begin("sqlite", &self.shared.name);
        let limit = Duration::from_millis(self.shared.config.queue_timeout_ms);
        let writer = timeout(limit, self.shared.writer.clone().lock_owned()).await;
        let mut writer = writer.map_err(|_| sqlx::Error::PoolTimedOut)?;
        if self.shared.readers.is_closed() {
            return Err(sqlx::Error::PoolClosed);
        }
        if writer.connection.is_none() {
            writer.connection = Some(open::reopen(&self.shared.config).await?);
        }
        writer.roll_back().await;
        writer.dirty = true;
        let mut write = Write {
            writer: Some(writer),
            committed: self.shared.committed.clone(),
            fault_points: self.fault_points.clone(),
            span,
        };
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut *write)
            .await
            .inspect_err(|error| {
                write.forget_if_lost(error);
            })?;
        Ok(write)
    }

    /// Connections that see what is committed and can not write. Several reads that have to agree
    /// with each other go through one transaction of it.
    pub fn reader(&self) -> Reads<'_, sqlx::Sqlite> {
        Reads::new(&self.shared.readers, "sqlite", &self.shared.name)
    }

    /// Notified after every commit: what the relay of this database is woken by. Each commit wakes one
    /// waiter, so nothing else should wait for it.
    pub fn wake(&self) -> Arc<Notify> {
        self.shared.committed.clone()
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.shared.config.path
    }

    /// Waits for the current transaction and for readers, then closes; SQLite moves the write-ahead
    /// log into the file. Not closing loses nothing, it only leaves that to the next start. After
    /// `queue_timeout_ms` it gives up with `PoolTimedOut`: somebody still holds a connection.
    pub async fn close(&self) -> Result<(), sqlx::Error> {
        let closing = async {
            let mut writer = self.shared.writer.lock().await;
            self.shared.readers.close().await;
            writer.roll_back().await;
            match writer.connection.take() {
                Some(connection) => connection.close().await,
                None => Ok(()),
            }
        };
        let limit = Duration::from_millis(self.shared.config.queue_timeout_ms);
        timeout(limit, closing)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Rolls back what an earlier user left behind. Whether there was anything does not matter.
    async fn roll_back(&mut self) {
        if !self.dirty {
            return;
        }
        if let Some(connection) = &mut self.connection {
            let _nothing_open = sqlx::query("ROLLBACK").execute(connection).await;
        }
        self.dirty = false;
    }
}

/// The one write transaction of a database. Dropped without [`Write::commit`], it is rolled back.
///
/// Use it as a connection: `sqlx::query("…").execute(&mut *write)`.
pub struct Write {
    writer: Option<OwnedMutexGuard<Writer>>,
    committed: Arc<Notify>,
    fault_points: FaultPoints,
    span: TransactionSpan,
}

impl Write {
    /// Commits. When it returns `Ok` the changes are on disk. When it fails, or is dropped while it
    /// runs, they may or may not be.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.fault_points.pass(BEFORE_COMMIT);
        sqlx::query("COMMIT")
            .execute(&mut *self)
            .await
            .inspect_err(|error| {
                self.span.failed(error);
                self.forget_if_lost(error);
            })?;
        self.fault_points.pass(AFTER_COMMIT);
        if let Some(mut writer) = self.writer.take() {
            writer.dirty = false;
        }
        self.committed.notify_one();
        Ok(())
    }

    /// Takes everything back and waits until that is done.
    pub async fn rollback(mut self) {
        if let Some(writer) = &mut self.writer {
            writer.roll_back().await;
        }
    }

    /// A connection whose thread has ended never works again; the next writer opens another.
    fn forget_if_lost(&mut self, error: &sqlx::Error) {
        if let (sqlx::Error::WorkerCrashed, Some(writer)) = (error, &mut self.writer) {
            writer.connection = None;
            writer.dirty = false;
        }
    }
}

impl Deref for Write {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        let writer = self
            .writer
            .as_ref()
            .expect("only commit and drop take the writer");
        writer
            .connection
            .as_ref()
            .expect("begin put a connection there")
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        let writer = self
            .writer
            .as_mut()
            .expect("only commit and drop take the writer");
        writer
            .connection
            .as_mut()
            .expect("begin put a connection there")
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write").finish_non_exhaustive()
    }
}

impl Drop for Write {
    /// Rolls back at once rather than when the next writer comes: an open transaction would keep the
    /// file locked and the log growing. Without a runtime the next `begin` does it.
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take().filter(|writer| writer.dirty) else {
            return;
        };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { writer.roll_back().await });
        }
    }
}
