//! Products that several callers want at the same time, read in one statement.
//!
//! Deliberately without a cache: everything is read when it is asked for.

use std::collections::{BTreeSet, HashMap};

use kernel::ProductId;
use mesh_store::Postgres;

use super::catalogue::{Wanted, load};
use crate::{error::Error, listing::View};

/// Products that somebody wants to see, and when: by id, then by SKU.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) ids: Vec<ProductId>,
    pub(super) skus: Vec<String>,
    pub(super) now_us: i64,
}

/// What each wants to see, in their order. All see the holds that are overdue at the latest of their times.
pub(super) async fn read_all(
    postgres: &Postgres,
    asked: &[Asked],
) -> Vec<Result<Vec<View>, Error>> {
    match found(postgres, asked).await {
        Ok(found) => asked.iter().map(|one| found.views(one)).collect(),
        Err(error) => asked.iter().map(|_| Err(error.repeated())).collect(),
    }
}

async fn found(postgres: &Postgres, asked: &[Asked]) -> Result<Found, Error> {
    let ids: BTreeSet<ProductId> = asked.iter().flat_map(|one| &one.ids).copied().collect();
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let skus: BTreeSet<&String> = asked.iter().flat_map(|one| &one.skus).collect();
    let skus: Vec<String> = skus.into_iter().cloned().collect();
    let now_us = asked.iter().map(|one| one.now_us).max().unwrap_or_default();
    let wanted = match (ids.as_slice(), skus.as_slice()) {
        (ids, []) => Wanted::Ids(ids),
        (ids, skus) => Wanted::IdsAndSkus(ids, skus),
    };
    let mut connection = postgres.reads().acquire().await?;
    let mut found = Found::default();
    for stored in load(&mut connection, wanted, now_us).await? {
        let product = &stored.view.product;
        let skus = product.variants.iter().map(|variant| variant.sku.clone());
        found.owners.extend(skus.map(|sku| (sku, product.id)));
        found.views.insert(product.id, stored.view);
    }
    Ok(found)
}

/// What a statement found.
#[derive(Default)]
struct Found {
    views: HashMap<ProductId, View>,
    owners: HashMap<String, ProductId>,
}

impl Found {
    fn views(&self, asked: &Asked) -> Result<Vec<View>, Error> {
        let missing = asked.skus.iter();
        let missing: Vec<String> = missing
            .filter(|sku| !self.owners.contains_key(*sku))
            .cloned()
            .collect();
        if !missing.is_empty() {
            return Err(Error::SkusNotFound(missing));
        }
        let missing = asked.ids.iter();
        let missing: Vec<String> = missing
            .filter(|id| !self.views.contains_key(id))
            .map(ToString::to_string)
            .collect();
        if !missing.is_empty() {
            return Err(Error::ProductsNotFound(missing));
        }
        let of_skus = asked.skus.iter().map(|sku| &self.owners[sku]);
        let wanted = asked.ids.iter().chain(of_skus);
        Ok(wanted.map(|id| self.views[id].clone()).collect())
    }
}
