//! Sales from the lines that were bought, as they were at that moment.
//!
//! What counts is the goods, less the discounts on them: tax and shipping are in the ledger, and no product's revenue.
//! A capture counts on the day of the order where that is known, else on its own day; a refund on
//! its own, and that it failed after all on the day on which that was known: no past day changes. Deliberately missing: the catalogue. A renamed product or category changes no past sale.

use kernel::Currency;

/// What a line of sales comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SaleKind {
    /// A capture adds.
    Capture,
    /// A refund takes away.
    Refund,
    /// A refund that failed after all adds what it took away.
    RefundReversal,
}

impl SaleKind {
    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Refund => "refund",
            Self::RefundReversal => "refund_reversal",
        }
    }

    /// What the line's units and amount are multiplied with in a sum.
    pub fn sign(self) -> i64 {
        match self {
            Self::Capture | Self::RefundReversal => 1,
            Self::Refund => -1,
        }
    }
}

/// One item's part of a capture or refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleLine {
    /// Whether it adds or takes away.
    pub kind: SaleKind,
    /// The capture or refund.
    pub source: String,
    /// The UTC day that it counts on, `YYYY-MM-DD`.
    pub day: String,
    /// The product.
    pub product_id: String,
    /// The variant.
    pub sku: String,
    /// Its category when it was bought.
    pub category: String,
    /// Units, never negative; 0 for a refund of an amount.
    pub quantity: i32,
    /// The currency.
    pub currency: Currency,
    /// Its part of the amount, less discounts and without tax; never negative.
    pub amount_minor: i64,
}

/// What a summary is grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grouping {
    /// By product.
    pub product: bool,
    /// By category.
    pub category: bool,
    /// By UTC day.
    pub day: bool,
}

/// Which sales are summed, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SalesQuery {
    /// The groups.
    pub by: Grouping,
    /// The first day, `YYYY-MM-DD`.
    pub from_day: Option<String>,
    /// The day after the last one.
    pub to_day: Option<String>,
}

/// One row of a summary. What it is not grouped by is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalesRow {
    /// The product.
    pub product_id: String,
    /// The category.
    pub category: String,
    /// The UTC day.
    pub day: String,
    /// The currency.
    pub currency: Currency,
    /// Captured minus refunded.
    pub amount_minor: i64,
    /// Units captured minus units refunded.
    pub quantity: i64,
    /// Payments with a capture in this row.
    pub payments: i64,
}
