//! Rows by the million, in minutes: SQL that makes them where they belong, shaped like the services' own.

use anyhow::{Result, bail};
use xtask::{
    checkout,
    process::{collect, command},
    servers::Postgres,
};

use crate::house::House;

/// The SKU that everybody wants.
pub(crate) const HOT_SKU: &str = "SKU-1";

/// The first variant of a product by its number, from 1 on.
pub(crate) fn sku(number: u64) -> String {
    format!("SKU-{number}")
}

/// Adds products and payments with these numbers.
pub(crate) fn add(postgres: &Postgres, first: u64, last: u64) -> Result<()> {
    for service in ["product", "payment"] {
        let script = checkout::root().join(format!("tests/bench/src/seed/{service}.sql"));
        let mut psql = command(postgres.programs().join("psql"));
        psql.args(["--quiet", "--no-psqlrc", "--tuples-only", "--file"])
            .arg(script)
            .args([
                "--set",
                &format!("first={first}"),
                "--set",
                &format!("last={last}"),
            ]);
        let ended = collect(psql.arg(postgres.url_of("postgres", service)))?;
        if !ended.status.success() {
            bail!("seeding {service}: {}", ended.text.trim());
        }
    }
    Ok(())
}

/// Makes room on the shelf: more of the hot SKU than all runs together take.
pub(crate) async fn stock_up(house: &House) -> Result<()> {
    sqlx::query("UPDATE stock SET on_hand = 1000000000 WHERE sku = $1")
        .bind(HOT_SKU)
        .execute(&house.product.database)
        .await?;
    Ok(())
}

/// The ids of all products.
pub(crate) async fn product_ids(house: &House) -> Result<Vec<String>> {
    let ids = sqlx::query_scalar("SELECT id FROM product").fetch_all(&house.product.database);
    Ok(ids.await?)
}
