//! Which SPIFFE IDs are meant: one of them, or all below a path or a trust domain.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{SpiffeId, SpiffeIdError};

/// `spiffe://shop.example/payment` for one identity, `spiffe://shop.example/jobs/*` for those below a
/// path (at any depth), `spiffe://shop.example/*` for those of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IdPattern {
    /// This one.
    Exact(SpiffeId),
    /// All below this trust domain or path.
    Below(SpiffeId),
}

impl IdPattern {
    /// Whether an id is meant.
    pub fn matches(&self, id: &SpiffeId) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Below(above) => ancestors(id).any(|ancestor| ancestor == above.as_str()),
        }
    }
}

/// Everything that an id is below: its parents up to the trust domain, nearest first.
pub(crate) fn ancestors(id: &SpiffeId) -> impl Iterator<Item = &str> {
    let text = id.as_str();
    let trust_domain_end = text.len() - id.path().len();
    let slashes = id.path().rmatch_indices('/');
    slashes.map(move |(at, _)| &text[..trust_domain_end + at])
}

impl FromStr for IdPattern {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        match text.strip_suffix("/*") {
            Some(above) => above.parse().map(Self::Below),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl TryFrom<String> for IdPattern {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        text.parse()
    }
}

impl From<IdPattern> for String {
    fn from(pattern: IdPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for IdPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(id) => id.fmt(f),
            Self::Below(id) => write!(f, "{id}/*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, id: &str) -> bool {
        let pattern: IdPattern = pattern.parse().unwrap();
        pattern.matches(&id.parse().unwrap())
    }

    #[test]
    fn a_pattern_is_one_id_or_all_below_something() {
        assert!(matches("spiffe://a/b", "spiffe://a/b"));
        assert!(!matches("spiffe://a/b", "spiffe://a/b/c"));
        assert!(matches("spiffe://a/b/*", "spiffe://a/b/c"));
        assert!(matches("spiffe://a/b/*", "spiffe://a/b/c/d"));
        assert!(!matches("spiffe://a/b/*", "spiffe://a/b"));
        assert!(
            !matches("spiffe://a/b/*", "spiffe://a/bc/d"),
            "whole segments"
        );
        assert!(matches("spiffe://a/*", "spiffe://a/b"));
        assert!(!matches("spiffe://a/*", "spiffe://a"));
        assert!(!matches("spiffe://a/*", "spiffe://ab/c"));
    }

    #[test]
    fn a_star_stands_for_a_whole_rest_only() {
        for text in [
            "*",
            "spiffe://*",
            "spiffe://a/b*",
            "spiffe://a/*/b",
            "spiffe://a//*",
            "a/*",
        ] {
            assert!(text.parse::<IdPattern>().is_err(), "{text:?}");
        }
        let pattern: IdPattern = "spiffe://a/b/*".parse().unwrap();
        assert_eq!(pattern.to_string(), "spiffe://a/b/*");
    }
}
