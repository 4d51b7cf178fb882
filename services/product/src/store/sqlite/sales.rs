//! What payments say was sold: added up, each event once.

use mesh_store::{Sqlite, sqlite::inbox};

use crate::{error::Error, store::SalesEvent};

/// Adds to sales; false: the event was applied before.
pub(super) async fn add(sqlite: &Sqlite, event: &SalesEvent, now_us: i64) -> Result<bool, Error> {
    let mut write = sqlite.begin().await?;
    if !inbox::insert(&mut write, &event.consumer, event.message_id, now_us).await? {
        write.rollback().await;
        return Ok(false);
    }
    for entry in &event.entries {
        sqlx::query(
            "INSERT INTO product_sales (product_id, currency_code, quantity, amount_minor) \
             VALUES (?, ?, ?, ?) ON CONFLICT (product_id, currency_code) DO UPDATE SET \
                 quantity = quantity + excluded.quantity, \
                 amount_minor = amount_minor + excluded.amount_minor",
        )
        .bind(&entry.product_id)
        .bind(&entry.currency_code)
        .bind(entry.quantity)
        .bind(entry.amount_minor)
        .execute(&mut *write)
        .await?;
    }
    write.commit().await?;
    Ok(true)
}
