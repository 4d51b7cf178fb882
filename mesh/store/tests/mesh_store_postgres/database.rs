//! A fresh database that goes away.

use std::str::FromStr as _;

use mesh_store::{
    Postgres, PostgresConfig,
    postgres::{Schema, migrate},
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgConnectOptions,
};
use uuid::Uuid;

/// A service's migrations up to a version: each adds a table `note_<version>`.
pub(crate) fn migrations(up_to: i64) -> Migrator {
    let migration = |version: i64| {
        let sql = format!("CREATE TABLE note_{version} (id bigint PRIMARY KEY, text text)");
        let sql = sqlx::SqlSafeStr::into_sql_str(AssertSqlSafe(sql));
        Migration::new(version, "notes".into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations((1..=up_to).map(migration).collect())
}

/// An empty database.
pub(crate) struct Database {
    pub(crate) config: PostgresConfig,
    name: String,
}

impl Database {
    pub(crate) async fn create() -> Database {
        Database::create_with("").await
    }

    /// `options` as `CREATE DATABASE` takes them.
    pub(crate) async fn create_with(options: &str) -> Database {
        let name = unique("mesh");
        execute(&server(), &format!("CREATE DATABASE {name} {options}")).await;
        let config = PostgresConfig {
            url: server().database(&name).to_url_lossy().into(),
            connect_timeout_ms: 5_000,
            ..PostgresConfig::default()
        };
        Database { config, name }
    }

    /// With the schema of one migration, open.
    pub(crate) async fn open() -> (Database, Postgres) {
        let database = Database::create().await;
        database.migrate(1, "", &[]).await;
        let postgres = database.connect().await;
        (database, postgres)
    }

    pub(crate) async fn connect(&self) -> Postgres {
        Postgres::connect(&self.config, &migrations(1))
            .await
            .unwrap()
    }

    pub(crate) async fn migrate(&self, up_to: i64, role: &str, append_only: &[&str]) {
        let schema = Schema {
            migrations: &migrations(up_to),
            role,
            append_only,
        };
        migrate(&self.config, &schema).await.unwrap();
    }

    /// The same database for another role.
    pub(crate) fn as_role(&self, role: &str) -> PostgresConfig {
        PostgresConfig {
            url: server()
                .database(&self.name)
                .username(role)
                .to_url_lossy()
                .into(),
            ..self.config.clone()
        }
    }

    pub(crate) async fn drop(self) {
        execute(
            &server(),
            &format!("DROP DATABASE {} WITH (FORCE)", self.name),
        )
        .await;
    }
}

/// A name that nobody else has.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::now_v7().simple())
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told where the server is"
)]
pub(crate) fn server() -> PgConnectOptions {
    let url = std::env::var("SHOP_POSTGRES");
    let url =
        url.expect("SHOP_POSTGRES is not set: run `cargo xtask test`, or `cargo xtask servers`");
    PgConnectOptions::from_str(&url).unwrap()
}

pub(crate) async fn execute(options: &PgConnectOptions, statement: &str) {
    let mut connection = PgConnection::connect_with(options).await.unwrap();
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}
