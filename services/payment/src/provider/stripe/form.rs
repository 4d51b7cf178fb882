//! Stripe's form encoding: nested names in brackets, the rest as `application/x-www-form-urlencoded`.
//!
//! The brackets of names stay as they are in a body and are escaped in a query, as Stripe's own clients do it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is escaped: all but letters, digits and these four. A space becomes a plus.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b' ');

/// Names and values in the order in which they are sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// With one more field. `name` as Stripe documents it: `metadata[reference]`.
    #[must_use]
    pub(super) fn with(mut self, name: impl Into<String>, value: impl ToString) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    /// With one more field where there is a value.
    #[must_use]
    pub(super) fn with_some(self, name: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// As the body of a request.
    pub(super) fn body(&self) -> String {
        self.joined(|name| escaped(name).replace("%5B", "[").replace("%5D", "]"))
    }

    /// As a query, with the question mark; nothing where there is no field.
    pub(super) fn query(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        format!("?{}", self.joined(escaped))
    }

    fn joined(&self, name_of: impl Fn(&str) -> String) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{}={}", name_of(name), escaped(value)))
            .collect();
        pairs.join("&")
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED)
        .to_string()
        .replace(' ', "+")
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    /// How any server reads a form.
    fn read(encoded: &str) -> Vec<(String, String)> {
        let text = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced)
                .decode_utf8()
                .unwrap()
                .into_owned()
        };
        let pairs = encoded.split('&').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once('=').expect("each field has a value");
                (text(name), text(value))
            })
            .collect()
    }

    #[test]
    fn brackets_stay_in_bodies_and_are_escaped_in_queries() {
        let form = Form::default()
            .with("metadata[order ref]", "차 & 잔")
            .with_some("gone", None::<i64>);
        assert_eq!(form.body(), "metadata[order+ref]=%EC%B0%A8+%26+%EC%9E%94");
        assert_eq!(
            form.query(),
            "?metadata%5Border+ref%5D=%EC%B0%A8+%26+%EC%9E%94"
        );
        assert_eq!(Form::default().query(), "");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fields in prop::collection::vec((".{1,20}", ".{0,40}"), 0..8)) {
            let form = fields.iter().fold(Form::default(), |form, (name, value)| {
                form.with(name.as_str(), value)
            });
            prop_assert_eq!(&read(&form.body()), &fields);
            prop_assert_eq!(&read(form.query().trim_start_matches('?')), &fields);
        }

        #[test]
        fn a_field_is_ascii_without_a_character_that_means_something(value in ".{0,40}") {
            let body = Form::default().with("a", &value).body();
            let value = body.strip_prefix("a=").unwrap();
            prop_assert!(value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~%+".contains(&byte)), "{}", value);
        }
    }
}
