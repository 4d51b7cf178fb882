//! A certificate authority of the tests' own, by a clock of its own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use time::OffsetDateTime;
use tokio::time::Instant;

/// When every test begins, in seconds since the epoch.
pub(crate) const BEGIN: i64 = 1_800_000_000;
pub(crate) const HOUR: i64 = 3_600;

/// `BEGIN`, and on from there by tokio's time, which tests can pause.
#[derive(Debug)]
pub(crate) struct Clock(pub(crate) Instant);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let begin = Duration::from_secs(BEGIN.try_into().unwrap());
        Some(UnixTime::since_unix_epoch(begin + self.0.elapsed()))
    }
}

static SERIAL: AtomicU64 = AtomicU64::new(1);

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) trust_domain: String,
}

/// A certificate with its key, as PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) serial: u64,
}

pub(crate) fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(BEGIN + seconds).unwrap()
}

pub(crate) fn serial() -> u64 {
    SERIAL.fetch_add(1, Ordering::Relaxed)
}

/// What a good leaf says; tests change a line.
pub(crate) fn leaf(id: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.not_before = at(-60);
    params.not_after = at(HOUR);
    params.serial_number = Some(SerialNumber::from(serial));
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = at(-24 * HOUR);
    params.not_after = at(24 * HOUR);
    params.serial_number = Some(SerialNumber::from(serial()));
    params
}

impl Authority {
    /// An authority of `shop.example`. All of a trust domain have one name, as SPIRE's have.
    pub(crate) fn new(trust_domain: &str) -> Self {
        let params = authority(trust_domain);
        Self {
            issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap(),
            trust_domain: trust_domain.to_owned(),
        }
    }

    /// An authority below this one.
    pub(crate) fn intermediate(&self, lifetime: i64) -> Self {
        let mut params = authority(&format!("{} intermediate", self.trust_domain));
        params.not_after = at(lifetime);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap(),
            trust_domain: self.trust_domain.clone(),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn id(&self, path: &str) -> String {
        format!("spiffe://{}{path}", self.trust_domain)
    }

    pub(crate) fn issue(&self, path: &str) -> Issued {
        self.sign(&leaf(&self.id(path), serial()))
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let certificate = params.signed_by(&key, issuer).unwrap();
        Issued {
            chain: certificate.pem(),
            key: key.serialize_pem(),
            serial: number(params),
        }
    }

    /// A list of revoked serial numbers, as PEM.
    pub(crate) fn crl(&self, number: u64, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: at(-1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: at(-1),
            next_update: at(HOUR),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate that only its own key vouches for.
pub(crate) fn self_signed(params: &CertificateParams) -> Issued {
    let key = KeyPair::generate().unwrap();
    Issued {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
        serial: number(params),
    }
}

fn number(params: &CertificateParams) -> u64 {
    let serial = params.serial_number.as_ref().unwrap().to_bytes();
    serial
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
