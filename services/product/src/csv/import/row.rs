//! One record, cell by cell.

use std::collections::BTreeMap;

use kernel::{Currency, Invalid, Money};

use super::{Fields, Layout, VariantRow};
use crate::{
    csv::{DEFAULT_OPTION, Known},
    product::{self, INITIAL_QUANTITY_MAX, Status, VariantOption, WEIGHT_GRAMS_MAX},
};

/// A record with the names of its columns.
pub(super) struct Row<'a> {
    pub(super) layout: &'a Layout,
    pub(super) line: u32,
    pub(super) fields: &'a [String],
}

impl Row<'_> {
    /// A cell; `None` when the file has no such column.
    pub(super) fn cell(&self, column: Known) -> Option<&str> {
        self.layout
            .known
            .get(&column)
            .map(|index| self.fields[*index].as_str())
    }

    /// A cell that is not empty.
    fn filled(&self, column: Known) -> Option<&str> {
        self.cell(column).filter(|cell| !cell.is_empty())
    }

    pub(super) fn has_variant(&self) -> bool {
        let columns = [Known::Sku, Known::Price, Known::OptionValue(0)];
        columns
            .into_iter()
            .any(|column| self.filled(column).is_some())
    }

    pub(super) fn option_name(&self, index: usize) -> &str {
        self.cell(Known::OptionName(index)).unwrap_or_default()
    }

    pub(super) fn unknown_columns(&self) -> BTreeMap<String, String> {
        self.layout
            .unknown
            .iter()
            .filter(|index| !self.fields[**index].is_empty())
            .map(|index| {
                (
                    self.layout.names[*index].clone(),
                    self.fields[*index].clone(),
                )
            })
            .collect()
    }

    pub(super) fn product_fields(&self) -> Result<Fields, Invalid> {
        let mut fields = Fields::default();
        if let Some(title) = self.filled(Known::Title) {
            product::check_title(Known::Title.name(), title)?;
            fields.title = Some(title.to_owned());
        }
        if let Some(description) = self.cell(Known::Body) {
            product::check_description(Known::Body.name(), description)?;
            fields.description_html = Some(description.to_owned());
        }
        if let Some(vendor) = self.cell(Known::Vendor) {
            product::check_name(Known::Vendor.name(), vendor)?;
            fields.vendor = Some(vendor.to_owned());
        }
        if let Some(category) = self.cell(Known::Type) {
            product::check_name(Known::Type.name(), category)?;
            fields.category = Some(category.to_owned());
        }
        if let Some(tags) = self.cell(Known::Tags) {
            let split = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            let tags: Vec<String> = split.map(str::to_owned).collect();
            product::check_tags(Known::Tags.name(), &tags)?;
            fields.tags = Some(tags);
        }
        if let Some(name) = self.filled(Known::Status) {
            let status = Status::parse(&name.to_ascii_uppercase());
            let invalid = || {
                Invalid::new(
                    Known::Status.name(),
                    "must be `active`, `draft` or `archived`",
                )
            };
            fields.status = Some(status.ok_or_else(invalid)?);
        }
        Ok(fields)
    }

    pub(super) fn variant(
        &self,
        currency: Currency,
        names: &[String],
    ) -> Result<VariantRow, Invalid> {
        let sku = self.cell(Known::Sku).unwrap_or_default();
        product::check_sku(Known::Sku.name(), sku)?;
        let price = match self.filled(Known::Price) {
            None => None,
            Some(decimal) => {
                let at = Known::Price.name();
                let price = Money::parse_decimal(decimal, currency).map_err(|e| e.at(at))?;
                if price.amount_minor() < 0 {
                    return Err(Invalid::new(at, "must not be negative"));
                }
                Some(price)
            }
        };
        if let Some(barcode) = self.cell(Known::Barcode) {
            product::check_barcode(Known::Barcode.name(), barcode)?;
        }
        Ok(VariantRow {
            line: self.line,
            sku: sku.to_owned(),
            options: self.options(names)?,
            price,
            barcode: self.cell(Known::Barcode).map(str::to_owned),
            weight_grams: self.number(Known::Grams, WEIGHT_GRAMS_MAX)?,
            initial_quantity: self
                .number(Known::Quantity, INITIAL_QUANTITY_MAX)?
                .unwrap_or(0),
            columns: self.unknown_columns(),
        })
    }

    /// The options of a variant; `None` when the file has no columns for them.
    fn options(&self, names: &[String]) -> Result<Option<Vec<VariantOption>>, Invalid> {
        if self.cell(Known::OptionValue(0)).is_none() {
            return Ok(None);
        }
        let mut options: Vec<VariantOption> = Vec::new();
        for (index, inherited) in names.iter().enumerate() {
            let (name_column, value_column) = (Known::OptionName(index), Known::OptionValue(index));
            let own = self.filled(name_column);
            let Some(value) = self.filled(value_column) else {
                continue;
            };
            let name = own.unwrap_or(inherited);
            if options.is_empty() && (name, value) == DEFAULT_OPTION {
                continue;
            }
            product::check_title(name_column.name(), name)?;
            product::check_title(value_column.name(), value)?;
            if options.iter().any(|option| option.name == name) {
                return Err(Invalid::new(
                    name_column.name(),
                    "names the same option twice",
                ));
            }
            options.push(VariantOption {
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
        Ok(Some(options))
    }

    fn number(&self, column: Known, max: i32) -> Result<Option<i32>, Invalid> {
        let Some(text) = self.filled(column) else {
            return Ok(None);
        };
        match text.parse::<i32>() {
            Ok(number) if (0..=max).contains(&number) => Ok(Some(number)),
            _ => Err(Invalid::new(
                column.name(),
                format!("must be a whole number, 0 to {max}"),
            )),
        }
    }
}
