//! Certificates as X.509-SVIDs: what the standard asks of a leaf, and of an authority
//! (<https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md>, sections 2, 4 and 5).
//!
//! Deliberately without signatures and times: those are judged against a trust bundle, in `trust.rs`.

use std::time::Duration;

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use crate::{SpiffeId, spiffe::SpiffeIdError};

/// The tag of a URI among general names (RFC 5280, section 4.2.1.6).
const URI_TAG: u32 = 6;

/// What a leaf says of itself; nothing of it is proven yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    pub(crate) not_before: UnixTime,
    pub(crate) not_after: UnixTime,
    /// In hexadecimal digits, as CRLs and people name it.
    pub(crate) serial: String,
    /// As RFC 4514 writes it; it may be empty.
    pub(crate) issuer: String,
}

/// Why a certificate is no leaf X.509-SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    /// Not a certificate at all.
    #[error("is not a readable X.509 certificate")]
    Unreadable,
    /// The number of URI names is not one.
    #[error("has {0} URI names instead of one")]
    UriNames(usize),
    /// Its URI name is no SPIFFE ID.
    #[error("has a URI name that {0}")]
    Id(#[source] SpiffeIdError),
    /// Its SPIFFE ID names a trust domain and no workload in it.
    #[error("has a SPIFFE ID without a path")]
    NoPath,
    /// It may issue certificates.
    #[error("is a certificate authority")]
    Authority,
    /// Its key usage is not stated as critical, lacks digitalSignature, or signs certificates or CRLs.
    #[error("has a key usage that is not critical digitalSignature alone of the signing usages")]
    KeyUsage,
}

impl Leaf {
    pub(crate) fn read(der: &CertificateDer<'_>) -> Result<Self, SvidError> {
        let certificate = parse(der)?;
        let id = spiffe_id(&certificate)?;
        if certificate.is_ca() {
            return Err(SvidError::Authority);
        }
        let usage = certificate.key_usage();
        let usage = usage.map_err(|_| SvidError::Unreadable)?;
        let usage = usage.ok_or(SvidError::KeyUsage)?;
        let signs_others = usage.value.key_cert_sign() || usage.value.crl_sign();
        if !usage.critical || !usage.value.digital_signature() || signs_others {
            return Err(SvidError::KeyUsage);
        }
        if id.path().is_empty() {
            return Err(SvidError::NoPath);
        }
        Ok(Self {
            id,
            not_before: unix_time(certificate.validity().not_before.timestamp()),
            not_after: unix_time(certificate.validity().not_after.timestamp()),
            serial: serial(certificate.raw_serial()),
            issuer: certificate.issuer().to_string(),
        })
    }
}

/// The one URI name of a certificate, whatever else is wrong with it: so that a refusal can name it.
pub(crate) fn claimed_id(der: &CertificateDer<'_>) -> Option<SpiffeId> {
    spiffe_id(&parse(der).ok()?).ok()
}

/// When a certificate ends.
pub(crate) fn not_after(der: &CertificateDer<'_>) -> Result<UnixTime, SvidError> {
    Ok(unix_time(parse(der)?.validity().not_after.timestamp()))
}

/// Whether a certificate may stand in a trust bundle: an authority that may sign certificates.
pub(crate) fn is_authority(der: &CertificateDer<'_>) -> Result<bool, SvidError> {
    let certificate = parse(der)?;
    let usage = certificate.key_usage();
    let usage = usage.map_err(|_| SvidError::Unreadable)?;
    Ok(certificate.is_ca() && usage.is_none_or(|usage| usage.value.key_cert_sign()))
}

/// The whole of `der` as a certificate; what follows one is refused.
pub(crate) fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, SvidError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(SvidError::Unreadable),
    }
}

fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, SvidError> {
    let names = certificate.subject_alternative_name();
    let names = names.map_err(|_| SvidError::Unreadable)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    // An unreadable URI counts too: it must not hide behind a readable one.
    let uris: Vec<_> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            GeneralName::Invalid(tag, _) if tag.0 == URI_TAG => Some(""),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => uri.parse().map_err(SvidError::Id),
        _ => Err(SvidError::UriNames(uris.len())),
    }
}

/// As people and tools write it: without the zero that DER puts before a high bit.
pub(crate) fn serial(bytes: &[u8]) -> String {
    hex::encode(match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        whole => whole,
    })
}

/// Before 1970 counts as 1970: nothing that is judged here was valid then.
pub(crate) fn unix_time(timestamp: i64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(timestamp.try_into().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyPair,
    };
    use rustls_pki_types::CertificateRevocationListDer;

    use super::*;
    use crate::{fuzz, trust};

    /// A leaf, signed by itself, and a list by the same key.
    fn specimens() -> (Vec<u8>, Vec<u8>) {
        let mut params = CertificateParams::default();
        let id = "spiffe://shop.example/payment";
        params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.is_ca = IsCa::ExplicitNoCa;
        let leaf = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        params.key_usages = vec![rcgen::KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let list = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2026, 1, 1),
            next_update: rcgen::date_time_ymd(2027, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).unwrap();
        (leaf.der().to_vec(), list.der().to_vec())
    }

    #[test]
    fn a_leaf_says_who_and_how_long() {
        let (leaf, _) = specimens();
        let leaf = Leaf::read(&CertificateDer::from(leaf)).unwrap();
        assert_eq!(leaf.id.as_str(), "spiffe://shop.example/payment");
        assert_eq!(leaf.not_before.as_secs(), 157_766_400); // 1975
        assert_eq!(serial(&[0, 0xa5]), "a5");
        assert_eq!(serial(&[0]), "00");
    }

    #[test]
    fn what_follows_a_certificate_is_refused() {
        let (mut leaf, _) = specimens();
        leaf.push(0);
        let error = Leaf::read(&CertificateDer::from(leaf)).unwrap_err();
        assert_eq!(error, SvidError::Unreadable);
    }

    /// Everything that reads foreign bytes.
    fn read(bytes: &[u8]) {
        let der = CertificateDer::from(bytes);
        drop(Leaf::read(&der));
        drop(claimed_id(&der));
        drop(is_authority(&der));
        drop(not_after(&der));
        let list = CertificateRevocationListDer::from(bytes);
        let _ = trust::next_update(&list);
        let lists = [CertificateRevocationListDer::from(bytes.to_vec())];
        drop(trust::Trust::build(
            &std::collections::BTreeMap::new(),
            &lists,
            &[],
        ));
    }

    proptest! {
        #![proptest_config(fuzz::config(2_000))]

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            read(&bytes);
        }
    }

    proptest! {
        #![proptest_config(fuzz::config(2_000))]

        #[test]
        fn no_damage_panics(
            damages in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            thread_local! {
                static SPECIMENS: (Vec<u8>, Vec<u8>) = specimens();
            }
            let (leaf, list) = SPECIMENS.with(Clone::clone);
            for mut bytes in [leaf, list] {
                for (place, byte) in &damages {
                    let place = place.index(bytes.len());
                    bytes[place] = *byte;
                }
                if let Some(cut) = cut {
                    bytes.truncate(cut.index(bytes.len()));
                }
                read(&bytes);
            }
        }
    }
}
