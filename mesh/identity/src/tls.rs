//! rustls, set up for identities: the newest own certificate for every handshake, and peers judged by
//! their SPIFFE ID instead of a host name.
//!
//! Without session resumption: a ticket would let a peer in whose certificate has been revoked since.
//! Connections are few and live long, so a whole handshake each is cheap.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{
    IdPattern, Identity, PeerIdentity, Refusal, SpiffeId, svid,
    trust::{Role, Trust},
};

/// The one protocol that is spoken inside (RFC 7301, RFC 9113).
pub(crate) const ALPN: &[u8] = b"h2";
const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&version::TLS13];

/// Who may be at the other end of a connection that is made.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    // Empty: anybody of the own trust domain.
    patterns: Arc<[IdPattern]>,
}

impl Expected {
    /// Any workload of the own trust domain.
    pub fn own_trust_domain() -> Self {
        Self::default()
    }

    /// One of these; with an empty list, any workload of the own trust domain.
    pub fn one_of(patterns: impl IntoIterator<Item = IdPattern>) -> Self {
        Self {
            patterns: patterns.into_iter().collect(),
        }
    }

    fn includes(&self, id: &SpiffeId, own: &SpiffeId) -> bool {
        if self.patterns.is_empty() {
            return id.trust_domain() == own.trust_domain();
        }
        self.patterns.iter().any(|pattern| pattern.matches(id))
    }
}

/// Judges the peer of one connection, and remembers how.
#[derive(Debug)]
pub(crate) struct Verifier {
    identity: Identity,
    role: Role,
    /// `None`: whoever is trusted.
    expected: Option<Expected>,
    verdict: OnceLock<Verdict>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    /// Who the peer says it is, proven or not.
    pub(crate) claimed: Option<SpiffeId>,
    /// By what it was judged.
    pub(crate) trust: Arc<Trust>,
    pub(crate) outcome: Result<PeerIdentity, Refusal>,
}

impl Verifier {
    /// For the client of a connection.
    pub(crate) fn of_client(identity: Identity) -> Self {
        Self {
            identity,
            role: Role::Client,
            expected: None,
            verdict: OnceLock::new(),
        }
    }

    /// For the server of a connection.
    pub(crate) fn of_server(identity: Identity, expected: Expected) -> Self {
        Self {
            identity,
            role: Role::Server,
            expected: Some(expected),
            verdict: OnceLock::new(),
        }
    }

    /// `None`: the peer's certificate has not been seen.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.get()
    }

    pub(crate) fn role(&self) -> Role {
        self.role
    }

    fn judge(
        &self,
        first: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let snapshot = self.identity.snapshot();
        let chain: Vec<_> = std::iter::once(first)
            .chain(intermediates)
            .cloned()
            .collect();
        let outcome = snapshot.trust.verify(&chain, self.role, now);
        let outcome = outcome.and_then(|peer| match &self.expected {
            Some(expected) if !expected.includes(&peer.id, &snapshot.svid.leaf.id) => {
                Err(Refusal::NotExpected)
            }
            _ => Ok(peer),
        });
        let verdict = self.verdict.get_or_init(|| Verdict {
            claimed: svid::claimed_id(first),
            trust: snapshot.trust.clone(),
            outcome,
        });
        match &verdict.outcome {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal.to_tls()),
        }
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = self.identity.provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }

    fn signature_12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.identity.provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn signature_13(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.identity.provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[] // A workload has one identity; there is nothing to choose by a hint.
    }

    fn verify_client_cert(
        &self,
        first: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(first, intermediates, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature_12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature_13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(first, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature_12(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signature_13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// Shows the newest own certificate.
#[derive(Debug)]
struct Newest(Identity);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.snapshot().svid.key.clone())
    }
}

impl ResolvesClientCert for Newest {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.snapshot().svid.key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// For one connection that is accepted: rustls has no other way to give each its own verifier.
pub(crate) fn server_config(identity: &Identity, verifier: Arc<Verifier>) -> ServerConfig {
    let (provider, clock) = (identity.provider().clone(), identity.clock().clone());
    let mut config = ServerConfig::builder_with_details(provider, clock)
        .with_protocol_versions(VERSIONS)
        .expect("aws-lc-rs speaks TLS 1.3")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Newest(identity.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

/// For connections that are made; each clones it and sets its own verifier.
pub(crate) fn client_config(identity: &Identity) -> ClientConfig {
    let (provider, clock) = (identity.provider().clone(), identity.clock().clone());
    let nobody = Verifier::of_server(identity.clone(), Expected::default());
    let mut config = ClientConfig::builder_with_details(provider, clock)
        .with_protocol_versions(VERSIONS)
        .expect("aws-lc-rs speaks TLS 1.3")
        .dangerous() // rustls' word for verifiers that are not its own.
        .with_custom_certificate_verifier(Arc::new(nobody))
        .with_client_cert_resolver(Arc::new(Newest(identity.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false; // The peer is named by its SPIFFE ID.
    config
}
