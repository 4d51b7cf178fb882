//! SPIFFE IDs: `spiffe://trust-domain/path`, read strictly by the SPIFFE-ID standard, sections 2 and 2.3
//! (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>).
//!
//! Deliberately without normalisation: what is not written as the standard wants it is refused, so that
//! two ids are the same exactly when their texts are.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

const SCHEME: &str = "spiffe://";
/// The longest id, in bytes (SPIFFE-ID, section 2.3).
pub const ID_BYTES_MAX: usize = 2048;
/// The longest name of a trust domain, in bytes (SPIFFE-ID, section 2.3).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// The name of a workload, such as `spiffe://shop.example/payment`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins, or the length of the text.
    path_at: usize,
}

/// The name of a trust domain, such as `shop.example`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

/// Why a text is no SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpiffeIdError {
    /// Another scheme, or one in capitals.
    #[error("does not begin with spiffe://")]
    Scheme,
    /// More than [`ID_BYTES_MAX`] bytes.
    #[error("is longer than {ID_BYTES_MAX} bytes")]
    Length,
    /// Nothing between `spiffe://` and the path.
    #[error("names no trust domain")]
    TrustDomainMissing,
    /// More than [`TRUST_DOMAIN_BYTES_MAX`] bytes.
    #[error("has a trust domain longer than {TRUST_DOMAIN_BYTES_MAX} bytes")]
    TrustDomainLength,
    /// A port, a user, a capital letter, percent-encoding…
    #[error("has a trust domain with other characters than a-z, 0-9, dot, dash and underscore")]
    TrustDomainCharacter,
    /// `//`, or a slash at the end.
    #[error("has an empty path segment")]
    EmptySegment,
    /// `.` or `..`.
    #[error("has a path segment of dots")]
    DotSegment,
    /// A query, a fragment, percent-encoding…
    #[error("has a path with other characters than letters, digits, dot, dash and underscore")]
    PathCharacter,
}

impl SpiffeId {
    /// The id of `/path` in a trust domain; an empty path is the trust domain's own id.
    pub fn new(trust_domain: &TrustDomain, path: &str) -> Result<Self, SpiffeIdError> {
        format!("{SCHEME}{trust_domain}{path}").parse()
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_at]
    }

    /// The path with its leading slash; empty for the trust domain itself.
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }

    pub(crate) fn owned_trust_domain(&self) -> TrustDomain {
        TrustDomain(Arc::from(self.trust_domain()))
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > ID_BYTES_MAX {
            return Err(SpiffeIdError::Length);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(SpiffeIdError::Scheme)?;
        let (trust_domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(trust_domain)?;
        check_path(path)?;
        let path_at = text.len() - path.len();
        Ok(Self {
            text: Arc::from(text),
            path_at,
        })
    }
}

impl TrustDomain {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeIdError;

    fn from_str(name: &str) -> Result<Self, SpiffeIdError> {
        check_trust_domain(name)?;
        Ok(Self(Arc::from(name)))
    }
}

fn check_trust_domain(name: &str) -> Result<(), SpiffeIdError> {
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if name.is_empty() {
        Err(SpiffeIdError::TrustDomainMissing)
    } else if name.len() > TRUST_DOMAIN_BYTES_MAX {
        Err(SpiffeIdError::TrustDomainLength)
    } else if !name.bytes().all(fits) {
        Err(SpiffeIdError::TrustDomainCharacter)
    } else {
        Ok(())
    }
}

/// Checks a path with its leading slash; an empty one is good.
pub(crate) fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    for segment in path.split('/').skip(1) {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::DotSegment),
            _ if !segment.bytes().all(fits) => return Err(SpiffeIdError::PathCharacter),
            _ => {}
        }
    }
    Ok(())
}

impl TryFrom<String> for SpiffeId {
    type Error = SpiffeIdError;

    fn try_from(text: String) -> Result<Self, SpiffeIdError> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.as_str().to_owned()
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = SpiffeIdError;

    fn try_from(name: String) -> Result<Self, SpiffeIdError> {
        name.parse()
    }
}

impl From<TrustDomain> for String {
    fn from(name: TrustDomain) -> Self {
        name.as_str().to_owned()
    }
}

impl Borrow<str> for TrustDomain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> SpiffeIdError {
        text.parse::<SpiffeId>().unwrap_err()
    }

    #[test]
    fn an_id_is_a_trust_domain_and_a_path() {
        for (text, trust_domain, path) in [
            ("spiffe://shop.example/payment", "shop.example", "/payment"),
            ("spiffe://a", "a", ""),
            (
                "spiffe://10.0.0.1_x-y/A.b/-/_/...",
                "10.0.0.1_x-y",
                "/A.b/-/_/...",
            ),
        ] {
            let id: SpiffeId = text.parse().unwrap();
            assert_eq!((id.trust_domain(), id.path()), (trust_domain, path));
            assert_eq!(id.to_string(), text);
            let domain: TrustDomain = trust_domain.parse().unwrap();
            assert_eq!(SpiffeId::new(&domain, path).unwrap(), id);
        }
    }

    #[test]
    fn what_the_standard_forbids_is_refused() {
        use SpiffeIdError::{
            DotSegment, EmptySegment, PathCharacter, Scheme, TrustDomainCharacter,
            TrustDomainMissing,
        };
        for (text, expected) in [
            ("", Scheme),
            ("https://a/b", Scheme),
            ("SPIFFE://a/b", Scheme),
            ("spiffe:/a/b", Scheme),
            ("spiffe://", TrustDomainMissing),
            ("spiffe:///b", TrustDomainMissing),
            ("spiffe://A/b", TrustDomainCharacter),
            ("spiffe://a:1/b", TrustDomainCharacter),
            ("spiffe://user@a/b", TrustDomainCharacter),
            ("spiffe://a%2d/b", TrustDomainCharacter),
            ("spiffe://a?q", TrustDomainCharacter),
            ("spiffe://a#f", TrustDomainCharacter),
            ("spiffe://ä/b", TrustDomainCharacter),
            ("spiffe://a/", EmptySegment),
            ("spiffe://a/b/", EmptySegment),
            ("spiffe://a//b", EmptySegment),
            ("spiffe://a/./b", DotSegment),
            ("spiffe://a/..", DotSegment),
            ("spiffe://a/b?q", PathCharacter),
            ("spiffe://a/b#f", PathCharacter),
            ("spiffe://a/%41", PathCharacter),
            ("spiffe://a/b c", PathCharacter),
            ("spiffe://a/ü", PathCharacter),
            ("spiffe://a/b\0", PathCharacter),
        ] {
            assert_eq!(error(text), expected, "{text:?}");
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let domain = |bytes: usize| format!("spiffe://{}/b", "a".repeat(bytes));
        assert!(domain(255).parse::<SpiffeId>().is_ok());
        assert_eq!(error(&domain(256)), SpiffeIdError::TrustDomainLength);
        let path = |bytes: usize| format!("spiffe://a/{}", "b".repeat(bytes - 11));
        assert!(path(2048).parse::<SpiffeId>().is_ok());
        assert_eq!(error(&path(2049)), SpiffeIdError::Length);
    }

    proptest! {
        #![proptest_config(crate::fuzz::config(5_000))]

        #[test]
        fn no_text_panics(text in "(spiffe://)?\\PC{0,40}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                // What was taken is in one spelling only, and says itself.
                prop_assert_eq!(id.to_string(), text.clone());
                let domain: TrustDomain = id.trust_domain().parse().unwrap();
                prop_assert_eq!(SpiffeId::new(&domain, id.path()).unwrap(), id);
            }
        }

        #[test]
        fn what_is_made_of_good_parts_is_good(
            domain in "[a-z0-9._-]{1,255}",
            segments in proptest::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,20}", 0..20),
        ) {
            let path: String = segments.iter().flat_map(|segment| ["/", segment]).collect();
            let id: SpiffeId = format!("spiffe://{domain}{path}").parse().unwrap();
            prop_assert_eq!((id.trust_domain(), id.path()), (domain.as_str(), path.as_str()));
        }
    }
}
