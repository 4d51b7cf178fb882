//! Migrating, the rights of the role that the service runs under, and what is refused.

use mesh_store::{
    Durability, Postgres, PostgresConfig,
    postgres::{OpenError, Schema, migrate},
};
use sqlx::{
    Executor as _,
    migrate::{Migration, MigrationType, Migrator},
};
use tokio::task::JoinSet;

use crate::database::{Database, execute, migrations, server, unique};

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_or_side_by_side_is_migrating_once() {
    let database = Database::create().await;
    let mut both = JoinSet::new();
    for _ in 0..3 {
        let config = database.config.clone();
        both.spawn(async move {
            let schema = Schema {
                migrations: &migrations(2),
                role: "",
                append_only: &[],
            };
            migrate(&config, &schema).await
        });
    }
    for outcome in both.join_all().await {
        outcome.unwrap();
    }
    let postgres = Postgres::connect(&database.config, &migrations(2)).await;
    postgres.unwrap().close().await;
    database.drop().await;
}

#[tokio::test]
async fn an_older_schema_is_refused_and_a_newer_one_is_not() {
    let database = Database::create().await;
    let empty = Postgres::connect(&database.config, &migrations(1)).await;
    assert!(matches!(
        empty,
        Err(OpenError::OlderSchema { version: 1, .. })
    ));
    database.migrate(2, "", &[]).await;
    let older = Postgres::connect(&database.config, &migrations(3)).await;
    let message = older.unwrap_err().to_string();
    assert!(
        message.contains("lacks migration 3") && message.contains("`migrate`"),
        "{message}"
    );
    database.migrate(1, "", &[]).await; // The program of before, while the new one is rolling out.
    database.connect().await.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_migration_that_was_changed_afterwards_is_refused() {
    let (database, postgres) = Database::open().await;
    let sql = sqlx::SqlSafeStr::into_sql_str("CREATE TABLE note_1 (other text)");
    let other = Migration::new(1, "notes".into(), MigrationType::Simple, sql, false);
    let other = Migrator::with_migrations(vec![other]);
    let refused = Postgres::connect(&database.config, &other).await;
    assert!(matches!(
        refused,
        Err(OpenError::OtherSchema { version: 1 })
    ));
    let schema = Schema {
        migrations: &other,
        role: "",
        append_only: &[],
    };
    let refused = migrate(&database.config, &schema).await;
    assert!(matches!(
        refused,
        Err(OpenError::OtherSchema { version: 1 })
    ));
    postgres.close().await;
    database.drop().await;
}

#[tokio::test]
async fn the_role_of_the_service_writes_rows_and_nothing_else() {
    let database = Database::create().await;
    let role = unique("role");
    execute(&server(), &format!("CREATE ROLE {role} LOGIN")).await;
    database.migrate(2, &role, &["note_2"]).await;
    let config = database.as_role(&role);
    let postgres = Postgres::connect(&config, &migrations(2)).await.unwrap();
    for allowed in [
        "INSERT INTO note_1 (id, text) VALUES (1, 'a'), (2, 'b')",
        "UPDATE note_1 SET text = 'c' WHERE id = 1",
        "DELETE FROM note_1 WHERE id = 2",
        "INSERT INTO note_2 (id, text) VALUES (1, 'a')",
        "DELETE FROM mesh_inbox",
    ] {
        let done = postgres.pool().execute(allowed).await;
        assert!(done.is_ok(), "{allowed}: {done:?}");
    }
    for refused in [
        "UPDATE note_2 SET text = 'b'",
        "DELETE FROM note_2",
        "TRUNCATE note_1",
        "DROP TABLE note_1",
        "ALTER TABLE note_1 ADD COLUMN more text",
        "CREATE TABLE note_3 (id bigint)",
        "DELETE FROM _sqlx_migrations",
        "INSERT INTO _mesh_migrations SELECT * FROM _mesh_migrations",
    ] {
        let error = postgres.pool().execute(refused).await.unwrap_err();
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{refused}");
    }
    postgres.close().await;
    database.drop().await;
    execute(&server(), &format!("DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_role_that_is_not_there_is_named() {
    let database = Database::create().await;
    let schema = Schema {
        migrations: &migrations(1),
        role: "no\"body",
        append_only: &[],
    };
    let refused = migrate(&database.config, &schema).await;
    assert!(matches!(refused, Err(OpenError::Grant { role, .. }) if role == "no\"body"));
    database.drop().await;
}

#[tokio::test]
async fn a_database_that_does_not_speak_unicode_is_refused() {
    let options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
    let database = Database::create_with(options).await;
    let refused = Postgres::connect(&database.config, &migrations(1)).await;
    let Err(OpenError::Setting { setting, found, .. }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((setting, &*found), ("server_encoding", "LATIN1"));
    database.drop().await;
}

/// Whatever the server's own default is, a session commits to disk unless less was asked for by name.
#[tokio::test]
async fn a_session_has_the_settings_of_the_configuration() {
    let (database, postgres) = Database::open().await;
    let name = database.config.url.rsplit('/').next().unwrap();
    let name = name.split('?').next().unwrap();
    let lax = format!("ALTER DATABASE {name} SET synchronous_commit = off");
    execute(&server(), &lax).await;
    for (durability, expected) in [(Durability::Full, "on"), (Durability::Relaxed, "off")] {
        let config = PostgresConfig {
            durability,
            statement_timeout_ms: 1_234,
            lock_timeout_ms: 567,
            ..database.config.clone()
        };
        let postgres = Postgres::connect(&config, &migrations(1)).await.unwrap();
        let found: (String, String, String) = sqlx::query_as(
            "SELECT current_setting('synchronous_commit'), current_setting('statement_timeout'), \
                 current_setting('lock_timeout')",
        )
        .fetch_one(postgres.pool())
        .await
        .unwrap();
        let expected = (expected.into(), "1234ms".into(), "567ms".into());
        assert_eq!(found, expected);
        postgres.close().await;
    }
    postgres.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let config = PostgresConfig {
        url: "postgres://postgres@127.0.0.1:1/nothing".into(),
        connect_timeout_ms: 1,
        ..PostgresConfig::default()
    };
    let refused = Postgres::connect(&config, &migrations(1)).await;
    assert!(
        matches!(&refused, Err(OpenError::Connect { address, .. }) if address == "127.0.0.1:1/nothing"),
        "{refused:?}"
    );
}
