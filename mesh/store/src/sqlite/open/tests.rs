use std::fs;

use std::error::Error as _;

use sqlx::Connection as _;
use tempfile::TempDir;

use super::*;
use crate::{
    Sqlite,
    testing::{config, migrations},
};

async fn connect(options: SqliteConnectOptions) -> SqliteConnection {
    options.connect().await.unwrap()
}

#[tokio::test]
async fn the_settings_that_durability_rests_on_hold_on_a_fresh_file() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder);
    let mut connection = writer(&config, &migrations(1)).await.unwrap();
    let pragma = async |connection: &mut SqliteConnection, sql| -> i64 {
        sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
    };
    assert_eq!(pragma(&mut connection, "PRAGMA synchronous").await, 2);
    assert_eq!(pragma(&mut connection, "PRAGMA foreign_keys").await, 1);
    assert_eq!(pragma(&mut connection, "PRAGMA fullfsync").await, 1);
    assert_eq!(pragma(&mut connection, "PRAGMA busy_timeout").await, 5_000);
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn less_than_durable_is_refused_by_the_name_of_the_setting() {
    let folder = TempDir::new().unwrap();
    let full = config(&folder);
    let relaxed = SqliteConfig {
        durability: Durability::Relaxed,
        ..full.clone()
    };
    for (less, named) in [
        (
            options(&full).synchronous(SqliteSynchronous::Normal),
            "synchronous is \"NORMAL\"",
        ),
        (
            options(&full).synchronous(SqliteSynchronous::Off),
            "synchronous is \"OFF\"",
        ),
        (
            options(&full).journal_mode(SqliteJournalMode::Delete),
            "journal_mode is \"delete\"",
        ),
    ] {
        let mut connection = connect(less).await;
        let message = check(&mut connection, &full).await.unwrap_err().to_string();
        assert!(message.contains(named), "{message}");
        assert!(message.contains("durability = \"relaxed\""), "{message}");
        check(&mut connection, &relaxed)
            .await
            .expect("accepted by name");
        // The journal mode can only change while nobody else has the file open.
        connection.close().await.unwrap();
    }
    // Without foreign keys the data goes wrong; no setting accepts that.
    let mut connection = connect(options(&full).foreign_keys(false)).await;
    let message = check(&mut connection, &relaxed)
        .await
        .unwrap_err()
        .to_string();
    assert!(message.contains("foreign_keys is \"OFF\""), "{message}");
}

#[tokio::test]
async fn relaxed_asks_for_normal_and_full_is_the_default() {
    assert_eq!(SqliteConfig::default().durability, Durability::Full);
    let folder = TempDir::new().unwrap();
    let relaxed = SqliteConfig {
        durability: Durability::Relaxed,
        ..config(&folder)
    };
    let mut connection = writer(&relaxed, &migrations(1)).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(synchronous, 1);
}

#[tokio::test]
async fn readers_can_not_write() {
    let folder = TempDir::new().unwrap();
    let sqlite = Sqlite::open(&config(&folder), &migrations(1))
        .await
        .unwrap();
    let refused = sqlx::query("INSERT INTO note_1 (text) VALUES ('x')")
        .execute(sqlite.reader())
        .await;
    assert!(refused.unwrap_err().to_string().contains("readonly"));
}

#[tokio::test]
async fn missing_folders_are_created_and_the_data_is_there_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a/b/store.db");
    let config = SqliteConfig {
        path: path.clone(),
        ..SqliteConfig::default()
    };
    for opened in 0..2_i64 {
        let sqlite = Sqlite::open(&config, &migrations(1)).await.unwrap();
        let mut write = sqlite.begin().await.unwrap();
        sqlx::query("INSERT INTO note_1 (text) VALUES ('x')")
            .execute(&mut *write)
            .await
            .unwrap();
        write.commit().await.unwrap();
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM note_1")
            .fetch_one(sqlite.reader())
            .await
            .unwrap();
        assert_eq!(count, opened + 1);
        sqlite.close().await.unwrap();
        assert_eq!(sqlite.path(), path);
    }
}

#[tokio::test]
async fn what_can_not_be_opened_is_said_in_the_operators_words() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| SqliteConfig {
        path: folder.path().join(name),
        ..Default::default()
    };
    fs::write(
        folder.path().join("letter.txt"),
        "Dear customer, ".repeat(1_000),
    )
    .unwrap();
    fs::create_dir(folder.path().join("folder")).unwrap();

    let error = Sqlite::open(&at("letter.txt"), &migrations(1))
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::NotADatabase { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .ends_with("letter.txt\" is not a SQLite database"),
        "{error}"
    );

    let error = Sqlite::open(&at("folder"), &migrations(1))
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");

    let error = Sqlite::open(&at("letter.txt/store.db"), &migrations(1))
        .await
        .unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
    assert!(error.source().is_some());
}

#[tokio::test]
async fn a_database_that_only_can_be_read_is_refused() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder);
    drop(writer(&config, &migrations(1)).await.unwrap());
    // What SQLite reports when it could open the file for reading only, whoever runs the test.
    let mut connection = connect(options(&config).read_only(true)).await;
    let error = probe(&mut connection).await.unwrap_err();
    let error = OpenError::of(config.path.clone(), error);
    assert!(matches!(error, OpenError::NotWritable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused_with_both_versions() {
    let folder = TempDir::new().unwrap();
    let config = config(&folder);
    let newer = Sqlite::open(&config, &migrations(3)).await.unwrap();
    newer.close().await.unwrap();
    let error = Sqlite::open(&config, &migrations(2)).await.unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::NewerSchema {
                found: 3,
                known: 2,
                ..
            }
        ),
        "{error:?}"
    );
    Sqlite::open(&config, &migrations(4))
        .await
        .expect("an older one is brought up to date");
}

#[tokio::test]
async fn the_service_and_this_crate_keep_their_migrations_apart() {
    let folder = TempDir::new().unwrap();
    let sqlite = Sqlite::open(&config(&folder), &migrations(2))
        .await
        .unwrap();
    let versions = async |sql| -> Vec<i64> {
        sqlx::query_scalar(sql)
            .fetch_all(sqlite.reader())
            .await
            .unwrap()
    };
    assert_eq!(
        versions("SELECT version FROM _sqlx_migrations ORDER BY version").await,
        [1, 2]
    );
    assert_eq!(
        versions("SELECT version FROM _mesh_migrations ORDER BY version").await,
        [1]
    );
}
