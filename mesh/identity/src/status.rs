//! What an operator wants to know of the identity: whose it is, until when, whom it trusts, and how the last
//! reload went. Serialises to plain JSON, with times in RFC 3339.

use rustls_pki_types::{CertificateDer, UnixTime};
use serde::{Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{SpiffeId, SvidError, TrustDomain, svid};

/// The identity at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The own SPIFFE ID.
    pub id: SpiffeId,
    /// The serial number of the own certificate, in hexadecimal digits.
    pub serial: String,
    /// The name of the authority that has signed it, as RFC 4514 writes it; it may be empty.
    pub issuer: String,
    /// When the own certificate begins.
    #[serde(serialize_with = "rfc3339")]
    pub not_before: UnixTime,
    /// When the own certificate ends.
    #[serde(serialize_with = "rfc3339")]
    pub not_after: UnixTime,
    /// Whether a revocation list names the own certificate.
    pub revoked: bool,
    /// How many revocation lists are in use.
    pub crls: usize,
    /// When this set was taken over.
    #[serde(serialize_with = "rfc3339")]
    pub loaded_at: UnixTime,
    /// Why what the source has delivered since is not in use; nothing: there is nothing newer.
    pub reload_trouble: Option<String>,
    /// Whoever may sign for a peer, by trust domain.
    pub authorities: Vec<AuthorityStatus>,
}

/// An authority of a trust bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuthorityStatus {
    /// Whose workloads it may sign.
    pub trust_domain: TrustDomain,
    /// Its name, as RFC 4514 writes it; it may be empty.
    pub subject: String,
    /// The serial number of its certificate, in hexadecimal digits.
    pub serial: String,
    /// When its certificate begins.
    #[serde(serialize_with = "rfc3339")]
    pub not_before: UnixTime,
    /// When its certificate ends.
    #[serde(serialize_with = "rfc3339")]
    pub not_after: UnixTime,
}

impl AuthorityStatus {
    pub(crate) fn read(
        trust_domain: &TrustDomain,
        der: &CertificateDer<'_>,
    ) -> Result<Self, SvidError> {
        let certificate = svid::parse(der)?;
        Ok(Self {
            trust_domain: trust_domain.clone(),
            subject: certificate.subject().to_string(),
            serial: svid::serial(certificate.raw_serial()),
            not_before: svid::unix_time(certificate.validity().not_before.timestamp()),
            not_after: svid::unix_time(certificate.validity().not_after.timestamp()),
        })
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn rfc3339<S: Serializer>(at: &UnixTime, serializer: S) -> Result<S::Ok, S::Error> {
    // A certificate may say that it never ends: the year 9999 is the last that RFC 3339 can write.
    let last = time::macros::datetime!(9999-12-31 23:59:59 UTC);
    let at = i64::try_from(at.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    let text = at.unwrap_or(last).min(last).format(&Rfc3339);
    serializer.serialize_str(&text.map_err(serde::ser::Error::custom)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_text_whatever_a_certificate_claims() {
        let text = |seconds| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            rfc3339(&at, serde_json::value::Serializer).unwrap()
        };
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(1_800_000_000), "2027-01-15T08:00:00Z");
        assert_eq!(text(u64::MAX), "9999-12-31T23:59:59Z");
    }
}
