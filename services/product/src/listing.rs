//! What is read together: a product with what can be bought of it and what was sold, pages of them,
//! and the queries that ask for pages. Query text is checked here; a store turns it into SQL.

use kernel::{
    Invalid,
    cursor::{self, Key, KeyKind},
    filter::{self, Expr, Field, Kind, Operator},
    order_by::{self, Order},
};

use crate::{product::Product, search};

/// The default and the largest page of a list.
pub const LIST_PAGE: (usize, usize) = (50, 1000);
/// The default and the largest page of a search.
pub const SEARCH_PAGE: (usize, usize) = (20, 100);
/// The most products that are asked for at once by name.
pub const BATCH_MAX: usize = 100;

/// The fields of a filter. The contract documents them.
pub const FILTER_FIELDS: &[Field] = &[
    Field {
        name: "title",
        kind: Kind::Text,
        operators: Operator::TEXT,
    },
    Field {
        name: "category",
        kind: Kind::Text,
        operators: Operator::TEXT,
    },
    Field {
        name: "vendor",
        kind: Kind::Text,
        operators: Operator::TEXT,
    },
    Field {
        name: "handle",
        kind: Kind::Text,
        operators: Operator::TEXT,
    },
    Field {
        name: "status",
        kind: Kind::Enum(&["ACTIVE", "DRAFT", "ARCHIVED"]),
        operators: Operator::EQUALITY,
    },
    Field {
        name: "tags",
        kind: Kind::TextList,
        operators: Operator::TEXT,
    },
    Field {
        name: "sku",
        kind: Kind::TextList,
        operators: Operator::TEXT,
    },
    Field {
        name: "create_time",
        kind: Kind::Time,
        operators: Operator::ORDERED,
    },
    Field {
        name: "update_time",
        kind: Kind::Time,
        operators: Operator::ORDERED,
    },
    Field {
        name: "sold_quantity",
        kind: Kind::Number,
        operators: Operator::ORDERED,
    },
];

/// The columns that a list can be ordered by.
pub const ORDER_COLUMNS: &[&str] = &[
    "create_time",
    "update_time",
    "title",
    "category",
    "sold_quantity",
];

/// A product as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The product.
    pub product: Product,
    /// What can be bought of each variant, in their order.
    pub available: Vec<i32>,
    /// What was sold.
    pub sales: Sales,
}

/// What was sold of a product and not refunded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sales {
    /// Units.
    pub quantity: i64,
    /// Currency code and minor units, by currency code.
    pub revenue: Vec<(String, i64)>,
}

/// A page of products.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its products.
    pub views: Vec<View>,
    /// The token of the next page; empty on the last one.
    pub next_page_token: String,
    /// The revision that it was read at.
    pub revision: i64,
}

/// A checked request for a page of the catalogue.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Which products.
    pub filter: Option<Expr>,
    /// In which order; the order of creation comes last by itself, in the direction of the last one.
    pub orders: Vec<Order>,
    /// The keys of the last row of the page before: one a column of `orders`, then `seq`.
    pub after: Option<Vec<Key>>,
    /// How many at most.
    pub page_size: usize,
    /// Whether deleted ones too.
    pub show_deleted: bool,
    arguments: [String; 3],
}

impl ListQuery {
    /// Checks a request.
    pub fn parse(
        page_size: i32,
        page_token: &str,
        filter: &str,
        order_by: &str,
        show_deleted: bool,
    ) -> Result<Self, Vec<Invalid>> {
        let size = page_size_of(page_size, LIST_PAGE);
        let parsed_filter = filter::parse(filter, FILTER_FIELDS, filter::Limits::default());
        let orders = order_by::parse(order_by, ORDER_COLUMNS);
        let (page_size, parsed_filter, mut orders) = match (size, parsed_filter, orders) {
            (Ok(size), Ok(filter), Ok(orders)) => (size, filter, orders),
            (size, filter, orders) => {
                return Err([size.err(), filter.err(), orders.err()]
                    .into_iter()
                    .flatten()
                    .collect());
            }
        };
        if orders.is_empty() {
            orders.push(Order {
                column: "create_time",
                descending: true,
            });
        }
        let mut query = Self {
            filter: parsed_filter,
            orders,
            after: None,
            page_size,
            show_deleted,
            arguments: [
                filter.trim().to_owned(),
                order_by.to_owned(),
                show_deleted.to_string(),
            ],
        };
        if !page_token.is_empty() {
            let keys = cursor::decode(page_token, &query.arguments(), &query.key_kinds());
            query.after = Some(keys.map_err(|invalid| vec![invalid])?);
        }
        Ok(query)
    }

    /// Whether the last key, the order of creation, descends.
    pub fn seq_descends(&self) -> bool {
        self.orders.last().is_some_and(|order| order.descending)
    }

    /// The token for the page after the row with these keys.
    pub fn token(&self, keys: &[Key]) -> String {
        cursor::encode(&self.arguments(), keys)
    }

    /// What kind each key is of.
    pub fn key_kinds(&self) -> Vec<KeyKind> {
        let kind = |order: &Order| match order.column {
            "title" | "category" => KeyKind::Text,
            _ => KeyKind::Integer,
        };
        self.orders
            .iter()
            .map(kind)
            .chain([KeyKind::Integer])
            .collect()
    }

    fn arguments(&self) -> Vec<&str> {
        std::iter::once("list")
            .chain(self.arguments.iter().map(String::as_str))
            .collect()
    }
}

/// A checked request for a page of a search.
#[derive(Debug, Clone)]
pub struct SearchQuery {
    /// What to look for.
    pub query: search::Query,
    /// Score and `seq` of the last row of the page before.
    pub after: Option<(f64, i64)>,
    /// How many at most.
    pub page_size: usize,
    text: String,
}

impl SearchQuery {
    /// Checks a request.
    pub fn parse(query: &str, page_size: i32, page_token: &str) -> Result<Self, Vec<Invalid>> {
        let parsed = search::Query::parse(query);
        let size = page_size_of(page_size, SEARCH_PAGE);
        let (parsed, page_size) = match (parsed, size) {
            (Ok(parsed), Ok(size)) => (parsed, size),
            (parsed, size) => return Err(parsed.err().into_iter().chain(size.err()).collect()),
        };
        let mut query = Self {
            query: parsed,
            after: None,
            page_size,
            text: query.to_owned(),
        };
        if !page_token.is_empty() {
            let kinds = [KeyKind::Integer, KeyKind::Integer];
            let keys = cursor::decode(page_token, &query.arguments(), &kinds);
            if let [Key::Integer(score), Key::Integer(seq)] =
                keys.map_err(|invalid| vec![invalid])?[..]
            {
                query.after = Some((f64::from_bits(score.cast_unsigned()), seq));
            }
        }
        Ok(query)
    }

    /// The token for the page after the row with this score and `seq`.
    pub fn token(&self, score: f64, seq: i64) -> String {
        let keys = [
            Key::Integer(score.to_bits().cast_signed()),
            Key::Integer(seq),
        ];
        cursor::encode(&self.arguments(), &keys)
    }

    fn arguments(&self) -> [&str; 2] {
        ["search", &self.text]
    }
}

fn page_size_of(given: i32, (default, max): (usize, usize)) -> Result<usize, Invalid> {
    match usize::try_from(given) {
        Ok(0) => Ok(default),
        Ok(size) if size <= max => Ok(size),
        _ => Err(Invalid::new(
            "page_size",
            format!("must be 1 to {max}, or 0 for {default}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_bound_to_its_arguments() {
        let query = ListQuery::parse(10, "", "status = ACTIVE", "title", false).unwrap();
        let token = query.token(&[Key::Text("a".into()), Key::Integer(7)]);
        let again = ListQuery::parse(20, &token, "status = ACTIVE", "title", false).unwrap();
        assert_eq!(
            again.after,
            Some(vec![Key::Text("a".into()), Key::Integer(7)])
        );
        for (filter, order_by, show_deleted) in [
            ("", "title", false),
            ("status = ACTIVE", "title desc", false),
            ("status = ACTIVE", "title", true),
        ] {
            let refused = ListQuery::parse(10, &token, filter, order_by, show_deleted).unwrap_err();
            assert_eq!(refused[0].field, "page_token");
        }
        let search = SearchQuery::parse("a", 0, "").unwrap().token(-1.5, 3);
        assert_eq!(
            SearchQuery::parse("a", 0, &search).unwrap().after,
            Some((-1.5, 3))
        );
        assert_eq!(
            SearchQuery::parse("b", 0, &search).unwrap_err()[0].field,
            "page_token"
        );
        assert!(ListQuery::parse(10, &search, "", "", false).is_err());
    }

    #[test]
    fn each_wrong_argument_is_named() {
        let refused = ListQuery::parse(1001, "", "color = red", "price", false).unwrap_err();
        let fields: Vec<&str> = refused
            .iter()
            .map(|invalid| invalid.field.as_str())
            .collect();
        assert_eq!(fields, ["page_size", "filter", "order_by"]);
        assert_eq!(
            ListQuery::parse(0, "", "", "", false).unwrap().page_size,
            50
        );
        assert_eq!(
            ListQuery::parse(-1, "", "", "", false).unwrap_err()[0].field,
            "page_size"
        );
        assert_eq!(SearchQuery::parse("", 101, "").unwrap_err().len(), 2);
    }
}
