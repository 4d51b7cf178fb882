//! A fresh SQLite file.

use mesh_store::{Durability, Sqlite, SqliteConfig};
use payment::provider::References;
use payment::store::{AuditLog, Books, Desk, Reconciliations, SqliteStore, Store, sqlite};
use sqlx::AssertSqlSafe;
use sqlx::types::Uuid;
use std::sync::Arc;
use tempfile::TempDir;

/// A database of one test; it goes with it.
pub(crate) struct Storage {
    sqlite: Sqlite,
    _folder: TempDir,
}

impl Storage {
    pub(crate) async fn fresh(durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig {
            path: folder.path().join("payment.db"),
            durability,
            ..SqliteConfig::default()
        };
        let sqlite = Sqlite::open(&config, &sqlite::MIGRATIONS).await.unwrap();
        Self {
            sqlite,
            _folder: folder,
        }
    }

    pub(crate) fn desk(&self) -> Arc<dyn Desk> {
        Arc::new(self.sqlite())
    }

    pub(crate) fn audit(&self) -> Arc<dyn AuditLog> {
        Arc::new(self.sqlite())
    }

    pub(crate) fn reconciliations(&self) -> Arc<dyn Reconciliations> {
        Arc::new(self.sqlite())
    }

    pub(crate) fn books(&self) -> Arc<dyn Books> {
        Arc::new(self.sqlite())
    }

    /// An id as it stands in the tables.
    pub(crate) fn key(id: &str, _: Uuid) -> String {
        format!("'{id}'")
    }

    /// What a row of `payments` has here only, as names and values.
    pub(crate) fn more_of_payments() -> (&'static str, &'static str) {
        ("", "")
    }

    pub(crate) fn references(&self) -> Arc<dyn References> {
        Arc::new(self.sqlite())
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.sqlite())
    }

    pub(crate) fn sqlite(&self) -> SqliteStore {
        SqliteStore::new(self.sqlite.clone())
    }

    /// The store of another replica. One process has a SQLite file; two stores over it come closest.
    pub(crate) async fn replica(&self) -> Arc<dyn Store> {
        std::future::ready(self.store()).await
    }

    /// Leases run by the clock of the process, which the test has moved already.
    pub(crate) async fn outlast_leases(&self) {
        std::future::ready(()).await;
    }

    /// The first column of what a query finds.
    pub(crate) async fn texts(&self, sql: &'static str) -> Vec<String> {
        sqlx::query_scalar(sql)
            .fetch_all(self.sqlite.reader())
            .await
            .unwrap()
    }

    /// Lets the chain be changed, as whoever can write to the file can.
    pub(crate) async fn unlock_audit(&self) {
        for trigger in ["audit_log_is_not_updated", "audit_log_is_not_deleted"] {
            let dropped = self.execute(&format!("DROP TRIGGER {trigger}")).await;
            dropped.unwrap();
        }
    }

    /// The bodies of the events of a kind that wait, in the order in which they were made.
    pub(crate) async fn events(&self, kind: &str) -> Vec<Vec<u8>> {
        sqlx::query_scalar("SELECT body FROM mesh_outbox WHERE kind = ? ORDER BY message_id")
            .bind(kind)
            .fetch_all(self.sqlite.reader())
            .await
            .unwrap()
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(self.sqlite.reader())
            .await
            .unwrap()
    }

    /// Carries a statement out, and says what is against it.
    pub(crate) async fn execute(&self, sql: &str) -> Result<u64, String> {
        let mut write = self.sqlite.begin().await.unwrap();
        let done = sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(&mut *write)
            .await
            .map_err(|error| error.to_string())?;
        write.commit().await.unwrap();
        Ok(done.rows_affected())
    }
}
