//! Who is trusted: authorities by trust domain, each with its revocation lists, and the judgement of a
//! peer's chain by them (RFC 5280, carried out by rustls-webpki).
//!
//! A list's `nextUpdate` is not enforced: a list that nobody has refreshed still revokes what it names,
//! and refusing everybody for it would turn a missed cron job into an outage. `identity.rs` warns of it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use rustls_pki_types::{
    CertificateDer, CertificateRevocationListDer, SignatureVerificationAlgorithm, TrustAnchor,
    UnixTime,
};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RawPublicKeyEntity, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
    VerifiedPath, anchor_from_trusted_cert, spki_for_anchor,
};
use x509_parser::{
    num_bigint::BigUint,
    prelude::{CertificateRevocationList, FromDer as _},
};

use crate::{
    AuthorityStatus, MaterialError, Refusal, SpiffeId, TrustDomain,
    svid::{self, Leaf},
};

/// The longest chain that is looked at, in certificates.
pub const CHAIN_CERTIFICATES_MAX: usize = 8;

type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// Who a peer has proven to be. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerIdentity {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// The serial number of its certificate, in hexadecimal digits.
    pub serial: String,
    /// When the first certificate of its chain ends.
    pub not_after: UnixTime,
}

/// The part that a peer plays on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

/// Every authority that is trusted.
#[derive(Debug)]
pub(crate) struct Trust {
    domains: HashMap<TrustDomain, Vec<Authority>>,
    authorities: Vec<AuthorityStatus>,
    algorithms: Algorithms,
}

#[derive(Debug)]
struct Authority {
    anchor: TrustAnchor<'static>,
    crls: Vec<CertRevocationList<'static>>,
}

/// A revocation list, and what decides for whom it speaks.
struct Crl {
    list: OwnedCertRevocationList,
    issuer: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
    /// Later lists are greater: by number (RFC 5280, section 5.2.3), then by date.
    age: (usize, Vec<u8>, i64),
}

impl Trust {
    pub(crate) fn build(
        bundles: &BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
        crls: &[CertificateRevocationListDer<'static>],
        algorithms: Algorithms,
    ) -> Result<Self, MaterialError> {
        let mut crls = crls.iter().map(Crl::read).collect::<Result<Vec<_>, _>>()?;
        // webpki asks the first list of an issuer only: the newest.
        crls.sort_by(|a, b| b.age.cmp(&a.age));
        let (mut anchors, mut authorities) = (Vec::new(), Vec::new());
        for (domain, bundle) in bundles {
            if bundle.is_empty() {
                return Err(MaterialError::BundleEmpty(domain.clone()));
            }
            for certificate in bundle {
                anchors.push((domain, anchor(domain, certificate)?));
                let read = AuthorityStatus::read(domain, certificate);
                authorities.push(read.expect("an anchor is a readable certificate"));
            }
        }
        let owners: Vec<Vec<usize>> = crls
            .iter()
            .map(|crl| {
                let signers = anchors.iter().enumerate();
                let signers = signers.filter(|(_, (_, anchor))| crl.is_by(anchor, algorithms));
                signers.map(|(index, _)| index).collect()
            })
            .collect();
        let named: Vec<bool> = crls
            .iter()
            .map(|crl| anchors.iter().any(|(_, anchor)| crl.names(anchor)))
            .collect();
        let mut domains: HashMap<TrustDomain, Vec<Authority>> = HashMap::new();
        for (index, (domain, anchor)) in anchors.iter().enumerate() {
            // Its own lists, then those of nobody in a bundle: an intermediate's. A list under an
            // authority's name that the authority did not sign is of an older key, and would be in the
            // way of the newer.
            let own = (0..crls.len()).filter(|crl| owners[*crl].contains(&index));
            let foreign = (0..crls.len()).filter(|crl| owners[*crl].is_empty() && !named[*crl]);
            let authority = Authority {
                anchor: anchor.clone(),
                crls: own
                    .chain(foreign)
                    .map(|crl| crls[crl].list.clone().into())
                    .collect(),
            };
            let authorities = domains.entry((*domain).clone()).or_default();
            authorities.push(authority);
        }
        Ok(Self {
            domains,
            authorities,
            algorithms,
        })
    }

    /// Everybody who is trusted, for people.
    pub(crate) fn authorities(&self) -> &[AuthorityStatus] {
        &self.authorities
    }

    /// Judges a peer's chain, leaf first.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        role: Role,
        now: UnixTime,
    ) -> Result<PeerIdentity, Refusal> {
        let Some((first, intermediates)) = chain.split_first() else {
            return Err(Refusal::NoCertificate);
        };
        if chain.len() > CHAIN_CERTIFICATES_MAX {
            return Err(Refusal::ChainLength(chain.len()));
        }
        let leaf = Leaf::read(first).map_err(Refusal::NotAnSvid)?;
        let Some(authorities) = self.domains.get(leaf.id.trust_domain()) else {
            return Err(Refusal::TrustDomain(leaf.id.owned_trust_domain()));
        };
        let certificate = EndEntityCert::try_from(first).map_err(|error| Refusal::of(&error))?;
        let mut refusal = Refusal::UnknownAuthority;
        for authority in authorities {
            match self.path(authority, &certificate, intermediates, role, now) {
                Ok(path) => return proven(leaf, &path),
                Err(error) => {
                    let other = Refusal::of(&error);
                    if other.rank() > refusal.rank() {
                        refusal = other;
                    }
                }
            }
        }
        if refusal == Refusal::UnknownAuthority && self.is_self_signed(first) {
            refusal = Refusal::SelfSigned;
        }
        Err(refusal)
    }

    fn path<'p>(
        &self,
        authority: &'p Authority,
        certificate: &'p EndEntityCert<'p>,
        intermediates: &'p [CertificateDer<'p>],
        role: Role,
        now: UnixTime,
    ) -> Result<VerifiedPath<'p>, webpki::Error> {
        let usage = match role {
            Role::Client => KeyUsage::client_auth(),
            Role::Server => KeyUsage::server_auth(),
        };
        let crls: Vec<_> = authority.crls.iter().collect();
        // Without a list there is nothing to ask.
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        certificate.verify_for_usage(
            self.algorithms,
            std::slice::from_ref(&authority.anchor),
            intermediates,
            now,
            usage,
            revocation,
            None,
        )
    }

    fn is_self_signed(&self, der: &CertificateDer<'_>) -> bool {
        let (Ok(certificate), Ok(key)) = (svid::parse(der), EndEntityCert::try_from(der)) else {
            return false;
        };
        let signed = certificate.tbs_certificate.as_ref();
        let signature = &certificate.signature_value.data;
        let verifies = |algorithm| key.verify_signature(algorithm, signed, signature).is_ok();
        self.algorithms.iter().any(|algorithm| verifies(*algorithm))
    }
}

fn proven(leaf: Leaf, path: &VerifiedPath<'_>) -> Result<PeerIdentity, Refusal> {
    let mut not_after = leaf.not_after.as_secs();
    for intermediate in path.intermediate_certificates() {
        let ends = svid::not_after(&intermediate.der()).map_err(Refusal::NotAnSvid)?;
        not_after = not_after.min(ends.as_secs());
    }
    Ok(PeerIdentity {
        id: leaf.id,
        serial: leaf.serial,
        not_after: UnixTime::since_unix_epoch(Duration::from_secs(not_after)),
    })
}

/// A leaf in a bundle would be trusted as if it were an authority, so it is refused.
fn anchor(
    domain: &TrustDomain,
    certificate: &CertificateDer<'static>,
) -> Result<TrustAnchor<'static>, MaterialError> {
    let bad = |reason: String| MaterialError::Bundle {
        trust_domain: domain.clone(),
        reason,
    };
    match svid::is_authority(certificate) {
        Ok(true) => {}
        Ok(false) => return Err(bad("is no certificate authority".to_owned())),
        Err(error) => return Err(bad(error.to_string())),
    }
    let anchor = anchor_from_trusted_cert(certificate).map_err(|error| bad(error.to_string()))?;
    Ok(anchor.to_owned())
}

impl Crl {
    fn read(der: &CertificateRevocationListDer<'static>) -> Result<Self, MaterialError> {
        let bad = |error: webpki::Error| MaterialError::Crl(error.to_string());
        let list = OwnedCertRevocationList::from_der(der).map_err(bad)?;
        let Ok(([], parsed)) = CertificateRevocationList::from_der(der) else {
            return Err(MaterialError::Crl("it is not readable".to_owned()));
        };
        let number = parsed.crl_number().map(BigUint::to_bytes_be);
        let number = number.unwrap_or_default();
        Ok(Self {
            issuer: CertRevocationList::from(list.clone()).issuer().to_vec(),
            signed: parsed.tbs_cert_list.as_ref().to_vec(),
            signature: parsed.signature_value.data.to_vec(),
            age: (number.len(), number, parsed.last_update().timestamp()),
            list,
        })
    }

    fn names(&self, anchor: &TrustAnchor<'_>) -> bool {
        self.issuer == anchor.subject.as_ref()
    }

    fn is_by(&self, anchor: &TrustAnchor<'_>, algorithms: Algorithms) -> bool {
        let spki = spki_for_anchor(anchor);
        let Ok(key) = RawPublicKeyEntity::try_from(&spki) else {
            return false;
        };
        let verifies = |algorithm| {
            let verified = key.verify_signature(algorithm, &self.signed, &self.signature);
            verified.is_ok()
        };
        self.names(anchor) && algorithms.iter().any(|algorithm| verifies(*algorithm))
    }
}

/// When a revocation list was to be replaced; `None`: it does not say, or cannot be read.
pub(crate) fn next_update(der: &CertificateRevocationListDer<'_>) -> Option<i64> {
    let (_, parsed) = CertificateRevocationList::from_der(der).ok()?;
    Some(parsed.next_update()?.timestamp())
}
