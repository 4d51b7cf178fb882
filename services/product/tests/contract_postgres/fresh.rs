//! Fresh stores in databases of their own on the server that `SHOP_POSTGRES` names.

use std::{str::FromStr as _, sync::Arc};

use mesh_events::FaultPoints;
use mesh_store::{Durability, PostgresConfig};
use product::{
    config::SharedConfig,
    store::{
        Store,
        postgres::{PostgresStore, migrate},
    },
};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions,
};
use uuid::Uuid;

use crate::harness::{CREATED, WRONG_STOCK};

/// How many random sequences are tried where nothing else is said.
pub(crate) const SEQUENCES: usize = 1_000;

/// Lines that say otherwise than their reservation until when they are held.
const WRONG_LINES: &str = "SELECT l.reservation_id FROM reservation_line l \
         JOIN reservation r ON r.id = l.reservation_id \
     WHERE l.held_until_us IS DISTINCT FROM CASE r.state WHEN 'HELD' THEN r.expires_at_us END";

/// A fresh store; its database goes when it was checked.
pub(crate) struct Fresh {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) postgres: PostgresStore,
    pub(crate) config: PostgresConfig,
    name: String,
}

impl Fresh {
    pub(crate) async fn open() -> Self {
        Self::with(Durability::Full, &SharedConfig::default()).await
    }

    /// Where a power cut may take commits back: fast.
    pub(crate) async fn relaxed() -> Self {
        Self::with(Durability::Relaxed, &SharedConfig::default()).await
    }

    pub(crate) async fn with(durability: Durability, shared: &SharedConfig) -> Self {
        let name = format!("product_{}", Uuid::now_v7().simple());
        execute(&format!("CREATE DATABASE {name}")).await;
        let url = server().database(&name).to_url_lossy();
        let config = PostgresConfig {
            url: url.into(),
            durability,
            ..PostgresConfig::default()
        };
        migrate(&config, "").await.unwrap();
        let postgres = PostgresStore::connect(&config, shared, FaultPoints::default())
            .await
            .unwrap();
        Self {
            store: Arc::new(postgres.clone()),
            postgres,
            config,
            name,
        }
    }

    /// Another replica: a store of its own over the same database.
    pub(crate) async fn replica(&self) -> PostgresStore {
        PostgresStore::connect(
            &self.config,
            &SharedConfig::default(),
            FaultPoints::default(),
        )
        .await
        .unwrap()
    }

    /// Events that wait and tell of new products.
    pub(crate) async fn created(&self) -> i64 {
        sqlx::query_scalar(CREATED)
            .fetch_one(self.postgres.postgres().pool())
            .await
            .unwrap()
    }

    /// Checks what must hold whatever was done.
    pub(crate) async fn check(self) {
        let pool = self.postgres.postgres().pool();
        let wrong: Vec<(String, i64, i64, i64)> =
            sqlx::query_as(WRONG_STOCK).fetch_all(pool).await.unwrap();
        assert_eq!(wrong, [], "sku, on hand, reserved, held");
        let wrong: Vec<String> = sqlx::query_scalar(WRONG_LINES)
            .fetch_all(pool)
            .await
            .unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        self.postgres.close().await;
        execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told where the server is"
)]
fn server() -> PgConnectOptions {
    let url = std::env::var("SHOP_POSTGRES");
    let url =
        url.expect("SHOP_POSTGRES is not set: run `cargo xtask test`, or `cargo xtask servers`");
    PgConnectOptions::from_str(&url).unwrap()
}

async fn execute(statement: &str) {
    let mut connection = PgConnection::connect_with(&server()).await.unwrap();
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}
