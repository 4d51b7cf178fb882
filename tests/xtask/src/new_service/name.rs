//! The name of a new service, in every spelling that the templates use.

use anyhow::{Result, bail};

/// Shortest and longest name, in letters.
const LETTERS: std::ops::RangeInclusive<usize> = 3..=20;
/// Crates of Rust itself, which a crate of the same name would hide.
const TAKEN: [&str; 5] = ["alloc", "core", "std", "test", "macros"];

/// A name.
#[derive(Debug)]
pub(super) struct Name {
    /// `order`.
    snake: String,
    /// `Order`.
    camel: String,
    /// `orders`.
    plural: String,
    /// `ord`.
    prefix: String,
}

impl Name {
    pub(super) fn new(text: &str, prefix: Option<&str>) -> Result<Name> {
        let small = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase());
        if !small(text) || !LETTERS.contains(&text.len()) {
            bail!(
                "{text:?} is no name: one word of {} to {} small letters is wanted",
                LETTERS.start(),
                LETTERS.end()
            );
        }
        if TAKEN.contains(&text) || syn::parse_str::<syn::Ident>(text).is_err() {
            bail!("{text:?} means something else in Rust");
        }
        let prefix = prefix.unwrap_or(&text[..3]);
        if !small(prefix) || !(2..=5).contains(&prefix.len()) {
            bail!("{prefix:?} is no prefix of ids: 2 to 5 small letters are wanted");
        }
        Ok(Name {
            snake: text.to_owned(),
            camel: capital(text),
            plural: plural(text),
            prefix: prefix.to_owned(),
        })
    }

    /// What its ids begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A text about widgets as one about these.
    pub(super) fn fill(&self, template: &str) -> String {
        let an = if self.snake.starts_with(['a', 'e', 'i', 'o', 'u']) {
            "an"
        } else {
            "a"
        };
        template
            .replace("a widget", &format!("{an} widget"))
            .replace("A widget", &format!("{} widget", capital(an)))
            .replace("widgets", &self.plural)
            .replace("Widgets", &capital(&self.plural))
            .replace("WIDGET", &self.snake.to_uppercase())
            .replace("Widget", &self.camel)
            .replace("widget", &self.snake)
            .replace("wdg", &self.prefix)
    }
}

fn capital(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

/// By the rules of English; its exceptions are for whoever edits the routes.
fn plural(text: &str) -> String {
    let consonant_before_y = text
        .strip_suffix('y')
        .filter(|stem| !stem.ends_with(['a', 'e', 'i', 'o', 'u']));
    match consonant_before_y {
        Some(stem) => format!("{stem}ies"),
        None if ["s", "x", "z", "ch", "sh"]
            .iter()
            .any(|end| text.ends_with(end)) =>
        {
            format!("{text}es")
        }
        None => format!("{text}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_filled_in() {
        let name = Name::new("order", None).unwrap();
        let template = "A widget, a widget, widgets, Widgets, WidgetId, WIDGET, `wdg_…`";
        assert_eq!(
            name.fill(template),
            "An order, an order, orders, Orders, OrderId, ORDER, `ord_…`"
        );
    }

    #[test]
    fn plurals_follow_the_rules() {
        for (one, many) in [
            ("order", "orders"),
            ("category", "categories"),
            ("day", "days"),
            ("box", "boxes"),
            ("batch", "batches"),
        ] {
            assert_eq!(plural(one), many);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", "or", "Order", "order-item", "type", "std", "order_item"] {
            assert!(Name::new(wrong, None).is_err(), "{wrong}");
        }
        assert!(Name::new("order", Some("o")).is_err());
        assert_eq!(Name::new("order", Some("odr")).unwrap().prefix(), "odr");
    }
}
