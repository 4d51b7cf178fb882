//! The catalogue on its way into a file, page by page.

use kernel::Currency;
use sqlx::PgConnection;

use super::catalogue::{stored, whole};
use crate::{error::Error, store::Exported};

/// Refuses to drop prices unless that is meant; answers the columns of all files imported so far.
pub(super) async fn columns(
    connection: &mut PgConnection,
    currency: Currency,
    drop_other_prices: bool,
) -> Result<Vec<String>, Error> {
    if !drop_other_prices {
        let other: Option<String> = sqlx::query_scalar(
            "SELECT price.sku FROM price JOIN variant v ON v.sku = price.sku \
                 JOIN product p ON p.id = v.product_id \
             WHERE price.currency_code <> $1 AND p.deleted_at_us IS NULL LIMIT 1",
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

/// Products that are not deleted, in the order of creation. A file does not say what can be bought, so no moment
/// is asked for.
pub(super) async fn page(
    connection: &mut PgConnection,
    after_seq: i64,
    limit: usize,
) -> Result<Vec<Exported>, Error> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        whole!(),
        " FROM product p WHERE p.deleted_at_us IS NULL AND p.seq > $2 ORDER BY p.seq LIMIT $3"
    ))
    .bind(0_i64)
    .bind(after_seq)
    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
    .fetch_all(connection)
    .await?;
    let exported = |row| {
        let stored = stored(row)?;
        Ok(Exported {
            seq: stored.seq,
            on_hand: stored.on_hand,
            product: stored.view.product,
        })
    };
    rows.iter().map(exported).collect()
}
