//! Products and their variants: reading them whole, and writing what the domain decided.

mod rows;

use std::collections::HashMap;

use kernel::ProductId;
use proto::commerce::product::v1 as pb;
use serde_json::{Value, json};

use super::{Connection, corrupt, json_texts, work::Work};
use crate::{
    error::Error,
    listing::View,
    product::{self, Draft, ExtraRow, Product, Variant},
    search::Document,
    store::{ChangeKind, Update},
};

pub(super) use rows::{Stored, Wanted, column, load, money, overdue};

/// One product as it is shown.
pub(super) async fn view(
    connection: &mut Connection,
    id: ProductId,
    now_us: i64,
) -> Result<View, Error> {
    Ok(find(connection, id, now_us).await?.view)
}

async fn find(connection: &mut Connection, id: ProductId, now_us: i64) -> Result<Stored, Error> {
    let id = id.to_string();
    let found = load(connection, Wanted::Ids(json_texts([&id])), now_us).await?;
    found
        .into_iter()
        .next()
        .ok_or(Error::ProductsNotFound(vec![id]))
}

/// Products by id, then by SKU, in that order.
pub(super) async fn batch_get(
    connection: &mut Connection,
    ids: &[ProductId],
    skus: &[String],
    now_us: i64,
) -> Result<Vec<View>, Error> {
    let owners = owners(connection, skus).await?;
    let missing: Vec<String> = skus
        .iter()
        .filter(|sku| !owners.contains_key(*sku))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Err(Error::SkusNotFound(missing));
    }
    let wanted: Vec<ProductId> = ids
        .iter()
        .copied()
        .chain(skus.iter().map(|sku| owners[sku]))
        .collect();
    let list = json_texts(wanted.iter().map(ToString::to_string));
    let found = load(connection, Wanted::Ids(list), now_us).await?;
    let found: HashMap<ProductId, View> = found
        .into_iter()
        .map(|stored| (stored.view.product.id, stored.view))
        .collect();
    let missing: Vec<String> = ids
        .iter()
        .filter(|id| !found.contains_key(id))
        .map(ToString::to_string)
        .collect();
    if !missing.is_empty() {
        return Err(Error::ProductsNotFound(missing));
    }
    Ok(wanted.iter().map(|id| found[id].clone()).collect())
}

/// Which products SKUs belong to.
pub(super) async fn owners(
    connection: &mut Connection,
    skus: &[String],
) -> Result<HashMap<String, ProductId>, Error> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "SELECT sku, product_id FROM variant WHERE sku IN (SELECT value FROM json_each(?))",
    )
    .bind(json_texts(skus))
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(sku, id)| {
            Ok((
                sku,
                ProductId::parse(&id).map_err(|_| corrupt("product id"))?,
            ))
        })
        .collect()
}

/// Adds a product.
pub(super) async fn create(
    work: &mut Work,
    mut product: Product,
    draft: &Draft,
) -> Result<pb::Product, Error> {
    if product.handle.is_empty() {
        product.handle = free_handle(work.connection(), &product).await?;
    } else {
        refuse_taken_handle(work.connection(), &product).await?;
    }
    refuse_taken_skus(work.connection(), &product).await?;
    let (id, now_us) = (product.id, work.now_us);
    insert(work.connection(), &[(product, quantities(draft))]).await?;
    let view = view(work.connection(), id, now_us).await?;
    work.changed(ChangeKind::Created, &view).await
}

/// Changes fields of a product.
pub(super) async fn update(work: &mut Work, update: &Update) -> Result<pb::Product, Error> {
    let now_us = work.now_us;
    let before = find(work.connection(), update.id, now_us).await?;
    let after = before
        .view
        .product
        .update(&update.fields, &update.draft, &update.etag, now_us)?;
    let Some(after) = after else {
        return Ok(crate::wire::product(&before.view));
    };
    refuse_taken_handle(work.connection(), &after).await?;
    refuse_taken_skus(work.connection(), &after).await?;
    replace(
        work.connection(),
        &before,
        &after,
        &quantities(&update.draft),
    )
    .await?;
    let view = view(work.connection(), after.id, now_us).await?;
    work.changed(ChangeKind::Updated, &view).await
}

/// Marks a product as deleted.
pub(super) async fn delete(
    work: &mut Work,
    id: ProductId,
    etag: &str,
) -> Result<pb::Product, Error> {
    let now_us = work.now_us;
    let before = find(work.connection(), id, now_us).await?;
    let after = before.view.product.delete(etag, now_us)?;
    save_row(work.connection(), &after).await?;
    unindex(work.connection(), before.seq).await?;
    work.changed(
        ChangeKind::Deleted,
        &View {
            product: after,
            ..before.view
        },
    )
    .await
}

/// Takes a deletion back.
pub(super) async fn undelete(work: &mut Work, id: ProductId) -> Result<pb::Product, Error> {
    let now_us = work.now_us;
    let before = find(work.connection(), id, now_us).await?;
    let after = before.view.product.undelete(now_us)?;
    save_row(work.connection(), &after).await?;
    index(work.connection(), before.seq, &after).await?;
    work.changed(
        ChangeKind::Undeleted,
        &View {
            product: after,
            ..before.view
        },
    )
    .await
}

/// A product and what the stock of each of its variants starts with, by SKU.
pub(super) type Stocked = (Product, HashMap<String, i32>);

/// Inserts products.
pub(super) async fn insert(connection: &mut Connection, products: &[Stocked]) -> Result<(), Error> {
    for (product, _) in products {
        let seq: i64 = sqlx::query_scalar(
            "INSERT INTO product (id, handle, title, description_html, vendor, category, tags, \
                 status, extra_rows, version, created_at_us, updated_at_us, deleted_at_us) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING seq",
        )
        .bind(product.id.to_string())
        .bind(&product.handle)
        .bind(&product.title)
        .bind(&product.description_html)
        .bind(&product.vendor)
        .bind(&product.category)
        .bind(json_texts(&product.tags))
        .bind(product.status.name())
        .bind(extra_rows_json(&product.extra_rows))
        .bind(product.version)
        .bind(product.created_at_us)
        .bind(product.updated_at_us)
        .bind(product.deleted_at_us)
        .fetch_one(&mut *connection)
        .await?;
        index(connection, seq, product).await?;
    }
    save_variants(connection, products).await
}

/// Writes a changed product over what is there. Variants that it no longer has must be out of stock.
pub(super) async fn replace(
    connection: &mut Connection,
    before: &Stored,
    after: &Product,
    quantities: &HashMap<String, i32>,
) -> Result<(), Error> {
    save_row(connection, after).await?;
    if before.view.product.variants != after.variants {
        let left_out = before
            .view
            .product
            .variants
            .iter()
            .filter(|variant| !after.variants.iter().any(|kept| kept.sku == variant.sku));
        for variant in left_out {
            let on_hand = before.on_hand.get(&variant.sku).copied().unwrap_or(0);
            if on_hand > 0 {
                return Err(Error::VariantHasStock {
                    sku: variant.sku.clone(),
                    on_hand,
                });
            }
        }
        let id = after.id.to_string();
        sqlx::query(
            "DELETE FROM price WHERE sku IN (SELECT sku FROM variant WHERE product_id = ?)",
        )
        .bind(&id)
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM variant WHERE product_id = ?")
            .bind(&id)
            .execute(&mut *connection)
            .await?;
        let known = |sku: &String| before.on_hand.contains_key(sku);
        let new = quantities.iter().filter(|(sku, _)| !known(sku));
        let new = new
            .map(|(sku, quantity)| (sku.clone(), *quantity))
            .collect();
        save_variants(connection, &[(after.clone(), new)]).await?;
    }
    unindex(connection, before.seq).await?;
    index(connection, before.seq, after).await
}

async fn save_row(connection: &mut Connection, product: &Product) -> Result<(), Error> {
    sqlx::query(
        "UPDATE product SET handle = ?, title = ?, description_html = ?, vendor = ?, category = ?, \
             tags = ?, status = ?, extra_rows = ?, version = ?, updated_at_us = ?, \
             deleted_at_us = ? \
         WHERE id = ?",
    )
    .bind(&product.handle)
    .bind(&product.title)
    .bind(&product.description_html)
    .bind(&product.vendor)
    .bind(&product.category)
    .bind(json_texts(&product.tags))
    .bind(product.status.name())
    .bind(extra_rows_json(&product.extra_rows))
    .bind(product.version)
    .bind(product.updated_at_us)
    .bind(product.deleted_at_us)
    .bind(product.id.to_string())
    .execute(connection)
    .await?;
    Ok(())
}

/// Inserts all variants with their prices, and adds to their stock, which a SKU that was a variant
/// before has already. Three statements, however many there are.
async fn save_variants(connection: &mut Connection, products: &[Stocked]) -> Result<(), Error> {
    let variants: Vec<Value> = products
        .iter()
        .flat_map(|(product, _)| product.variants.iter().enumerate().map(|v| (product.id, v)))
        .map(variant_json)
        .collect();
    let variants = Value::Array(variants).to_string();
    sqlx::query(
        "INSERT INTO variant (sku, product_id, position, options, barcode, weight_grams, columns) \
         SELECT value ->> 'sku', value ->> 'product_id', value ->> 'position', value -> 'options', \
             value ->> 'barcode', value ->> 'weight_grams', value -> 'columns' FROM json_each(?)",
    )
    .bind(&variants)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "INSERT INTO price (sku, currency_code, amount_minor) \
         SELECT v.value ->> 'sku', p.value ->> 0, p.value ->> 1 \
         FROM json_each(?) v, json_each(v.value -> 'prices') p",
    )
    .bind(&variants)
    .execute(&mut *connection)
    .await?;
    let start = |(product, quantities): &Stocked| -> Vec<Value> {
        let quantity = |sku: &String| quantities.get(sku).copied().unwrap_or(0);
        let stock = product
            .variants
            .iter()
            .map(|v| json!([v.sku, quantity(&v.sku)]));
        stock.collect()
    };
    let stock: Vec<Value> = products.iter().flat_map(start).collect();
    sqlx::query(
        "INSERT INTO stock (sku, on_hand, reserved, version) \
         SELECT value ->> 0, value ->> 1, 0, 1 FROM json_each(?) WHERE true \
         ON CONFLICT (sku) DO UPDATE SET on_hand = on_hand + excluded.on_hand, \
             version = version + 1 WHERE excluded.on_hand > 0",
    )
    .bind(Value::Array(stock).to_string())
    .execute(connection)
    .await?;
    Ok(())
}

async fn index(connection: &mut Connection, seq: i64, product: &Product) -> Result<(), Error> {
    let document = Document::of(product);
    sqlx::query(
        "INSERT INTO product_search (rowid, title, skus, labels, description) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(seq)
    .bind(document.title)
    .bind(document.skus)
    .bind(document.labels)
    .bind(document.description)
    .execute(connection)
    .await?;
    Ok(())
}

async fn unindex(connection: &mut Connection, seq: i64) -> Result<(), Error> {
    sqlx::query("DELETE FROM product_search WHERE rowid = ?")
        .bind(seq)
        .execute(connection)
        .await?;
    Ok(())
}

async fn refuse_taken_skus(connection: &mut Connection, product: &Product) -> Result<(), Error> {
    let skus: Vec<String> = product
        .variants
        .iter()
        .map(|variant| variant.sku.clone())
        .collect();
    let owners = owners(connection, &skus).await?;
    match skus
        .into_iter()
        .find(|sku| owners.get(sku).is_some_and(|id| *id != product.id))
    {
        None => Ok(()),
        Some(sku) => Err(Error::SkuTaken {
            product_id: owners[&sku].to_string(),
            sku,
        }),
    }
}

async fn refuse_taken_handle(connection: &mut Connection, product: &Product) -> Result<(), Error> {
    match handle_owner(connection, &product.handle).await? {
        Some(product_id) if product_id != product.id.to_string() => Err(Error::HandleTaken {
            handle: product.handle.clone(),
            product_id,
        }),
        _ => Ok(()),
    }
}

async fn free_handle(connection: &mut Connection, product: &Product) -> Result<String, Error> {
    for handle in product::handles(&product.title, product.id) {
        if handle_owner(connection, &handle).await?.is_none() {
            return Ok(handle);
        }
    }
    Err(corrupt("handle: one made of a new id is taken"))
}

async fn handle_owner(connection: &mut Connection, handle: &str) -> Result<Option<String>, Error> {
    let owner = sqlx::query_scalar("SELECT id FROM product WHERE handle = ?").bind(handle);
    Ok(owner.fetch_optional(connection).await?)
}

fn quantities(draft: &Draft) -> HashMap<String, i32> {
    let initial = draft.variants.iter().filter_map(|variant| {
        variant
            .initial_quantity
            .map(|quantity| (variant.variant.sku.clone(), quantity))
    });
    initial.collect()
}

fn variant_json((product_id, (position, variant)): (ProductId, (usize, &Variant))) -> Value {
    let options: Vec<_> = variant
        .options
        .iter()
        .map(|option| [&option.name, &option.value])
        .collect();
    let prices: Vec<_> = variant
        .prices
        .iter()
        .map(|price| json!([price.currency().code(), price.amount_minor()]))
        .collect();
    json!({
        "sku": variant.sku,
        "product_id": product_id.to_string(),
        "position": position,
        "options": options,
        "barcode": variant.barcode,
        "weight_grams": variant.weight_grams,
        "columns": variant.columns,
        "prices": prices,
    })
}

fn extra_rows_json(rows: &[ExtraRow]) -> String {
    Value::Array(
        rows.iter()
            .map(|row| json!([row.after, row.columns]))
            .collect(),
    )
    .to_string()
}
