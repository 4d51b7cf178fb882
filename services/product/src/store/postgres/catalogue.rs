//! Products and their variants: reading them whole, and writing what the domain decided.
//!
//! A change holds its product's row from before it is read until the commit, so that two changes of one product
//! follow each other and changes of different products do not meet.

mod rows;
mod save;

use std::collections::HashMap;

use kernel::ProductId;
use proto::commerce::product::v1 as pb;
use sqlx::PgConnection;

use super::{corrupt, work::Work};
use crate::{
    error::Error,
    listing::View,
    product::{self, Draft, Product},
    store::{ChangeKind, Update},
};

pub(super) use rows::{Stored, Wanted, column, load, money, overdue, stored, whole};
pub(super) use save::{insert, replace};

/// A change of the catalogue.
pub(super) enum Change<'a> {
    /// A product is new.
    Create(&'a Product, &'a Draft),
    /// Fields change.
    Update(&'a Update),
    /// A product is deleted.
    Delete(ProductId, &'a str),
    /// A deletion is taken back.
    Undelete(ProductId),
}

/// Carries a change out; answers the product as it is shown.
pub(super) async fn change(work: &mut Work, change: &Change<'_>) -> Result<pb::Product, Error> {
    match change {
        Change::Create(product, draft) => create(work, (*product).clone(), draft).await,
        Change::Update(change) => update(work, change).await,
        Change::Delete(id, etag) => {
            let before = hold(work, *id).await?;
            let after = before.view.product.delete(etag, work.now_us)?;
            save::mark(work.connection(), &after).await?;
            Ok(work.changed(ChangeKind::Deleted, &with(before, after)))
        }
        Change::Undelete(id) => {
            let before = hold(work, *id).await?;
            let after = before.view.product.undelete(work.now_us)?;
            save::mark(work.connection(), &after).await?;
            Ok(work.changed(ChangeKind::Undeleted, &with(before, after)))
        }
    }
}

async fn create(
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
    Ok(work.changed(ChangeKind::Created, &view))
}

async fn update(work: &mut Work, update: &Update) -> Result<pb::Product, Error> {
    let now_us = work.now_us;
    let before = hold(work, update.id).await?;
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
    Ok(work.changed(ChangeKind::Updated, &view))
}

/// Locks a product, then reads it: a statement that waits for a lock has looked at the rest before.
async fn hold(work: &mut Work, id: ProductId) -> Result<Stored, Error> {
    let now_us = work.now_us;
    sqlx::query("SELECT FROM product WHERE id = $1 FOR UPDATE")
        .bind(id.to_string())
        .execute(work.connection())
        .await?;
    find(work.connection(), id, now_us).await
}

fn with(before: Stored, product: Product) -> View {
    View {
        product,
        ..before.view
    }
}

/// One product as it is shown.
pub(super) async fn view(
    connection: &mut PgConnection,
    id: ProductId,
    now_us: i64,
) -> Result<View, Error> {
    Ok(find(connection, id, now_us).await?.view)
}

async fn find(connection: &mut PgConnection, id: ProductId, now_us: i64) -> Result<Stored, Error> {
    let id = id.to_string();
    let found = load(connection, Wanted::Ids(std::slice::from_ref(&id)), now_us).await?;
    found
        .into_iter()
        .next()
        .ok_or(Error::ProductsNotFound(vec![id]))
}

/// Which products SKUs belong to.
pub(super) async fn owners(
    connection: &mut PgConnection,
    skus: &[String],
) -> Result<HashMap<String, ProductId>, Error> {
    if skus.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT sku, product_id FROM variant WHERE sku = ANY($1)")
            .bind(skus)
            .fetch_all(connection)
            .await?;
    let owner = |(sku, id): (String, String)| {
        let id = ProductId::parse(&id).map_err(|_| corrupt("product id"))?;
        Ok((sku, id))
    };
    rows.into_iter().map(owner).collect()
}

async fn refuse_taken_skus(connection: &mut PgConnection, product: &Product) -> Result<(), Error> {
    let skus: Vec<String> = product
        .variants
        .iter()
        .map(|variant| variant.sku.clone())
        .collect();
    let owners = owners(connection, &skus).await?;
    let taken = |sku: &String| owners.get(sku).is_some_and(|id| *id != product.id);
    match skus.into_iter().find(taken) {
        None => Ok(()),
        Some(sku) => Err(Error::SkuTaken {
            product_id: owners[&sku].to_string(),
            sku,
        }),
    }
}

async fn refuse_taken_handle(
    connection: &mut PgConnection,
    product: &Product,
) -> Result<(), Error> {
    match handle_owner(connection, &product.handle).await? {
        Some(product_id) if product_id != product.id.to_string() => Err(Error::HandleTaken {
            handle: product.handle.clone(),
            product_id,
        }),
        _ => Ok(()),
    }
}

async fn free_handle(connection: &mut PgConnection, product: &Product) -> Result<String, Error> {
    for handle in product::handles(&product.title, product.id) {
        if handle_owner(connection, &handle).await?.is_none() {
            return Ok(handle);
        }
    }
    Err(corrupt("handle: one made of a new id is taken"))
}

async fn handle_owner(
    connection: &mut PgConnection,
    handle: &str,
) -> Result<Option<String>, Error> {
    let owner = sqlx::query_scalar("SELECT id FROM product WHERE handle = $1").bind(handle);
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
