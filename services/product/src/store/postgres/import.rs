//! Batches of an import: everything that is read is read for the whole batch at once, and all that is new is
//! written at once.

use std::collections::HashMap;

use kernel::ProductId;
use mesh_store::Postgres;

use super::{
    catalogue::{self, Stored, Wanted},
    corrupt,
    work::Work,
};
use crate::{
    csv::import::{Group, Merged},
    error::Error,
    listing::View,
    store::{ChangeKind, Imported},
};

/// The most columns that all files together can bring.
const COLUMNS_MAX: i64 = 1_000;

/// Notes the columns of a file after those that are known. One file at a time: the places must not meet.
pub(super) async fn note_columns(postgres: &Postgres, names: &[String]) -> Result<(), Error> {
    let mut write = postgres.begin().await?;
    sqlx::query("LOCK TABLE csv_column IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *write)
        .await?;
    sqlx::query(
        "INSERT INTO csv_column (name, position) \
         SELECT name, place - 1 + (SELECT coalesce(max(position) + 1, 0) FROM csv_column) \
         FROM unnest($1::text[]) WITH ORDINALITY AS file(name, place) \
         WHERE name NOT IN (SELECT name FROM csv_column)",
    )
    .bind(names)
    .execute(&mut *write)
    .await?;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM csv_column")
        .fetch_one(&mut *write)
        .await?;
    if count > COLUMNS_MAX {
        let reason =
            format!("header: the files so far have {COLUMNS_MAX} columns, and no more are kept");
        return Err(Error::invalid("file", reason));
    }
    write.commit().await?;
    Ok(())
}

/// Merges products of a file into the catalogue.
pub(super) async fn import(work: &mut Work, groups: &[Group]) -> Result<Imported, Error> {
    let now_us = work.now_us;
    let existing = hold(work, groups).await?;
    let skus: Vec<String> = groups
        .iter()
        .flat_map(|group| &group.variants)
        .map(|row| row.sku.clone())
        .collect();
    let mut owners = catalogue::owners(work.connection(), &skus).await?;

    let mut imported = Imported::default();
    let mut changed = Vec::new();
    let mut created = Vec::new();
    for group in groups {
        let before = existing.get(&group.handle);
        let merged = group.merge(
            before.map(|stored| &stored.view.product),
            |sku| owners.get(sku).copied(),
            || ProductId::generate(now_us),
            now_us,
            &mut imported.refused,
        );
        let (kind, product) = match (merged, before) {
            (Merged::Unchanged, _) => {
                imported.unchanged += 1;
                continue;
            }
            (Merged::Refused, _) => continue,
            (Merged::Created(product, quantities), _) => {
                imported.created += 1;
                created.push((product.clone(), quantities));
                (ChangeKind::Created, product)
            }
            (Merged::Updated(product, quantities), Some(before)) => {
                catalogue::replace(work.connection(), before, &product, &quantities).await?;
                imported.updated += 1;
                (ChangeKind::Updated, product)
            }
            (Merged::Updated(..), None) => return Err(corrupt("import: nothing to update")),
        };
        owners.extend(
            product
                .variants
                .iter()
                .map(|variant| (variant.sku.clone(), product.id)),
        );
        changed.push((kind, product.id));
    }
    catalogue::insert(work.connection(), &created).await?;
    note_changes(work, &changed).await?;
    Ok(imported)
}

/// Locks the products of these handles, then reads them, by handle.
async fn hold(work: &mut Work, groups: &[Group]) -> Result<HashMap<String, Stored>, Error> {
    let now_us = work.now_us;
    let handles: Vec<String> = groups.iter().map(|group| group.handle.clone()).collect();
    sqlx::query("SELECT FROM product WHERE handle = ANY($1) ORDER BY seq FOR UPDATE")
        .bind(&handles)
        .execute(work.connection())
        .await?;
    let existing = catalogue::load(work.connection(), Wanted::Handles(&handles), now_us).await?;
    let by_handle = |stored: Stored| (stored.view.product.handle.clone(), stored);
    Ok(existing.into_iter().map(by_handle).collect())
}

async fn note_changes(work: &mut Work, changed: &[(ChangeKind, ProductId)]) -> Result<(), Error> {
    let now_us = work.now_us;
    let ids: Vec<String> = changed.iter().map(|(_, id)| id.to_string()).collect();
    let views = catalogue::load(work.connection(), Wanted::Ids(&ids), now_us).await?;
    let views: HashMap<ProductId, View> = views
        .into_iter()
        .map(|stored| (stored.view.product.id, stored.view))
        .collect();
    for (kind, id) in changed {
        let view = views
            .get(id)
            .ok_or_else(|| corrupt("import: a product is gone"))?;
        work.changed(*kind, view);
    }
    Ok(())
}
