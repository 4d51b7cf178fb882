//! The `order_by` of list methods (AIP-132): column names divided by commas, each optionally
//! followed by `desc`.
//!
//! Deliberately missing: the default order and the tie-breaker, which each method adds itself.

use crate::text::Invalid;

/// One column to sort by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// The column, one of those allowed.
    pub column: &'static str,
    /// Whether the largest comes first.
    pub descending: bool,
}

/// Reads an `order_by` over the `allowed` columns; blank text is no order.
pub fn parse(text: &str, allowed: &[&'static str]) -> Result<Vec<Order>, Invalid> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut orders: Vec<Order> = Vec::new();
    for part in text.split(',') {
        let order = parse_column(part, allowed)?;
        if orders.iter().any(|earlier| earlier.column == order.column) {
            return Err(refused(format!("names `{}` twice", order.column)));
        }
        orders.push(order); // At most one for each allowed column.
    }
    Ok(orders)
}

fn parse_column(part: &str, allowed: &[&'static str]) -> Result<Order, Invalid> {
    let mut words = part.split_ascii_whitespace();
    let name = words
        .next()
        .ok_or_else(|| refused("has an empty column name".to_owned()))?;
    let column = allowed
        .iter()
        .find(|column| **column == name)
        .ok_or_else(|| {
            refused(format!(
                "cannot order by `{name:.32}`; allowed: {}",
                allowed.join(", ")
            ))
        })?;
    let descending = match (words.next(), words.next()) {
        (None, _) => false,
        (Some("desc"), None) => true,
        _ => {
            return Err(refused(format!(
                "expected `desc`, a comma or the end after `{name}`"
            )));
        }
    };
    Ok(Order { column, descending })
}

fn refused(reason: String) -> Invalid {
    Invalid::new("order_by", reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALLOWED: &[&str] = &["title", "create_time"];

    #[test]
    fn columns_with_and_without_desc() {
        let title = Order {
            column: "title",
            descending: false,
        };
        let newest = Order {
            column: "create_time",
            descending: true,
        };
        assert_eq!(parse("", ALLOWED), Ok(vec![]));
        assert_eq!(parse("title", ALLOWED), Ok(vec![title]));
        assert_eq!(
            parse(" create_time  desc , title ", ALLOWED),
            Ok(vec![newest, title])
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for (text, reason) in [
            (
                "price",
                "cannot order by `price`; allowed: title, create_time",
            ),
            (
                "title up",
                "expected `desc`, a comma or the end after `title`",
            ),
            (
                "title desc desc",
                "expected `desc`, a comma or the end after `title`",
            ),
            ("title,", "has an empty column name"),
            ("title, title desc", "names `title` twice"),
        ] {
            let error = parse(text, ALLOWED).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.reason.as_str()),
                ("order_by", reason)
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,60}") {
            let _ = parse(&text, ALLOWED);
        }
    }
}
