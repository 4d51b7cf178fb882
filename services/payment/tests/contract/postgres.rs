//! A fresh database on the server that `SHOP_POSTGRES` names.

use mesh_store::{Durability, Postgres, PostgresConfig};
use payment::config::SharedConfig;
use payment::provider::References;
use payment::store::{AuditLog, Books, Desk, PostgresStore, Reconciliations, Store, postgres};
use sqlx::types::Uuid;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::sync::Arc;

/// A database of one test; it goes with it.
pub(crate) struct Storage {
    postgres: Postgres,
    config: PostgresConfig,
    server: String,
    name: String,
}

impl Storage {
    pub(crate) async fn fresh(durability: Durability) -> Self {
        let server = std::env::var_os("SHOP_POSTGRES")
            .and_then(|url| url.into_string().ok())
            .expect("SHOP_POSTGRES is not set: run `cargo xtask test`, or `cargo xtask servers`");
        let name = format!("payment_{:016x}", rand::random::<u64>());
        on_server(&server, format!("CREATE DATABASE {name}")).await;
        let (address, _) = server.rsplit_once('/').unwrap();
        let config = PostgresConfig {
            url: format!("{address}/{name}"),
            durability,
            ..PostgresConfig::default()
        };
        payment::store::migrate(&config, "").await.unwrap();
        let postgres = connect(&config).await;
        Self {
            postgres,
            config,
            server,
            name,
        }
    }

    pub(crate) fn desk(&self) -> Arc<dyn Desk> {
        Arc::new(PostgresStore::new(
            self.postgres.clone(),
            &SharedConfig::default(),
        ))
    }

    pub(crate) fn audit(&self) -> Arc<dyn AuditLog> {
        Arc::new(PostgresStore::new(
            self.postgres.clone(),
            &SharedConfig::default(),
        ))
    }

    pub(crate) fn reconciliations(&self) -> Arc<dyn Reconciliations> {
        Arc::new(PostgresStore::new(
            self.postgres.clone(),
            &SharedConfig::default(),
        ))
    }

    pub(crate) fn books(&self) -> Arc<dyn Books> {
        Arc::new(PostgresStore::new(
            self.postgres.clone(),
            &SharedConfig::default(),
        ))
    }

    /// An id as it stands in the tables.
    pub(crate) fn key(_: &str, uuid: Uuid) -> String {
        format!("'{uuid}'")
    }

    /// What a row of `payments` has here only, as names and values.
    pub(crate) fn more_of_payments() -> (&'static str, &'static str) {
        (", writes", ", 0")
    }

    pub(crate) fn references(&self) -> Arc<dyn References> {
        Arc::new(PostgresStore::new(
            self.postgres.clone(),
            &SharedConfig::default(),
        ))
    }

    pub(crate) fn store(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::new(
            self.postgres.clone(),
            &SharedConfig::default(),
        ))
    }

    /// The store of another replica, with connections of its own.
    pub(crate) async fn replica(&self) -> Arc<dyn Store> {
        Arc::new(PostgresStore::new(
            connect(&self.config).await,
            &SharedConfig::default(),
        ))
    }

    /// Leases run by the clock of the server, which no test can move: they are made to have run out.
    pub(crate) async fn outlast_leases(&self) {
        self.execute("UPDATE payments SET lease_until_us = 0, writes = writes + 1")
            .await
            .unwrap();
    }

    /// The first column of what a query finds.
    pub(crate) async fn texts(&self, sql: &'static str) -> Vec<String> {
        sqlx::query_scalar(sql)
            .fetch_all(self.postgres.pool())
            .await
            .unwrap()
    }

    /// Lets the chain be changed, as whoever owns the table can.
    pub(crate) async fn unlock_audit(&self) {
        let unlocked = self
            .execute("ALTER TABLE audit_log DISABLE TRIGGER append_only")
            .await;
        unlocked.unwrap();
    }

    /// The bodies of the events of a kind that wait, in the order in which they were made.
    pub(crate) async fn events(&self, kind: &str) -> Vec<Vec<u8>> {
        sqlx::query_scalar("SELECT body FROM mesh_outbox WHERE kind = $1 ORDER BY message_id")
            .bind(kind)
            .fetch_all(self.postgres.pool())
            .await
            .unwrap()
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(format!("SELECT COUNT(*) FROM {table}")))
            .fetch_one(self.postgres.pool())
            .await
            .unwrap()
    }

    /// Carries a statement out, and says what is against it.
    pub(crate) async fn execute(&self, sql: &str) -> Result<u64, String> {
        sqlx::query(AssertSqlSafe(sql.to_owned()))
            .execute(self.postgres.pool())
            .await
            .map(|done| done.rows_affected())
            .map_err(|error| error.to_string())
    }

    /// Where it is.
    pub(crate) fn config(&self) -> &PostgresConfig {
        &self.config
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let statement = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        let server = self.server.clone();
        // A runtime cannot wait for another one on its own thread.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(on_server(&server, statement));
        });
        dropping.join().expect("the database can be dropped");
    }
}

async fn connect(config: &PostgresConfig) -> Postgres {
    Postgres::connect(config, &postgres::MIGRATIONS)
        .await
        .unwrap()
}

async fn on_server(server: &str, statement: String) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}
