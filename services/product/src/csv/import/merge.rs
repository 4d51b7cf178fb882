//! What a product looks like after its rows have been merged into it.

use std::collections::{BTreeMap, HashMap};

use kernel::ProductId;

use super::{Group, Refusal, VariantRow};
use crate::{
    csv::Known,
    product::{ExtraRow, PRICES_MAX, Product, Status, VARIANTS_MAX, Variant},
};

/// What a group comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// A new product, with what each variant's stock starts with.
    Created(Product, HashMap<String, i32>),
    /// A changed one, with what each new variant's stock starts with.
    Updated(Product, HashMap<String, i32>),
    /// It is as the file says already.
    Unchanged,
    /// Nothing of it can be taken.
    Refused,
}

impl Group {
    /// Merges the rows into the product with their handle, or makes it. `owner` answers which product
    /// a SKU belongs to.
    pub fn merge(
        &self,
        existing: Option<&Product>,
        owner: impl Fn(&str) -> Option<ProductId>,
        new_id: impl FnOnce() -> ProductId,
        now_us: i64,
        refused: &mut Vec<Refusal>,
    ) -> Merged {
        if let Some(deleted) = existing.filter(|product| product.deleted_at_us.is_some()) {
            let reason = format!(
                "belongs to the deleted product {}; undelete it first",
                deleted.id
            );
            refused.push(Refusal::new(self.line, Known::Handle.name(), reason));
            return Merged::Refused;
        }
        if existing.is_none() && self.fields.title.is_none() {
            let reason = "must not be empty on the first row of a new product";
            refused.push(Refusal::new(self.line, Known::Title.name(), reason));
            return Merged::Refused;
        }
        let before = existing
            .cloned()
            .unwrap_or_else(|| self.blank(new_id(), now_us));
        let mut after = before.clone();
        self.set_fields(&mut after);
        let mut quantities = HashMap::new();
        for row in &self.variants {
            if let Err(refusal) = row.merge(&mut after, self, &owner, &mut quantities) {
                refused.push(refusal);
            }
        }
        after.extra_rows = self.merged_extra_rows(&before);
        if after.variants.is_empty() {
            if self.variant_rows == 0 {
                let reason = "a new product needs at least one row with a variant";
                refused.push(Refusal::new(self.line, Known::Sku.name(), reason));
            }
            return Merged::Refused;
        }
        debug_assert!(after.violations().is_empty(), "{:?}", after.violations());
        match existing {
            None => Merged::Created(after, quantities),
            Some(existing) => match existing.changed(after, now_us) {
                Some(after) => Merged::Updated(after, quantities),
                None => Merged::Unchanged,
            },
        }
    }

    fn blank(&self, id: ProductId, now_us: i64) -> Product {
        Product {
            id,
            title: String::new(),
            description_html: String::new(),
            vendor: String::new(),
            category: String::new(),
            tags: Vec::new(),
            status: Status::Active,
            handle: self.handle.clone(),
            variants: Vec::new(),
            extra_rows: Vec::new(),
            version: 1,
            created_at_us: now_us,
            updated_at_us: now_us,
            deleted_at_us: None,
        }
    }

    fn set_fields(&self, product: &mut Product) {
        let set = |to: &mut String, from: &Option<String>| {
            if let Some(from) = from {
                to.clone_from(from);
            }
        };
        set(&mut product.title, &self.fields.title);
        set(&mut product.description_html, &self.fields.description_html);
        set(&mut product.vendor, &self.fields.vendor);
        set(&mut product.category, &self.fields.category);
        if let Some(tags) = &self.fields.tags {
            product.tags.clone_from(tags);
        }
        product.status = self.fields.status.unwrap_or(product.status);
    }

    /// The extra rows after the import: those of the file, each with the columns that the file does
    /// not have from the row that stood in its place. A file without unknown columns has no say.
    fn merged_extra_rows(&self, before: &Product) -> Vec<ExtraRow> {
        if self.unknown.is_empty() {
            return before.extra_rows.clone();
        }
        let merge = |(index, row): (usize, &ExtraRow)| {
            let mut columns = row.columns.clone();
            if let Some(earlier) = before.extra_rows.get(index) {
                keep_others(&mut columns, &earlier.columns, &self.unknown);
            }
            ExtraRow {
                after: row.after,
                columns,
            }
        };
        self.extra_rows.iter().enumerate().map(merge).collect()
    }
}

impl VariantRow {
    fn merge(
        &self,
        product: &mut Product,
        group: &Group,
        owner: &impl Fn(&str) -> Option<ProductId>,
        quantities: &mut HashMap<String, i32>,
    ) -> Result<(), Refusal> {
        let refuse =
            |column: Known, reason: String| Err(Refusal::new(self.line, column.name(), reason));
        let place = product
            .variants
            .iter()
            .position(|variant| variant.sku == self.sku);
        if place.is_none() {
            if let Some(other) = owner(&self.sku) {
                return refuse(Known::Sku, format!("belongs to product {other}"));
            }
            if self.price.is_none() {
                return refuse(
                    Known::Price,
                    "must not be empty for a new variant".to_owned(),
                );
            }
            if product.variants.len() >= VARIANTS_MAX {
                return refuse(
                    Known::Sku,
                    format!("a product has at most {VARIANTS_MAX} variants"),
                );
            }
        }
        let mut variant = match place {
            Some(place) => product.variants[place].clone(),
            None => Variant {
                sku: self.sku.clone(),
                options: Vec::new(),
                prices: Vec::new(),
                barcode: String::new(),
                weight_grams: 0,
                columns: BTreeMap::new(),
            },
        };
        if let Some(price) = self.price {
            variant.set_price(price);
            if variant.prices.len() > PRICES_MAX {
                let reason = format!("a variant has prices in at most {PRICES_MAX} currencies");
                return refuse(Known::Price, reason);
            }
        }
        if let Some(options) = &self.options {
            variant.options.clone_from(options);
        }
        if let Some(barcode) = &self.barcode {
            variant.barcode.clone_from(barcode);
        }
        variant.weight_grams = self.weight_grams.unwrap_or(variant.weight_grams);
        let mut columns = self.columns.clone();
        keep_others(&mut columns, &variant.columns, &group.unknown);
        variant.columns = columns;
        if let Some(place) = place {
            product.variants[place] = variant;
        } else {
            quantities.insert(self.sku.clone(), self.initial_quantity);
            product.variants.push(variant);
        }
        Ok(())
    }
}

/// Adds those earlier columns that the file does not have.
fn keep_others(
    columns: &mut BTreeMap<String, String>,
    earlier: &BTreeMap<String, String>,
    in_file: &[String],
) {
    for (name, value) in earlier.iter().filter(|(name, _)| !in_file.contains(name)) {
        columns.insert(name.clone(), value.clone());
    }
}
