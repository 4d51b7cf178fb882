//! Why a peer is not let in, one variant for each thing that an operator would do about it.

use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::UnixTime;

use crate::{SvidError, TrustDomain};

/// Why a peer is refused, or not trusted any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The peer showed no certificate.
    #[error("no certificate was shown")]
    NoCertificate,
    /// The peer's certificate is no leaf X.509-SVID.
    #[error("the certificate {0}")]
    NotAnSvid(#[source] SvidError),
    /// More certificates than anybody needs.
    #[error("the chain has {0} certificates, more than {max}", max = crate::trust::CHAIN_CERTIFICATES_MAX)]
    ChainLength(usize),
    /// No trust bundle is here for the peer's trust domain.
    #[error("the trust domain \"{0}\" is not trusted here")]
    TrustDomain(TrustDomain),
    /// Signed by its own key, and by nobody who is trusted.
    #[error("the certificate is self-signed")]
    SelfSigned,
    /// Not signed by anybody in the trust bundle of its trust domain.
    #[error("the certificate was issued by an unknown authority")]
    UnknownAuthority,
    /// Past the end of a certificate of the chain.
    #[error("the certificate expired {} s ago", .0.as_secs())]
    Expired(Duration),
    /// Before the beginning of a certificate of the chain.
    #[error("the certificate is not valid before {} s from now", .0.as_secs())]
    NotYetValid(Duration),
    /// A CRL lists a certificate of the chain.
    #[error("the certificate is revoked")]
    Revoked,
    /// The certificate excludes the part that the peer plays.
    #[error("the certificate's extended key usage excludes this use")]
    Purpose,
    /// Genuine, and not who was to be reached.
    #[error("the identity is not one that is expected here")]
    NotExpected,
    /// Whatever else is wrong with the chain.
    #[error("the chain is not acceptable: {0}")]
    Chain(String),
}

impl Refusal {
    /// A word for metrics and rules; it does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::NotAnSvid(_) => "not_an_svid",
            Self::ChainLength(_) => "chain_length",
            Self::TrustDomain(_) => "trust_domain",
            Self::SelfSigned => "self_signed",
            Self::UnknownAuthority => "unknown_authority",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Purpose => "purpose",
            Self::NotExpected => "not_expected",
            Self::Chain(_) => "chain",
        }
    }

    pub(crate) fn of(error: &webpki::Error) -> Self {
        let apart =
            |a: &UnixTime, b: &UnixTime| Duration::from_secs(a.as_secs().abs_diff(b.as_secs()));
        match error {
            webpki::Error::CertExpired { time, not_after } => Self::Expired(apart(time, not_after)),
            webpki::Error::CertNotValidYet { time, not_before } => {
                Self::NotYetValid(apart(time, not_before))
            }
            webpki::Error::CertRevoked => Self::Revoked,
            webpki::Error::RequiredEkuNotFoundContext(_) => Self::Purpose,
            // Another key under the name of an authority is not that authority.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                Self::UnknownAuthority
            }
            other => Self::Chain(other.to_string()),
        }
    }

    /// How much it says of a chain that several authorities were tried on.
    pub(crate) fn rank(&self) -> u8 {
        match self {
            Self::Revoked => 4,
            Self::Expired(_) | Self::NotYetValid(_) => 3,
            Self::Purpose => 2,
            Self::UnknownAuthority => 0,
            _ => 1,
        }
    }

    /// What the peer is told: an alert of RFC 8446, section 6.2, that lets its operator find the cause.
    pub(crate) fn to_tls(&self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Self::NoCertificate => return rustls::Error::NoCertificatesPresented,
            Self::NotAnSvid(_) | Self::ChainLength(_) | Self::Chain(_) => {
                CertificateError::BadEncoding
            }
            Self::TrustDomain(_) | Self::SelfSigned | Self::UnknownAuthority => {
                CertificateError::UnknownIssuer
            }
            Self::Expired(_) => CertificateError::Expired,
            Self::NotYetValid(_) => CertificateError::NotValidYet,
            Self::Revoked => CertificateError::Revoked,
            Self::Purpose => CertificateError::InvalidPurpose,
            Self::NotExpected => CertificateError::ApplicationVerificationFailure,
        })
    }
}

/// The alert by which the peer has refused us, if that is what an I/O error is about: the peer does not
/// like our identity, and its log says why.
///
/// In TLS 1.3 a client learns this with its first read, after the handshake.
pub fn alert_of(error: &(dyn std::error::Error + 'static)) -> Option<AlertDescription> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An io::Error's source skips the error that it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>();
        let wrapped = wrapped.and_then(std::io::Error::get_ref);
        let tls = match wrapped {
            Some(wrapped) => wrapped.downcast_ref(),
            None => error.downcast_ref(),
        };
        if let Some(rustls::Error::AlertReceived(alert)) = tls {
            return Some(*alert);
        }
        cause = error.source();
    }
    None
}
