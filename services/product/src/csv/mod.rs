//! The Shopify product CSV: one row a variant, rows of a product together, product fields on its
//! first row.
//!
//! Columns that nothing here understands are kept row by row and given back by export. Export,
//! import into an empty shop, export gives identical bytes.
//!
//! [`parser`] splits bytes into records as they arrive, [`import`] groups records into products and
//! merges them into what is there, [`export`] writes. Deliberately missing: I/O and storage; removing
//! variants (an import only adds and changes); renaming (a handle is what a product is matched by).

pub mod export;
pub mod import;
pub mod parser;

/// A column with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Known {
    /// What rows of one product have in common.
    Handle,
    /// On the first row of a product.
    Title,
    /// On the first row of a product.
    Body,
    /// On the first row of a product.
    Vendor,
    /// The category, on the first row of a product.
    Type,
    /// Separated by commas, on the first row of a product.
    Tags,
    /// Name of option 0, 1 or 2; left out where an earlier row of the product has it.
    OptionName(usize),
    /// Value of option 0, 1 or 2.
    OptionValue(usize),
    /// The variant.
    Sku,
    /// Weight in grams.
    Grams,
    /// Stock of a new variant.
    Quantity,
    /// Decimal number in the currency of the file.
    Price,
    /// Barcode.
    Barcode,
    /// `active`, `draft` or `archived`, on the first row of a product.
    Status,
}

impl Known {
    /// Every known column with its name, in the order in which Shopify writes them.
    pub const ALL: [(&'static str, Self); 18] = [
        ("Handle", Self::Handle),
        ("Title", Self::Title),
        ("Body (HTML)", Self::Body),
        ("Vendor", Self::Vendor),
        ("Type", Self::Type),
        ("Tags", Self::Tags),
        ("Option1 Name", Self::OptionName(0)),
        ("Option1 Value", Self::OptionValue(0)),
        ("Option2 Name", Self::OptionName(1)),
        ("Option2 Value", Self::OptionValue(1)),
        ("Option3 Name", Self::OptionName(2)),
        ("Option3 Value", Self::OptionValue(2)),
        ("Variant SKU", Self::Sku),
        ("Variant Grams", Self::Grams),
        ("Variant Inventory Qty", Self::Quantity),
        ("Variant Price", Self::Price),
        ("Variant Barcode", Self::Barcode),
        ("Status", Self::Status),
    ];

    /// The columns without which a file cannot be imported.
    pub const REQUIRED: [Self; 4] = [Self::Handle, Self::Title, Self::Sku, Self::Price];

    /// Reads a column's name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, column)| *column)
    }

    /// The column's name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, column)| *column == self)
            .map(|(name, _)| *name)
            .expect("ALL lists every column, and options only up to the third")
    }
}

/// What a product without options has in the first option's columns.
pub const DEFAULT_OPTION: (&str, &str) = ("Title", "Default Title");

#[cfg(test)]
mod tests;
