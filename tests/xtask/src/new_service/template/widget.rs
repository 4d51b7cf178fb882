//! A widget: what makes a valid one. No I/O and no clock: `now_us` is an argument.

use kernel::{Invalid, ProductId, WidgetId, text};

/// The longest name, in characters.
pub const NAME_CHARACTERS_MAX: usize = 200;

/// What somebody wants to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What it is called.
    pub name: String,
    /// The product that it is about.
    pub product_id: ProductId,
}

impl Draft {
    /// Reads what a client sent.
    pub fn parse(name: &str, product_id: &str) -> Result<Self, Invalid> {
        text::bounded("widget.name", name, 1, NAME_CHARACTERS_MAX)?;
        text::refuse_card_number("widget.name", name)?;
        let product_id = ProductId::parse(product_id)
            .map_err(|error| Invalid::new("widget.product_id", error.to_string()))?;
        Ok(Self {
            name: name.to_owned(),
            product_id,
        })
    }
}

/// A widget.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widget {
    /// Its id.
    pub id: WidgetId,
    /// What it is called.
    pub name: String,
    /// The product that it is about.
    pub product_id: ProductId,
    /// When it was created, in microseconds since the Unix epoch.
    pub created_at_us: i64,
}

impl Widget {
    /// A new one.
    pub fn create(draft: &Draft, now_us: i64) -> Self {
        Self {
            id: WidgetId::generate(now_us),
            name: draft.name.clone(),
            product_id: draft.product_id,
            created_at_us: now_us,
        }
    }
}

/// The title that a product had at a version: what is kept here of another service's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// The product.
    pub product_id: String,
    /// Its title.
    pub title: String,
    /// The version that it had it at.
    pub version: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_field_is_named() {
        let product = ProductId::generate(1).to_string();
        let field = |name: &str, product: &str| Draft::parse(name, product).unwrap_err().field;
        assert_eq!(field("", &product), "widget.name");
        assert_eq!(field("4242 4242 4242 4242", &product), "widget.name");
        assert_eq!(field("a", "prd_x"), "widget.product_id");
        assert!(Draft::parse("a", &product).is_ok());
    }
}
