//! What a source delivers, and the one place where it is judged before anything uses it: a set is taken
//! as a whole or not at all.

use std::{collections::BTreeMap, fmt, sync::Arc};

use rustls::{Error as TlsError, InconsistentKeys, crypto::CryptoProvider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::{
    Refusal, SvidError, TrustDomain,
    svid::Leaf,
    trust::{Role, Trust},
};

/// One identity with everything that it is used with.
pub struct Material {
    /// The own certificate, then the intermediates up to an authority of `bundle`.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: PrivateKeyDer<'static>,
    /// The authorities of the own trust domain.
    pub bundle: Vec<CertificateDer<'static>>,
    /// The authorities of other trust domains whose workloads are let in.
    pub federated: BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    /// Revocation lists of any of these authorities or of intermediates.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

/// Why a set is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MaterialError {
    /// The own certificate is no leaf X.509-SVID.
    #[error("the own certificate {0}")]
    Leaf(#[source] SvidError),
    /// The key is of no kind that is known.
    #[error("the private key is unusable: {0}")]
    Key(#[source] TlsError),
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The own chain does not end at the own bundle, or is not valid now.
    #[error("the own chain does not stand before the own trust bundle: {0}")]
    Own(#[source] Refusal),
    /// A trust domain without authorities.
    #[error("the trust bundle of \"{0}\" is empty")]
    BundleEmpty(TrustDomain),
    /// A trust domain with something else among its authorities.
    #[error("a certificate in the trust bundle of \"{trust_domain}\" {reason}")]
    Bundle {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong.
        reason: String,
    },
    /// A federated bundle under the own trust domain's name.
    #[error("the own trust domain \"{0}\" is among the federated ones")]
    Federated(TrustDomain),
    /// A revocation list that cannot be used.
    #[error("a revocation list is unusable: {0}")]
    Crl(String),
}

/// A set that has been judged.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) svid: Arc<Svid>,
    /// The same as before where nothing but the own certificate has changed.
    pub(crate) trust: Arc<Trust>,
    trust_digest: [u8; 32],
    /// Revocation lists that are past their `nextUpdate`.
    pub(crate) crls_stale: usize,
    /// Whether a list names the own certificate.
    pub(crate) own_revoked: bool,
    pub(crate) crls: usize,
    pub(crate) loaded_at: UnixTime,
}

/// The own certificate, ready for use.
#[derive(Debug)]
pub(crate) struct Svid {
    pub(crate) leaf: Leaf,
    pub(crate) key: Arc<CertifiedKey>,
}

impl Snapshot {
    /// Judges a set. Its own certificate may be out of its time, which only the caller can weigh.
    pub(crate) fn build(
        material: Material,
        provider: &CryptoProvider,
        now: UnixTime,
        before: Option<&Self>,
    ) -> Result<Self, MaterialError> {
        let Material {
            chain,
            key,
            bundle,
            federated,
            crls,
        } = material;
        let first = chain
            .first()
            .ok_or(MaterialError::Leaf(SvidError::Unreadable))?;
        let leaf = Leaf::read(first).map_err(MaterialError::Leaf)?;
        let mut bundles = federated;
        let own = leaf.id.owned_trust_domain();
        if bundles.insert(own.clone(), bundle).is_some() {
            return Err(MaterialError::Federated(own));
        }
        let trust_digest = digest(&bundles, &crls);
        let trust = match before {
            Some(before) if before.trust_digest == trust_digest => before.trust.clone(),
            _ => {
                let algorithms = provider.signature_verification_algorithms.all;
                Arc::new(Trust::build(&bundles, &crls, algorithms)?)
            }
        };
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => MaterialError::KeyMismatch,
            other => MaterialError::Key(other),
        })?;
        let own_revoked = is_revoked(&trust, &leaf, &key.cert, now)?;
        let stale = |crl: &&_| {
            crate::trust::next_update(crl).is_some_and(|next| next < now.as_secs() as i64)
        };
        Ok(Self {
            svid: Arc::new(Svid {
                leaf,
                key: Arc::new(key),
            }),
            trust,
            trust_digest,
            crls_stale: crls.iter().filter(stale).count(),
            own_revoked,
            crls: crls.len(),
            loaded_at: now,
        })
    }
}

/// Whether the own chain is on a list. Peers would refuse it for any other reason too, so those are
/// errors; but a list that revokes us revokes others as well and must not be held back.
fn is_revoked(
    trust: &Trust,
    leaf: &Leaf,
    chain: &[CertificateDer<'static>],
    now: UnixTime,
) -> Result<bool, MaterialError> {
    let at = now.clamp(leaf.not_before, leaf.not_after);
    let mut revoked = false;
    for role in [Role::Client, Role::Server] {
        match trust.verify(chain, role, at) {
            Ok(_) => {}
            Err(Refusal::Revoked) => revoked = true,
            Err(refusal) => return Err(MaterialError::Own(refusal)),
        }
    }
    Ok(revoked)
}

fn digest(
    bundles: &BTreeMap<TrustDomain, Vec<CertificateDer<'static>>>,
    crls: &[CertificateRevocationListDer<'static>],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for (domain, bundle) in bundles {
        add(domain.as_str().as_bytes());
        for certificate in bundle {
            add(certificate);
        }
        add(b"");
    }
    for crl in crls {
        add(crl);
    }
    hash.finalize().into()
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material")
            .field("certificates", &self.chain.len())
            .field("bundle", &self.bundle.len())
            .field("crls", &self.crls.len())
            .finish_non_exhaustive()
    }
}
