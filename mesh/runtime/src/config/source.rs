//! Environment variables and flags, each a source of its own, so that an error can name it.

use figment::{
    Error, Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};
use serde::Serialize;

/// One key with its value, and where it comes from.
#[derive(Clone, Debug)]
pub(super) struct Single {
    origin: String,
    key: String,
    value: Value,
}

impl Provider for Single {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let tree = figment::util::nest(&self.key, self.value.clone());
        let dict = tree
            .into_dict()
            .expect("a key that is not empty nests into a table");
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// Keys set by flags, which override every other source.
#[derive(Clone, Debug, Default)]
pub struct Overrides(pub(super) Vec<Single>);

impl Overrides {
    /// Nothing is overridden.
    pub fn none() -> Self {
        Self::default()
    }

    /// Overrides a key (`section.key`) where the flag was given.
    #[must_use]
    pub fn set(mut self, flag: &str, key: &str, value: Option<impl Serialize>) -> Self {
        if let Some(value) = value {
            let value = Value::serialize(value).expect("a flag's value is plain data");
            self.0.push(Single {
                origin: format!("flag {flag}"),
                key: key.to_owned(),
                value,
            });
        }
        self
    }
}

/// The variables `PREFIX__SECTION__KEY`, in the order of their names.
pub(super) fn variables(
    environment: impl Iterator<Item = (String, String)>,
    prefix: &str,
    defaults: &Value,
) -> Vec<Single> {
    let prefix = format!("{prefix}__");
    let mut variables: Vec<_> = environment
        .filter_map(|(name, text)| {
            let key = name
                .strip_prefix(&prefix)?
                .to_lowercase()
                .replace("__", ".");
            // Text stays text where text is expected: a password of digits is no number.
            let expected = defaults.find_ref(&key);
            let value = if matches!(expected, Some(Value::String(..))) {
                Value::from(text)
            } else {
                text.parse().unwrap_or_else(|never| match never {})
            };
            (!key.is_empty()).then(|| Single {
                origin: format!("environment variable {name}"),
                key,
                value,
            })
        })
        .collect();
    variables.sort_by(|a, b| a.origin.cmp(&b.origin));
    variables
}
