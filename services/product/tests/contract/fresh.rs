//! Fresh stores in SQLite files.

use std::sync::Arc;

use mesh_store::{Durability, SqliteConfig};
use product::store::{Store, sqlite::SqliteStore};

use crate::harness::{CREATED, WRONG_STOCK};

/// How many random sequences are tried where nothing else is said.
pub(crate) const SEQUENCES: usize = 10_000;

/// A fresh store; its files go with it.
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn Store>,
    sqlite: SqliteStore,
    _folder: tempfile::TempDir,
}

impl Fresh {
    pub(crate) async fn open() -> Self {
        Self::with(Durability::Full).await
    }

    /// Where a power cut may take commits back: fast.
    pub(crate) async fn relaxed() -> Self {
        Self::with(Durability::Relaxed).await
    }

    async fn with(durability: Durability) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("product.db");
        let config = SqliteConfig {
            path,
            durability,
            ..SqliteConfig::default()
        };
        let sqlite = SqliteStore::open(&config).await.unwrap();
        Self {
            store: Arc::new(sqlite.clone()),
            sqlite,
            _folder: folder,
        }
    }

    /// Events that wait and tell of new products.
    pub(crate) async fn created(&self) -> i64 {
        sqlx::query_scalar(CREATED)
            .fetch_one(self.sqlite.sqlite().reader())
            .await
            .unwrap()
    }

    /// Checks what must hold whatever was done.
    pub(crate) async fn check(self) {
        let wrong: Vec<(String, i64, i64, i64)> = sqlx::query_as(WRONG_STOCK)
            .fetch_all(self.sqlite.sqlite().reader())
            .await
            .unwrap();
        assert_eq!(wrong, [], "sku, on hand, reserved, held");
    }
}
