//! The contract of the store on PostgreSQL, in a database of its own on the server that `SHOP_POSTGRES` names.

#[path = "contract.rs"]
mod contract;

use std::str::FromStr as _;

use chassis::{Config, Database, Service as _};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions,
};
use uuid::Uuid;
use widget::Service;

#[expect(
    clippy::disallowed_methods,
    reason = "tests are told where the server is"
)]
fn server() -> PgConnectOptions {
    let url = std::env::var("SHOP_POSTGRES");
    let url =
        url.expect("SHOP_POSTGRES is not set: run `cargo xtask test`, or `cargo xtask servers`");
    PgConnectOptions::from_str(&url).expect("a URL of PostgreSQL")
}

async fn execute(statement: String) {
    let mut connection = PgConnection::connect_with(&server())
        .await
        .expect("the server answers");
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .expect("a superuser may do that");
    connection.close().await.expect("it was open");
}

#[tokio::test]
async fn the_contract_holds_on_postgres() {
    let name = format!("widget_{}", Uuid::now_v7().simple());
    execute(format!("CREATE DATABASE {name}")).await;
    let mut config = Config::default();
    config.postgres.url = server().database(&name).to_url_lossy().into();
    Database::migrate(&config, Service::migrations(), "")
        .await
        .expect("the schema is new");
    let database = contract::open(&config).await;
    contract::holds(&database).await;
    database.close().await.expect("nothing is under way");
    execute(format!("DROP DATABASE {name} WITH (FORCE)")).await;
}
