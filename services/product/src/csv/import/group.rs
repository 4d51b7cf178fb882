//! Which rows belong together, and which of them are refused.

use std::collections::{HashMap, HashSet};

use kernel::Currency;

use super::{Fields, Group, Layout, Refusal, row::Row};
use crate::{
    csv::{Known, parser::Record},
    product::{self, ExtraRow, OPTIONS_MAX},
};

/// The most rows of one product: variants and images.
pub const ROWS_OF_PRODUCT_MAX: usize = 1_000;

/// Collects records into groups.
#[derive(Debug)]
pub struct Grouper {
    layout: Layout,
    currency: Currency,
    current: Option<Open>,
    seen: HashMap<String, u32>,
}

/// A group whose rows still arrive.
#[derive(Debug)]
struct Open {
    group: Group,
    rows: usize,
    /// The first name that stands in each option's column.
    option_names: [String; OPTIONS_MAX],
    skus: HashSet<String>,
    /// The product's own fields are wrong.
    lost: bool,
}

impl Grouper {
    /// For a file with these columns and prices in this currency.
    pub fn new(layout: Layout, currency: Currency) -> Self {
        Self {
            layout,
            currency,
            current: None,
            seen: HashMap::new(),
        }
    }

    /// The columns of the file.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes the next record; gives the group that it shows to be complete, if any.
    pub fn push(&mut self, record: Record, refused: &mut Vec<Refusal>) -> Option<Group> {
        let line = record.line;
        let fields = match record.content {
            Ok(fields) => fields,
            Err(fault) => {
                let column = self
                    .layout
                    .names
                    .get(fault.field)
                    .cloned()
                    .unwrap_or_default();
                refused.push(Refusal::new(line, column, fault.reason));
                return None;
            }
        };
        if fields.len() != self.layout.names.len() {
            let (has, should) = (fields.len(), self.layout.names.len());
            let reason = format!("has {has} fields where the header has {should}");
            refused.push(Refusal::new(line, "", reason));
            return None;
        }
        let row = Row {
            layout: &self.layout,
            line,
            fields: &fields,
        };
        let handle = row.cell(Known::Handle).unwrap_or_default();
        if let Err(invalid) = product::check_handle(Known::Handle.name(), handle) {
            refused.push(Refusal::of(line, invalid));
            return None;
        }
        if let Some(open) = self
            .current
            .as_mut()
            .filter(|open| open.group.handle == handle)
        {
            open.add(&row, self.currency, refused);
            return None;
        }
        if let Some(earlier) = self.seen.get(handle) {
            let reason = format!("began on line {earlier}: rows of a product stand together");
            refused.push(Refusal::new(line, Known::Handle.name(), reason));
            return None;
        }
        self.seen.insert(handle.to_owned(), line);
        let mut open = Open::new(&row, handle, self.currency, refused);
        open.add(&row, self.currency, refused);
        self.current.replace(open).and_then(Open::close)
    }

    /// The group that the end of the file completes, if any.
    pub fn finish(self) -> Option<Group> {
        self.current.and_then(Open::close)
    }
}

impl Open {
    fn new(row: &Row<'_>, handle: &str, currency: Currency, refused: &mut Vec<Refusal>) -> Self {
        let fields = row.product_fields();
        let lost = fields.is_err();
        let fields = fields.unwrap_or_else(|invalid| {
            refused.push(Refusal::of(row.line, invalid));
            Fields::default()
        });
        let group = Group {
            handle: handle.to_owned(),
            line: row.line,
            fields,
            variants: Vec::new(),
            extra_rows: Vec::new(),
            variant_rows: 0,
            unknown: row.layout.unknown_names(),
            currency,
        };
        Self {
            group,
            rows: 0,
            option_names: Default::default(),
            skus: HashSet::new(),
            lost,
        }
    }

    fn add(&mut self, row: &Row<'_>, currency: Currency, refused: &mut Vec<Refusal>) {
        self.rows += 1;
        for (index, name) in self.option_names.iter_mut().enumerate() {
            if name.is_empty() {
                row.option_name(index).clone_into(name);
            }
        }
        if self.lost {
            if self.rows > 1 {
                let reason = format!(
                    "the product's first row, line {}, was refused",
                    self.group.line
                );
                refused.push(Refusal::new(row.line, "", reason));
            }
            return;
        }
        if self.rows > ROWS_OF_PRODUCT_MAX {
            let reason = format!("a product has at most {ROWS_OF_PRODUCT_MAX} rows");
            refused.push(Refusal::new(row.line, "", reason));
            return;
        }
        if !row.has_variant() {
            let columns = row.unknown_columns();
            if !columns.is_empty() {
                self.group.extra_rows.push(ExtraRow {
                    after: self.group.variant_rows,
                    columns,
                });
            } else if self.rows > 1 {
                refused.push(Refusal::new(row.line, "", "holds nothing but a handle"));
            }
            return;
        }
        self.group.variant_rows += 1;
        match row.variant(currency, &self.option_names) {
            Err(invalid) => refused.push(Refusal::of(row.line, invalid)),
            Ok(variant) if !self.skus.insert(variant.sku.clone()) => {
                let reason = "stands in another row of this product already";
                refused.push(Refusal::new(row.line, Known::Sku.name(), reason));
            }
            Ok(variant) => self.group.variants.push(variant),
        }
    }

    fn close(self) -> Option<Group> {
        (!self.lost).then_some(self.group)
    }
}
