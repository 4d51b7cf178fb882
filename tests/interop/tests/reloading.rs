//! Certificates that change under a server that runs: with tonic's own TLS it goes on showing the old one, the mesh shows
//! the new one (`mesh/rpc/tests/rpc/tonic_defects`, number 9).
//!
//! A test of its own, with a feature of its own: tonic's TLS is compiled for nobody else.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use interop::{contract, server::service};
use mesh::{
    Config, Mesh,
    identity::{FilesConfig, Mode},
};
use prometheus::Registry;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Identity, Server, ServerTlsConfig};

const NAME: &str = "localhost";
/// How often the mesh looks for new files, in milliseconds.
const LOOKS_EVERY_MS: u64 = 10;
/// For what has to happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// For what is expected not to happen.
const SHORT: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Mesh,
}

/// An authority, and a folder with what a server has of it.
struct Files {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        let named = &mut params.distinguished_name;
        named.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let files = Self {
            authority: CertifiedIssuer::self_signed(params, key).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(files.path("authority.pem"), files.authority.pem()).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a new certificate in the place of the last one, and says which.
    fn renew(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
        let id = "spiffe://interop.test/server".try_into().unwrap();
        params.subject_alt_names.push(SanType::URI(id));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        fs::write(self.path("certificate.pem"), certificate.pem()).unwrap();
        certificate.der().clone()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// A client that shows the server's certificate of now as its own.
    fn client(&self) -> TlsConnector {
        let pem = |name: &str| CertificateDer::from_pem_file(self.path(name)).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path("key.pem")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(pem("authority.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        let config = config.with_client_auth_cert(vec![pem("certificate.pem")], key);
        let mut config = config.unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}

async fn serve(kind: Kind, files: &Files) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    match kind {
        Kind::Plain => {
            let (certificate, key) = (files.read("certificate.pem"), files.read("key.pem"));
            let tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            let mut server = Server::builder().tls_config(tls).unwrap();
            let server = server.add_service(service());
            mesh::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        Kind::Mesh => {
            let registry = Registry::new();
            let mesh = Mesh::start(identified(files), contract(), &registry).await;
            let server = mesh.unwrap().server().add(service());
            mesh::spawn(server.serve(listener, CancellationToken::new()));
        }
    }
    address
}

fn identified(files: &Files) -> Config {
    let mut config = Config::default();
    config.identity.mode = Mode::Strict;
    config.identity.files = Some(FilesConfig {
        certificate: files.path("certificate.pem"),
        key: files.path("key.pem"),
        bundle: files.path("authority.pem"),
        reload_interval_ms: LOOKS_EVERY_MS,
        ..FilesConfig::default()
    });
    config
}

/// What a new connection is shown.
async fn shown(address: SocketAddr, client: &TlsConnector) -> CertificateDer<'static> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(NAME).unwrap();
    let stream = client.connect(name, stream).await.unwrap();
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart() {
    for (kind, is_shown) in [(Kind::Plain, false), (Kind::Mesh, true)] {
        let files = Files::new();
        let first = files.renew();
        let client = files.client();
        let address = serve(kind, &files).await;
        assert_eq!(shown(address, &client).await, first, "{kind:?}");
        let second = files.renew();
        let follows = async {
            while shown(address, &client).await != second {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let patience = if is_shown { PATIENCE } else { SHORT };
        let followed = timeout(patience, follows).await;
        assert_eq!(followed.is_ok(), is_shown, "{kind:?}");
    }
}
