//! Writing products whole: rows go to the server as one JSON document and become rows there, so that any number
//! of products with their variants, prices, stock and search words is one round trip.

use std::collections::HashMap;

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::Stored;
use crate::{
    error::Error,
    product::{ExtraRow, Product, Variant},
    search::Document,
    store::postgres::search,
};

/// A product and what the stock of each of its variants starts with, by SKU.
pub(in crate::store::postgres) type Stocked = (Product, HashMap<String, i32>);

/// The rows of variants, to stand after a `WITH … ,` with `$1` a document from [`document`]. A SKU that was a
/// variant before has stock already; locks are taken in the order of SKUs, as everywhere.
macro_rules! variants {
    () => {
        "variants AS ( \
             INSERT INTO variant (sku, product_id, position, options, barcode, weight_grams, columns) \
             SELECT * FROM jsonb_to_recordset($1 -> 'variants') AS v(sku text, product_id text, \
                 position integer, options jsonb, barcode text, weight_grams integer, columns jsonb)), \
         prices AS ( \
             INSERT INTO price (sku, currency_code, amount_minor) \
             SELECT * FROM jsonb_to_recordset($1 -> 'prices') \
                 AS v(sku text, currency_code text, amount_minor bigint)) \
         INSERT INTO stock (sku, on_hand, reserved, version) \
         SELECT sku, on_hand, 0, 1 \
             FROM jsonb_to_recordset($1 -> 'stock') AS v(sku text, on_hand integer) \
             ORDER BY sku COLLATE \"C\" \
         ON CONFLICT (sku) DO UPDATE SET on_hand = stock.on_hand + excluded.on_hand, \
             version = stock.version + 1 WHERE excluded.on_hand > 0"
    };
}

const INSERT: &str = concat!(
    "WITH wanted AS ( \
         SELECT * FROM jsonb_to_recordset($1 -> 'products') AS w(place bigint, id text, handle text, \
             title text, description_html text, vendor text, category text, tags text[], \
             status text, extra_rows jsonb, version bigint, created_at_us bigint, \
             updated_at_us bigint, deleted_at_us bigint, words text)), \
     products AS ( \
         INSERT INTO product (id, handle, title, description_html, vendor, category, tags, status, \
             extra_rows, version, created_at_us, updated_at_us, deleted_at_us) \
         SELECT id, handle, title, description_html, vendor, category, tags, status, \
             extra_rows, version, created_at_us, updated_at_us, deleted_at_us \
         FROM wanted ORDER BY place RETURNING seq, id), \
     words AS ( \
         INSERT INTO product_search (seq, words) \
         SELECT seq, words::tsvector FROM products JOIN wanted USING (id)), ",
    variants!()
);

const INSERT_VARIANTS: &str = concat!("WITH ", variants!());

/// Inserts products, in this order of creation.
pub(in crate::store::postgres) async fn insert(
    connection: &mut PgConnection,
    products: &[Stocked],
) -> Result<(), Error> {
    if products.is_empty() {
        return Ok(());
    }
    sqlx::query(INSERT)
        .bind(document(products))
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes a changed product over what is there. Variants that it no longer has must be out of stock.
pub(in crate::store::postgres) async fn replace(
    connection: &mut PgConnection,
    before: &Stored,
    after: &Product,
    quantities: &HashMap<String, i32>,
) -> Result<(), Error> {
    mark(connection, after).await?;
    if before.view.product.variants == after.variants {
        return Ok(());
    }
    for variant in &before.view.product.variants {
        let kept = after.variants.iter().any(|kept| kept.sku == variant.sku);
        let on_hand = before.on_hand.get(&variant.sku).copied().unwrap_or(0);
        if !kept && on_hand > 0 {
            return Err(Error::VariantHasStock {
                sku: variant.sku.clone(),
                on_hand,
            });
        }
    }
    sqlx::query(
        "WITH gone AS ( \
             DELETE FROM price WHERE sku IN (SELECT sku FROM variant WHERE product_id = $1)) \
         DELETE FROM variant WHERE product_id = $1",
    )
    .bind(after.id.to_string())
    .execute(&mut *connection)
    .await?;
    let new = quantities
        .iter()
        .filter(|(sku, _)| !before.on_hand.contains_key(*sku))
        .map(|(sku, quantity)| (sku.clone(), *quantity));
    sqlx::query(INSERT_VARIANTS)
        .bind(document(&[(after.clone(), new.collect())]))
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes a product's own row and its search words, of which a deleted one has none.
pub(super) async fn mark(connection: &mut PgConnection, product: &Product) -> Result<(), Error> {
    let words = product.deleted_at_us.is_none().then(|| words(product));
    sqlx::query(
        "WITH changed AS ( \
             UPDATE product SET handle = $2, title = $3, description_html = $4, vendor = $5, \
                 category = $6, tags = $7, status = $8, extra_rows = $9, version = $10, \
                 updated_at_us = $11, deleted_at_us = $12 \
             WHERE id = $1 RETURNING seq), \
         unindexed AS ( \
             DELETE FROM product_search USING changed \
             WHERE product_search.seq = changed.seq AND $13::text IS NULL) \
         INSERT INTO product_search (seq, words) \
         SELECT seq, $13::text::tsvector FROM changed WHERE $13::text IS NOT NULL \
         ON CONFLICT (seq) DO UPDATE SET words = excluded.words",
    )
    .bind(product.id.to_string())
    .bind(&product.handle)
    .bind(&product.title)
    .bind(&product.description_html)
    .bind(&product.vendor)
    .bind(&product.category)
    .bind(&product.tags)
    .bind(product.status.name())
    .bind(extra_rows(&product.extra_rows))
    .bind(product.version)
    .bind(product.updated_at_us)
    .bind(product.deleted_at_us)
    .bind(words)
    .execute(connection)
    .await?;
    Ok(())
}

fn words(product: &Product) -> String {
    search::vector(&Document::of(product))
}

/// Products, their variants, prices and stock, as lists of rows.
fn document(products: &[Stocked]) -> Value {
    let (mut rows, mut variants) = (Vec::new(), Vec::new());
    let (mut prices, mut stock) = (Vec::new(), Vec::new());
    for (place, (product, quantities)) in products.iter().enumerate() {
        rows.push(product_row(place, product));
        for (position, variant) in product.variants.iter().enumerate() {
            variants.push(variant_row(product, position, variant));
            prices.extend(variant.prices.iter().map(|price| {
                json!({
                    "sku": variant.sku,
                    "currency_code": price.currency().code(),
                    "amount_minor": price.amount_minor(),
                })
            }));
            let on_hand = quantities.get(&variant.sku).copied().unwrap_or(0);
            stock.push(json!({"sku": variant.sku, "on_hand": on_hand}));
        }
    }
    json!({"products": rows, "variants": variants, "prices": prices, "stock": stock})
}

fn product_row(place: usize, product: &Product) -> Value {
    json!({
        "place": place,
        "id": product.id.to_string(),
        "handle": product.handle,
        "title": product.title,
        "description_html": product.description_html,
        "vendor": product.vendor,
        "category": product.category,
        "tags": product.tags,
        "status": product.status.name(),
        "extra_rows": extra_rows(&product.extra_rows),
        "version": product.version,
        "created_at_us": product.created_at_us,
        "updated_at_us": product.updated_at_us,
        "deleted_at_us": product.deleted_at_us,
        "words": words(product),
    })
}

fn variant_row(product: &Product, position: usize, variant: &Variant) -> Value {
    let options = variant.options.iter();
    json!({
        "sku": variant.sku,
        "product_id": product.id.to_string(),
        "position": position,
        "options": options.map(|option| [&option.name, &option.value]).collect::<Vec<_>>(),
        "barcode": variant.barcode,
        "weight_grams": variant.weight_grams,
        "columns": variant.columns,
    })
}

fn extra_rows(rows: &[ExtraRow]) -> Value {
    let row = |row: &ExtraRow| json!([row.after, row.columns]);
    rows.iter().map(row).collect()
}
