//! Who is let in, who is not, and what those who are may do.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use mesh::{CallContext, Client, Config, Mesh, Principal, identity::Mode};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

use crate::{
    party::{Authority, Issued, Logs, Party, QUICK, how_soon, self_signed, started, year},
    support::{PATIENCE, TestClient, TestService, Texts, mesh_calling, one},
};

/// Says who calls, and for whom.
fn asking() -> TestService {
    TestService::new(|method, _| async move {
        let context = CallContext::current();
        let caller = context.caller().map_or("nobody", |id| id.as_str());
        let text = format!("{caller} for {}", context.principal().name());
        if method != "Watch" {
            return Ok(one(text));
        }
        Ok(Box::pin(stream::iter([Ok(text)]).chain(stream::pending())) as Texts)
    })
}

/// Serves until the token is cancelled.
async fn serve(mesh: &Mesh) -> (SocketAddr, CancellationToken) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
    let serving = mesh
        .server()
        .add(asking())
        .serve(listener, shutdown.clone());
    mesh::spawn(async { serving.await.unwrap() });
    (address, shutdown)
}

fn calling(mut config: Config, to: String) -> Config {
    config.destinations.insert("test".into(), to);
    config
}

async fn client(config: Config, to: String) -> TestClient<Client> {
    TestClient(started(calling(config, to)).await.client("test"))
}

pub(crate) fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details
        .error_info()
        .expect("every error of the mesh has it");
    assert_eq!(info.domain, mesh::ERROR_DOMAIN);
    (status.code(), info.reason.clone())
}

/// Layer and policy.
fn made_by(status: &Status) -> [String; 2] {
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    ["layer", "policy"].map(|key| metadata[key].clone())
}

#[tokio::test]
async fn a_handler_learns_who_calls_and_for_whom() {
    let authority = Authority::new("shop.example");
    let product = Party::new(&authority.issue("/product"), &authority.pem());
    let payment = Party::new(&authority.issue("/payment"), &authority.pem());
    for mode in [Mode::Permissive, Mode::Strict] {
        let server = started(product.config(mode, QUICK)).await;
        let (address, _stop) = serve(&server).await;
        // In mode strict, plain http:// is encrypted too.
        for (of_client, to) in [
            (Mode::Permissive, format!("https://{address}")),
            (Mode::Strict, format!("http://{address}")),
            (
                Mode::Permissive,
                format!("https://{address};id=spiffe://shop.example/product"),
            ),
        ] {
            let client = client(payment.config(of_client, QUICK), to).await;
            let for_ada = CallContext::root(Principal::new("ada", ["operator"]));
            let said = for_ada.scope(client.unary("Read", "")).await.unwrap();
            assert_eq!(said, "spiffe://shop.example/payment for ada");
        }
        let plaintext = mesh_calling(address).client("test");
        let said = TestClient(plaintext).unary("Post", "").await;
        match mode {
            Mode::Strict => assert_eq!(said.unwrap_err().code(), Code::Unavailable),
            _ => assert_eq!(said.unwrap(), "nobody for anonymous"),
        }
    }
}

#[tokio::test]
async fn a_call_in_flight_shows_who_is_at_the_other_end() {
    let authority = Authority::new("shop.example");
    let product = Party::new(&authority.issue("/product"), &authority.pem());
    let payment = Party::new(&authority.issue("/payment"), &authority.pem());
    let server = started(product.config(Mode::Permissive, QUICK)).await;
    let (address, _stop) = serve(&server).await;
    let secure = client(
        payment.config(Mode::Strict, QUICK),
        format!("https://{address}"),
    )
    .await;
    let plaintext = TestClient(mesh_calling(address).client("test"));
    let mut secured = secure.watch("Watch", "").await.unwrap();
    secured.next().await.unwrap().unwrap();
    let mut plain = plaintext.watch("Watch", "").await.unwrap();
    plain.next().await.unwrap().unwrap();
    let shown = server.calls().calls;
    let ids: Vec<_> = shown.iter().map(|call| call.peer_id.as_deref()).collect();
    assert_eq!(ids, [Some("spiffe://shop.example/payment"), None]);
    for call in &shown {
        // The address is the socket's, TLS or not.
        let peer = call.peer.as_deref().unwrap();
        assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    }
}

#[tokio::test]
async fn whoever_is_not_expected_is_not_called() {
    let authority = Authority::new("shop.example");
    let product = Party::new(&authority.issue("/product"), &authority.pem());
    let payment = Party::new(&authority.issue("/payment"), &authority.pem());
    let server = started(product.config(Mode::Strict, QUICK)).await;
    let (address, _stop) = serve(&server).await;
    let to = format!("https://{address};id=spiffe://shop.example/ledger");
    let client = client(payment.config(Mode::Permissive, QUICK), to).await;
    let status = client.unary("Read", "").await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::Unavailable, "DESTINATION_UNAVAILABLE".into())
    );
    let details = status.get_error_details();
    let cause = &details.error_info().unwrap().metadata["cause"];
    assert!(cause.contains("not one that is expected"), "{cause}");
}

#[tokio::test]
async fn a_caller_of_another_trust_domain_speaks_for_itself() {
    let (ours, theirs) = (
        Authority::new("shop.example"),
        Authority::new("partner.example"),
    );
    let product = Party::new(&ours.issue("/product"), &ours.pem());
    let partner = Party::new(&theirs.issue("/orders"), &theirs.pem());
    let federated = |party: &Party, domain: &str, of: &Authority| {
        let mut config = party.config(Mode::Strict, QUICK);
        fs::write(party.path("federated.pem"), of.pem()).unwrap();
        let files = config.identity.files.as_mut().unwrap();
        let path = party.path("federated.pem");
        files.federated.insert(domain.parse().unwrap(), path);
        config
    };
    let server = started(federated(&product, "partner.example", &theirs)).await;
    let (address, _stop) = serve(&server).await;
    let to = format!("https://{address};id=spiffe://shop.example/*");
    let client = client(federated(&partner, "shop.example", &ours), to).await;
    let for_ada = CallContext::root(Principal::new("ada", ["operator"]));
    let said = for_ada.scope(client.unary("Read", "")).await.unwrap();
    let orders = "spiffe://partner.example/orders";
    assert_eq!(said, format!("{orders} for {orders}"));
}

/// A client that shows what it likes; how the server ends the connection.
async fn mallory(address: SocketAddr, shows: Option<&Issued>) -> std::io::Error {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let mut config = match shows {
        None => config.with_no_client_auth(),
        Some(issued) => {
            let chain = CertificateDer::pem_slice_iter(issued.chain.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            let chain = chain.collect::<Result<_, _>>().unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = "127.0.0.1".try_into().unwrap();
    // In TLS 1.3 the client is through before the server has seen its certificate.
    let mut connected = connector.connect(name, socket).await.unwrap();
    let told = timeout(PATIENCE, connected.read_u8()).await.unwrap();
    told.unwrap_err()
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
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[tokio::test]
async fn whoever_is_not_known_is_refused_with_a_line_that_says_why() {
    let authority = Authority::new("shop.example");
    let product = Party::new(&authority.issue("/product"), &authority.pem());
    let server = started(product.config(Mode::Strict, QUICK)).await;
    let (address, _stop) = serve(&server).await;
    let mut past = authority.leaf("/mallory");
    past.not_after = year(2021);
    let stranger = Authority::new("other.example").issue("/mallory");
    let impostor = Authority::new("shop.example").issue("/mallory");
    let alone = self_signed(&authority.leaf("/mallory"));
    for (shown, reason) in [
        (None, "no_certificate"),
        (Some(&alone), "self_signed"),
        (Some(&authority.sign(&past)), "expired"),
        (Some(&stranger), "trust_domain"),
        (Some(&impostor), "unknown_authority"),
    ] {
        let logs = Logs::capture();
        mallory(address, shown).await;
        let lines = logs.with("connection refused");
        assert_eq!(lines.len(), 1, "{lines:?}");
        println!("{}", lines[0]);
        assert!(
            lines[0].contains(&format!("reason=\"{reason}\"")),
            "{lines:?}"
        );
        let claims = lines[0].contains("/mallory");
        assert_eq!(claims, shown.is_some(), "{lines:?}");
    }
    let logs = Logs::capture();
    let plaintext = TestClient(mesh_calling(address).client("test"));
    plaintext.unary("Post", "").await.unwrap_err();
    let lines = logs.with("connection refused: plaintext is not accepted here");
    assert!(!lines.is_empty());
}

#[tokio::test]
async fn a_revoked_peer_is_cut_off_within_two_seconds() {
    let authority = Authority::new("shop.example");
    let (ours, theirs) = (authority.issue("/product"), authority.issue("/payment"));
    let product = Party::new(&ours, &authority.pem());
    let payment = Party::new(&theirs, &authority.pem());
    let bystander = Party::new(&authority.issue("/edge"), &authority.pem());
    let second = Duration::from_secs(1); // The default.
    let server = started(product.config(Mode::Strict, second)).await;
    let (address, _stop) = serve(&server).await;
    let to = || format!("https://{address}");
    let revoked = client(payment.config(Mode::Strict, second), to()).await;
    let other = client(bystander.config(Mode::Strict, second), to()).await;
    let mut watching = revoked.watch("Watch", "").await.unwrap();
    let mut going_on = other.watch("Watch", "").await.unwrap();
    watching.next().await.unwrap().unwrap();
    going_on.next().await.unwrap().unwrap();

    let logs = Logs::capture();
    product.write(&ours, &authority.pem(), &authority.crl(&[theirs.serial]));
    let (ended, elapsed) = how_soon(watching.next()).await;
    let status = ended.unwrap().unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::Unauthenticated, "CALLER_NOT_TRUSTED".into())
    );
    assert_eq!(made_by(&status), ["deadline", "the caller's certificate"]);
    println!("a revoked peer's connection ends after {elapsed:?}");
    assert!(elapsed <= Duration::from_secs(2), "after {elapsed:?}");
    assert_eq!(
        logs.with("connection ends: the certificate is revoked")
            .len(),
        1
    );
    revoked.unary("Post", "").await.unwrap_err();
    assert!(futures_util::poll!(going_on.next()).is_pending());
    other.unary("Post", "").await.unwrap();
}

const RULES: &str = r#"
[[rule]]
name = "payment reads"
callers = ["spiffe://shop.example/payment"]
methods = ["/mesh.test.v1.TestService/Read"]
"#;

#[tokio::test]
async fn what_no_rule_allows_is_denied() {
    let authority = Authority::new("shop.example");
    let product = Party::new(&authority.issue("/product"), &authority.pem());
    let payment = Party::new(&authority.issue("/payment"), &authority.pem());
    let server = started(product.config_by(Mode::Permissive, RULES, false)).await;
    let (address, _stop) = serve(&server).await;
    let known = client(
        payment.config(Mode::Permissive, QUICK),
        format!("https://{address}"),
    )
    .await;
    let unknown = TestClient(mesh_calling(address).client("test"));
    known.unary("Read", "").await.unwrap();
    let logs = Logs::capture();
    let status = known.unary("Post", "").await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::PermissionDenied, "PERMISSION_DENIED".into())
    );
    assert_eq!(made_by(&status), ["authorize", "mesh.identity.policy.file"]);
    let status = unknown.unary("Read", "").await.unwrap_err();
    assert_eq!(
        reason(&status),
        (Code::Unauthenticated, "UNAUTHENTICATED".into())
    );
    assert_eq!(made_by(&status), ["authorize", "mesh.identity.policy.file"]);
    let lines = logs.with("call denied");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("mesh::audit") && lines[0].contains("/payment"));
    assert!(lines[1].contains("caller=\"\""), "{lines:?}");

    // Probes need no rule.
    let mut health = HealthClient::new(unknown.0.clone());
    let everything = HealthCheckRequest::default();
    health.check(everything).await.unwrap();

    // A change of the file is taken over while connections live.
    fs::write(product.path("policy.toml"), RULES.replace("Read", "*")).unwrap();
    let allowed = async {
        while known.unary("Post", "").await.is_err() {
            tokio::time::sleep(QUICK).await;
        }
    };
    timeout(PATIENCE, allowed).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_only_tells() {
    let authority = Authority::new("shop.example");
    let product = Party::new(&authority.issue("/product"), &authority.pem());
    let server = started(product.config_by(Mode::Permissive, RULES, true)).await;
    let (address, _stop) = serve(&server).await;
    let logs = Logs::capture();
    let unknown = TestClient(mesh_calling(address).client("test"));
    unknown.unary("Post", "").await.unwrap();
    let lines = logs.with("call denied");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("dry_run=true"), "{lines:?}");
}

#[tokio::test]
async fn a_configuration_that_would_be_less_than_it_says_is_refused() {
    let authority = Authority::new("shop.example");
    let party = Party::new(&authority.issue("/product"), &authority.pem());
    let contract = || mesh::Contract::new(crate::support::contract::descriptor_set()).unwrap();
    let registry = prometheus::Registry::new;
    let config = party.config(Mode::Strict, QUICK);
    let error = Mesh::new(config, contract(), &registry()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("identity.mode needs Mesh::start")
    );
    let config = calling(Config::default(), "https://product:1".into());
    let error = Mesh::new(config, contract(), &registry()).unwrap_err();
    let text = "mesh.destinations.test speaks TLS, and mesh.identity.mode is off";
    assert_eq!(error.to_string(), text);
    let mut config = party.config(Mode::Strict, QUICK);
    config.identity.files = None;
    let started = Mesh::start(config, contract(), &registry()).await;
    let error = started.unwrap_err().to_string();
    assert!(error.starts_with("mesh.identity.mode needs"), "{error}");
    fs::remove_file(party.path("key.pem")).unwrap();
    let config = party.config(Mode::Strict, QUICK);
    let started = Mesh::start(config, contract(), &registry()).await;
    assert!(matches!(started, Err(mesh::Error::Identity(_))));
}
