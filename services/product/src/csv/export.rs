//! Writes products as rows.

use std::collections::{BTreeMap, HashMap, HashSet};

use kernel::Currency;

use super::{DEFAULT_OPTION, Known};
use crate::product::{OPTIONS_MAX, Product, Status, Variant, VariantOption};

/// Writes a file for one currency. The columns are those of all files imported so far, in their
/// order, and after them whatever known column is not among these.
#[derive(Debug)]
pub struct Exporter {
    names: Vec<String>,
    currency: Currency,
}

impl Exporter {
    /// For the columns that were seen in imports, in the order in which they were first seen.
    pub fn new(seen: &[String], currency: Currency) -> Self {
        let mut names: Vec<String> = seen.to_vec();
        let present: HashSet<&str> = seen.iter().map(String::as_str).collect();
        let missing = Known::ALL
            .iter()
            .filter(|(name, _)| !present.contains(name));
        names.extend(missing.map(|(name, _)| (*name).to_owned()));
        Self { names, currency }
    }

    /// Writes the header.
    pub fn header(&self, file: &mut Vec<u8>) {
        write_record(file, self.names.iter().map(String::as_str));
    }

    /// Writes the rows of a product; `on_hand` by SKU.
    pub fn product(&self, file: &mut Vec<u8>, product: &Product, on_hand: &HashMap<String, i32>) {
        let mut rows = Rows {
            exporter: self,
            product,
            first: true,
        };
        let mut extra = product.extra_rows.iter().peekable();
        for (index, variant) in product.variants.iter().enumerate() {
            while let Some(row) = extra.next_if(|row| row.after <= index) {
                rows.write(file, &row.columns, &HashMap::new());
            }
            let on_hand = on_hand.get(&variant.sku).copied().unwrap_or(0);
            let names = &product.variants[0].options;
            let cells = variant_cells(variant, names, index == 0, on_hand, self.currency);
            rows.write(file, &variant.columns, &cells);
        }
        for row in extra {
            rows.write(file, &row.columns, &HashMap::new());
        }
    }
}

struct Rows<'a> {
    exporter: &'a Exporter,
    product: &'a Product,
    first: bool,
}

impl Rows<'_> {
    fn write(
        &mut self,
        file: &mut Vec<u8>,
        columns: &BTreeMap<String, String>,
        variant: &HashMap<Known, String>,
    ) {
        let mut cells = if self.first {
            product_cells(self.product)
        } else {
            HashMap::new()
        };
        self.first = false;
        cells.insert(Known::Handle, self.product.handle.clone());
        let fields = self
            .exporter
            .names
            .iter()
            .map(|name| match Known::parse(name) {
                Some(known) => cells
                    .get(&known)
                    .or_else(|| variant.get(&known))
                    .map_or("", String::as_str),
                None => columns.get(name).map_or("", String::as_str),
            });
        write_record(file, fields);
    }
}

fn product_cells(product: &Product) -> HashMap<Known, String> {
    let status = match product.status {
        Status::Active => "active",
        Status::Draft => "draft",
        Status::Archived => "archived",
    };
    HashMap::from([
        (Known::Title, product.title.clone()),
        (Known::Body, product.description_html.clone()),
        (Known::Vendor, product.vendor.clone()),
        (Known::Type, product.category.clone()),
        (Known::Tags, product.tags.join(", ")),
        (Known::Status, status.to_owned()),
    ])
}

/// The cells of a variant. The names of options stand on the first variant's row, and on another
/// one only where they differ from it.
fn variant_cells(
    variant: &Variant,
    names: &[VariantOption],
    first: bool,
    on_hand: i32,
    currency: Currency,
) -> HashMap<Known, String> {
    let mut cells = HashMap::from([
        (Known::Sku, variant.sku.clone()),
        (Known::Grams, variant.weight_grams.to_string()),
        (Known::Quantity, on_hand.to_string()),
        (Known::Barcode, variant.barcode.clone()),
    ]);
    if let Some(price) = variant.price(currency) {
        cells.insert(Known::Price, price.to_decimal());
    }
    for (index, option) in variant.options.iter().enumerate().take(OPTIONS_MAX) {
        let inherited = names
            .get(index)
            .is_some_and(|other| other.name == option.name);
        if first || !inherited {
            cells.insert(Known::OptionName(index), option.name.clone());
        }
        cells.insert(Known::OptionValue(index), option.value.clone());
    }
    if variant.options.is_empty() && first {
        cells.insert(Known::OptionName(0), DEFAULT_OPTION.0.to_owned());
        cells.insert(Known::OptionValue(0), DEFAULT_OPTION.1.to_owned());
    }
    cells
}

/// Writes a record as RFC 4180 has it, quoted only where it must be.
fn write_record<'a>(file: &mut Vec<u8>, fields: impl Iterator<Item = &'a str>) {
    for (index, field) in fields.enumerate() {
        if index > 0 {
            file.push(b',');
        }
        if field.contains([',', '"', '\r', '\n', '\u{feff}']) {
            file.push(b'"');
            file.extend_from_slice(field.replace('"', "\"\"").as_bytes());
            file.push(b'"');
        } else {
            file.extend_from_slice(field.as_bytes());
        }
    }
    file.extend_from_slice(b"\r\n");
}
