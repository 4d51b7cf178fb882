//! What payments say was sold: added up, each event once.

use mesh_store::{Postgres, postgres::inbox};
use sqlx::types::Json;

use crate::{error::Error, store::SalesEvent};

/// Adds to sales; false: the event was applied before. Rows are taken in one order, so that two events with the
/// same products wait for each other and nothing worse.
pub(super) async fn add(
    postgres: &Postgres,
    event: &SalesEvent,
    now_us: i64,
) -> Result<bool, Error> {
    let mut write = postgres.begin().await?;
    if !inbox::insert(&mut write, &event.consumer, event.message_id, now_us).await? {
        write.rollback().await?;
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO product_sales (product_id, currency_code, quantity, amount_minor) \
         SELECT product_id, currency_code, sum(quantity), sum(amount_minor) \
         FROM jsonb_to_recordset($1) AS entry(product_id text, currency_code text, \
             quantity bigint, amount_minor bigint) \
         GROUP BY product_id, currency_code \
         ORDER BY product_id COLLATE \"C\", currency_code COLLATE \"C\" \
         ON CONFLICT (product_id, currency_code) DO UPDATE SET \
             quantity = product_sales.quantity + excluded.quantity, \
             amount_minor = product_sales.amount_minor + excluded.amount_minor",
    )
    .bind(Json(&event.entries))
    .execute(&mut *write)
    .await?;
    write.commit().await?;
    Ok(true)
}
