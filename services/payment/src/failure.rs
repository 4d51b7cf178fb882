//! Why an attempt, a capture or a refund failed.

use serde::{Deserialize, Serialize};

/// What kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureCode {
    /// The provider refused, for a reason of its own.
    CardDeclined,
    /// There is not enough money.
    InsufficientFunds,
    /// The customer did not authenticate.
    AuthenticationFailed,
    /// There are not enough units.
    OutOfStock,
    /// The price is not what was agreed on.
    PriceChanged,
    /// The product service cannot be reached, or a product is no longer sold.
    ProductUnavailable,
    /// The provider cannot be reached.
    ProviderUnavailable,
    /// The provider refused a response to a dispute.
    ProviderRefused,
}

impl FailureCode {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::CardDeclined,
        Self::InsufficientFunds,
        Self::AuthenticationFailed,
        Self::OutOfStock,
        Self::PriceChanged,
        Self::ProductUnavailable,
        Self::ProviderUnavailable,
        Self::ProviderRefused,
    ];

    /// Reads [`FailureCode::name`] back.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// The name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::CardDeclined => "CARD_DECLINED",
            Self::InsufficientFunds => "INSUFFICIENT_FUNDS",
            Self::AuthenticationFailed => "AUTHENTICATION_FAILED",
            Self::OutOfStock => "OUT_OF_STOCK",
            Self::PriceChanged => "PRICE_CHANGED",
            Self::ProductUnavailable => "PRODUCT_UNAVAILABLE",
            Self::ProviderUnavailable => "PROVIDER_UNAVAILABLE",
            Self::ProviderRefused => "PROVIDER_REFUSED",
        }
    }
}

/// A failure as it is shown to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub code: FailureCode,
    /// What happened, for people.
    pub message: String,
    /// The item at fault; empty where there is none.
    #[serde(default)]
    pub sku: String,
}

impl Failure {
    /// A failure of no item in particular.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            sku: String::new(),
        }
    }

    /// The same, with the item at fault.
    #[must_use]
    pub fn of_item(mut self, sku: impl Into<String>) -> Self {
        self.sku = sku.into();
        self
    }
}
