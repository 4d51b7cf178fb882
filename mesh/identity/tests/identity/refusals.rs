//! Everybody who is refused, at both ends, each with one log line that says who and why.

use mesh_identity::{Expected, HandshakeFailure, Mode, alert_of};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::io::AsyncReadExt as _;

use crate::{
    authority::{Authority, HOUR, Issued, at, leaf, self_signed, serial},
    party::{LIMIT, Logs, Party, tcp},
};

const ID: &str = "spiffe://shop.example/mallory";

/// A peer that shows what it likes, to whomever it meets.
struct Mallory(Option<Issued>);

impl Mallory {
    fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
        std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
    }

    fn key(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes());
        let chain = chain.collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
        (chain, key)
    }

    fn client(&self) -> rustls::ClientConfig {
        let config = rustls::ClientConfig::builder_with_provider(Self::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(Anybody));
        let mut config = match &self.0 {
            None => config.with_no_client_auth(),
            Some(issued) => {
                let (chain, key) = Self::key(issued);
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    fn server(&self) -> rustls::ServerConfig {
        let (chain, key) = Self::key(self.0.as_ref().unwrap());
        let mut config = rustls::ServerConfig::builder_with_provider(Self::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let algorithms = Mallory::provider().signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Mallory calls; what the server says of it, and the alert that Mallory gets.
async fn calls(server: &Party, mallory: &Mallory) -> (HandshakeFailure, String) {
    let logs = Logs::capture();
    let (accepted, connected) = tcp().await;
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(mallory.client()));
    let name = "127.0.0.1".try_into().unwrap();
    let acceptor = server.acceptor(Mode::Strict);
    let (refused, connected) = tokio::join!(
        acceptor.accept(accepted, LIMIT),
        connector.connect(name, connected),
    );
    // In TLS 1.3 the client is through before the server has seen its certificate.
    let told = connected.unwrap().read_u8().await.unwrap_err();
    let error = refused.unwrap_err();
    let line = logs.one("connection refused");
    assert!(
        line.contains(&format!("peer={}", error.peer.unwrap())),
        "{line}"
    );
    let alert = alert_of(&told).map_or_else(|| format!("{told}"), |alert| format!("{alert:?}"));
    (error.reason, format!("{line} | {alert}"))
}

/// Mallory is called; what the client says of it.
async fn is_called(client: &Party, mallory: &Mallory) -> String {
    let logs = Logs::capture();
    let (accepted, connected) = tcp().await;
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(mallory.server()));
    let connector = client.connector();
    let expected = Expected::default();
    let (accepted, refused) = tokio::join!(
        acceptor.accept(accepted),
        connector.connect(connected, &expected, LIMIT),
    );
    assert!(accepted.is_err() && refused.is_err());
    logs.one("connection failed")
}

fn changed(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = leaf(ID, serial());
    change(&mut params);
    params
}

/// What Mallory shows, what both a server and a client say of it, and the alert that Mallory gets.
type Case = (Issued, &'static str, &'static str);

async fn are_refused(ours: &Party, cases: Vec<Case>) {
    for (issued, reason, alert) in cases {
        let mallory = Mallory(Some(issued));
        let (_, said) = calls(ours, &mallory).await;
        assert!(said.contains(reason), "{said}");
        assert!(said.ends_with(alert), "{said}");
        let line = is_called(ours, &mallory).await;
        assert!(line.contains(reason), "{line}");
    }
}

#[tokio::test]
async fn whoever_is_not_vouched_for_now_is_refused() {
    let authority = Authority::new("shop.example");
    let revoked = authority.issue("/mallory");
    let crl = authority.crl(1, &[revoked.serial]);
    let good = authority.issue("/product");
    let ours = Party::with(&good, &authority.pem(), &crl).await.unwrap();
    let namesake = Authority::new("shop.example");
    let foreign = Authority::new("elsewhere.example");
    let past = changed(|params| params.not_after = at(-30));
    let future = changed(|params| params.not_before = at(HOUR / 2));
    let other_use = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let other_use = changed(|params| params.extended_key_usages = other_use);
    let cases = vec![
        (
            foreign.issue("/mallory"),
            "the trust domain \"elsewhere.example\" is not trusted here",
            "UnknownCA",
        ),
        (
            namesake.issue("/mallory"),
            "the certificate was issued by an unknown authority",
            "UnknownCA",
        ),
        (
            self_signed(&leaf(ID, serial())),
            "the certificate is self-signed",
            "UnknownCA",
        ),
        (
            authority.sign(&past),
            "the certificate expired 3",
            "CertificateExpired",
        ),
        (
            authority.sign(&future),
            "the certificate is not valid before 1",
            "CertificateExpired",
        ),
        (revoked, "the certificate is revoked", "CertificateRevoked"),
        (
            authority.sign(&other_use),
            "extended key usage excludes this use",
            "UnsupportedCertificate",
        ),
    ];
    are_refused(&ours, cases).await;
    let mallory = Mallory(Some(namesake.issue("/mallory")));
    for line in [
        calls(&ours, &mallory).await.1,
        is_called(&ours, &mallory).await,
    ] {
        assert!(line.contains(&format!("spiffe.id=\"{ID}\"")), "{line}");
    }
    let (failure, said) = calls(&ours, &Mallory(None)).await;
    assert_eq!(failure.reason(), "no_certificate", "{said}");
    assert!(said.contains("no certificate was shown"), "{said}");
    assert!(said.ends_with("CertificateRequired"), "{said}");
}

#[tokio::test]
async fn whoever_shows_no_leaf_of_spiffe_is_refused() {
    let authority = Authority::new("shop.example");
    let ours = Party::new(&authority.issue("/product"), &authority.pem()).await;
    let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
    let mut two = leaf(ID, serial()).subject_alt_names;
    two.push(uri("https://a"));
    let named = |names: Vec<SanType>| changed(|params| params.subject_alt_names = names);
    let usage = |usages: Vec<KeyUsagePurpose>| changed(|params| params.key_usages = usages);
    let ca = changed(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let lists = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let cases = [
        (
            named(vec![]),
            "the certificate has 0 URI names instead of one",
        ),
        (named(two), "the certificate has 2 URI names instead of one"),
        (
            named(vec![uri("spiffe://shop.example/a//b")]),
            "the certificate has a URI name that has an empty path segment",
        ),
        (
            named(vec![uri("spiffe://shop.example")]),
            "the certificate has a SPIFFE ID without a path",
        ),
        (ca, "the certificate is a certificate authority"),
        (usage(vec![]), "the certificate has a key usage that is not"),
        (usage(lists), "the certificate has a key usage that is not"),
        (
            usage(vec![KeyUsagePurpose::KeyEncipherment]),
            "the certificate has a key usage that is not",
        ),
    ];
    let cases = cases.map(|(params, reason)| (authority.sign(&params), reason, "BadCertificate"));
    are_refused(&ours, cases.into()).await;
}

#[tokio::test]
async fn a_chain_longer_than_anybody_needs_is_not_looked_at() {
    let authority = Authority::new("shop.example");
    let ours = Party::new(&authority.issue("/product"), &authority.pem()).await;
    let mut issued = authority.issue("/mallory");
    for _ in 0..mesh_identity::CHAIN_CERTIFICATES_MAX {
        issued.chain += &authority.pem();
    }
    let (failure, said) = calls(&ours, &Mallory(Some(issued))).await;
    assert_eq!(failure.reason(), "chain_length", "{said}");
}

#[tokio::test]
async fn a_server_without_http2_is_refused() {
    let authority = Authority::new("shop.example");
    let ours = Party::new(&authority.issue("/payment"), &authority.pem()).await;
    let mut config = Mallory(Some(authority.issue("/product"))).server();
    config.alpn_protocols.clear();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let (accepted, connected) = tcp().await;
    let connector = ours.connector();
    let expected = Expected::default();
    let (_, refused) = tokio::join!(
        acceptor.accept(accepted),
        connector.connect(connected, &expected, LIMIT),
    );
    assert!(matches!(
        refused.unwrap_err().reason,
        HandshakeFailure::NoHttp2
    ));
}

#[tokio::test]
async fn no_connection_is_resumed() {
    let authority = Authority::new("shop.example");
    let ours = Party::new(&authority.issue("/product"), &authority.pem()).await;
    let config = std::sync::Arc::new(Mallory(Some(authority.issue("/payment"))).client());
    for _ in 0..3 {
        let (accepted, connected) = tcp().await;
        let connector = tokio_rustls::TlsConnector::from(config.clone());
        let acceptor = ours.acceptor(Mode::Strict);
        let (accepted, connected) = tokio::join!(
            acceptor.accept(accepted, LIMIT),
            connector.connect("127.0.0.1".try_into().unwrap(), connected),
        );
        let (mut accepted, mut connected) = (accepted.unwrap(), connected.unwrap());
        // A ticket would come with the first bytes.
        tokio::io::AsyncWriteExt::write_all(&mut accepted.stream, b"x")
            .await
            .unwrap();
        connected.read_u8().await.unwrap();
        let tls = connected.get_ref().1;
        assert_eq!(tls.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(tls.tls13_tickets_received(), 0);
        assert_eq!(
            tls.protocol_version(),
            Some(rustls::ProtocolVersion::TLSv1_3)
        );
    }
}
