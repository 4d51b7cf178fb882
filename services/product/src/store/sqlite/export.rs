//! The catalogue on its way into a file, page by page.

use kernel::Currency;

use super::{
    Connection,
    catalogue::{self, Wanted},
};
use crate::{error::Error, store::Exported};

/// Refuses to drop prices unless that is meant; answers the columns of all files imported so far.
pub(super) async fn columns(
    connection: &mut Connection,
    currency: Currency,
    drop_other_prices: bool,
) -> Result<Vec<String>, Error> {
    if !drop_other_prices {
        let other: Option<String> = sqlx::query_scalar(
            "SELECT price.sku FROM price JOIN variant v ON v.sku = price.sku \
                 JOIN product p ON p.id = v.product_id \
             WHERE price.currency_code <> ? AND p.deleted_at_us IS NULL LIMIT 1",
        )
        .bind(currency.code())
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(sku) = other {
            return Err(Error::OtherPrices { sku, currency });
        }
    }
    let names = sqlx::query_scalar("SELECT name FROM csv_column ORDER BY position");
    Ok(names.fetch_all(connection).await?)
}

/// Products that are not deleted, in the order of creation.
pub(super) async fn page(
    connection: &mut Connection,
    after_seq: i64,
    limit: usize,
) -> Result<Vec<Exported>, Error> {
    let seqs: Vec<i64> = sqlx::query_scalar(
        "SELECT seq FROM product WHERE deleted_at_us IS NULL AND seq > ? ORDER BY seq LIMIT ?",
    )
    .bind(after_seq)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(&mut *connection)
    .await?;
    let list = serde_json::Value::from(seqs).to_string();
    let found = catalogue::load(connection, Wanted::Seqs(list), 0).await?;
    let mut exported: Vec<Exported> = found
        .into_iter()
        .map(|stored| Exported {
            seq: stored.seq,
            on_hand: stored.on_hand,
            product: stored.view.product,
        })
        .collect();
    exported.sort_by_key(|exported| exported.seq);
    Ok(exported)
}
