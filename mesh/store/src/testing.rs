//! What the tests of this crate share: a database of one table in a folder that goes away.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use tempfile::TempDir;

use crate::{Sqlite, SqliteConfig};

/// A service's migrations up to a version: each adds a table `note_<version>`.
pub(crate) fn migrations(up_to: i64) -> Migrator {
    let migration = |version: i64| {
        let sql = format!("CREATE TABLE note_{version} (id INTEGER PRIMARY KEY, text TEXT) STRICT");
        let sql = sqlx::SqlSafeStr::into_sql_str(sqlx::AssertSqlSafe(sql));
        Migration::new(version, "notes".into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations((1..=up_to).map(migration).collect())
}

pub(crate) fn config(folder: &TempDir) -> SqliteConfig {
    SqliteConfig {
        path: folder.path().join("store.db"),
        ..SqliteConfig::default()
    }
}

/// The folder goes away with the first value, so keep it.
pub(crate) async fn open() -> (TempDir, Sqlite) {
    let folder = TempDir::new().unwrap();
    let sqlite = Sqlite::open(&config(&folder), &migrations(1))
        .await
        .unwrap();
    (folder, sqlite)
}
