//! Reads records as products: what the header means, which rows belong together, and what a product
//! looks like after its rows have been merged into it.
//!
//! A row that is wrong is refused with its line, column and reason; the other rows of its product are
//! taken. If the row with the product's own fields is wrong there, its product has nothing to stand
//! on, and each of its rows is refused.

mod group;
mod merge;
mod row;

use std::collections::{BTreeMap, HashMap, HashSet};

use kernel::{Currency, Invalid, Money, text};

use super::{Known, parser::Record};
use crate::product::{ExtraRow, Status, VariantOption};

pub use group::{Grouper, ROWS_OF_PRODUCT_MAX};
pub use merge::Merged;

/// The longest name of a column, in characters.
const COLUMN_NAME_CHARACTERS_MAX: usize = 255;

/// A row that was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The line on which the row begins.
    pub line: u32,
    /// The column at fault; empty where the row as a whole is.
    pub column: String,
    /// What is wrong.
    pub reason: String,
}

impl Refusal {
    fn new(line: u32, column: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            line,
            column: column.into(),
            reason: reason.into(),
        }
    }

    fn of(line: u32, invalid: Invalid) -> Self {
        // `Tags[2]` is an index for programs; a file has columns.
        let column = invalid
            .field
            .split('[')
            .next()
            .unwrap_or_default()
            .to_owned();
        Self {
            line,
            column,
            reason: invalid.reason,
        }
    }
}

/// The columns of a file.
#[derive(Debug, Clone)]
pub struct Layout {
    names: Vec<String>,
    known: HashMap<Known, usize>,
    unknown: Vec<usize>,
}

impl Layout {
    /// Reads the header.
    pub fn parse(header: &Record) -> Result<Self, Invalid> {
        let names = header.content.as_ref().map_err(|fault| {
            Invalid::new(
                "file",
                format!("header: column {} {}", fault.field + 1, fault.reason),
            )
        })?;
        let refuse = |reason: String| Err(Invalid::new("file", format!("header: {reason}")));
        let mut seen = HashSet::new();
        let mut known = HashMap::new();
        let mut unknown = Vec::new();
        for (index, name) in names.iter().enumerate() {
            if name.is_empty() {
                return refuse(format!("column {} has no name", index + 1));
            }
            if let Err(invalid) = text::bounded("file", name, 1, COLUMN_NAME_CHARACTERS_MAX) {
                return refuse(format!("column {} {}", index + 1, invalid.reason));
            }
            if !seen.insert(name) {
                return refuse(format!("column \"{name}\" is there twice"));
            }
            match Known::parse(name) {
                Some(column) => drop(known.insert(column, index)),
                None => unknown.push(index),
            }
        }
        if let Some(missing) = Known::REQUIRED
            .iter()
            .find(|column| !known.contains_key(column))
        {
            return refuse(format!("column \"{}\" is missing", missing.name()));
        }
        Ok(Self {
            names: names.clone(),
            known,
            unknown,
        })
    }

    /// The names of all columns, in the order of the file.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The names of the columns that nothing here understands.
    fn unknown_names(&self) -> Vec<String> {
        self.unknown
            .iter()
            .map(|index| self.names[*index].clone())
            .collect()
    }
}

/// The rows of one product, each checked for itself.
#[derive(Debug, Clone)]
pub struct Group {
    /// What the rows have in common.
    pub handle: String,
    /// The line of the first row.
    pub line: u32,
    /// The product's own fields; those are `None` that the file leaves as they are.
    pub fields: Fields,
    /// Its variants that can be taken.
    pub variants: Vec<VariantRow>,
    /// Its rows without a variant.
    pub extra_rows: Vec<ExtraRow>,
    /// How many of its rows have a variant, refused ones included.
    pub variant_rows: usize,
    /// Columns of the file that are kept as they are.
    pub unknown: Vec<String>,
    /// The currency of its prices.
    pub currency: Currency,
}

/// A product's own fields in a file.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    title: Option<String>,
    description_html: Option<String>,
    vendor: Option<String>,
    category: Option<String>,
    tags: Option<Vec<String>>,
    status: Option<Status>,
}

/// A row with a variant.
#[derive(Debug, Clone)]
pub struct VariantRow {
    /// Its line.
    pub line: u32,
    /// The variant.
    pub sku: String,
    options: Option<Vec<VariantOption>>,
    price: Option<Money>,
    barcode: Option<String>,
    weight_grams: Option<i32>,
    initial_quantity: i32,
    columns: BTreeMap<String, String>,
}
