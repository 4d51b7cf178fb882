//! A process with an identity in files, and what two of them do with each other.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_identity::{
    Accepted, Acceptor, Connector, Expected, Files, FilesConfig, HandshakeError, Identity,
    IdentityError, Mode,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::subscriber::DefaultGuard;

use crate::authority::{Authority, Clock, Issued};

/// How long a handshake may take: long enough for a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);

/// An identity in a folder of files.
pub(crate) struct Party {
    pub(crate) folder: TempDir,
    pub(crate) identity: Identity,
    // Ends with the party.
    _reloading: JoinSet<()>,
}

/// The files of a folder as configuration.
pub(crate) fn files(folder: &Path, interval: Duration) -> FilesConfig {
    FilesConfig {
        certificate: folder.join("certificate.pem"),
        key: folder.join("key.pem"),
        bundle: folder.join("bundle.pem"),
        crls: vec![folder.join("crl.pem")],
        federated: [(
            "partner.example".parse().unwrap(),
            folder.join("partner.pem"),
        )]
        .into(),
        reload_interval_ms: interval.as_millis().try_into().unwrap(),
    }
}

/// Writes a set of files; the lists and the partner's bundle are empty or something else's.
pub(crate) fn write(folder: &Path, issued: &Issued, bundle: &str, crl: &str) {
    fs::write(folder.join("certificate.pem"), &issued.chain).unwrap();
    fs::write(folder.join("key.pem"), &issued.key).unwrap();
    fs::write(folder.join("bundle.pem"), bundle).unwrap();
    fs::write(folder.join("crl.pem"), crl).unwrap();
}

impl Party {
    pub(crate) async fn new(issued: &Issued, bundle: &str) -> Self {
        Self::with(issued, bundle, "").await.unwrap()
    }

    pub(crate) async fn with(
        issued: &Issued,
        bundle: &str,
        crl: &str,
    ) -> Result<Self, IdentityError> {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), issued, bundle, crl);
        let partner = Authority::new("partner.example").pem();
        fs::write(folder.path().join("partner.pem"), partner).unwrap();
        Self::of(folder, INTERVAL).await
    }

    pub(crate) async fn of(folder: TempDir, interval: Duration) -> Result<Self, IdentityError> {
        let source = Files::new(&files(folder.path(), interval));
        let clock = Arc::new(Clock(Instant::now()));
        let (identity, reload) = Identity::start_at(source, clock).await?;
        let mut reloading = JoinSet::new();
        reloading.spawn(reload.run(CancellationToken::new()));
        Ok(Self {
            folder,
            identity,
            _reloading: reloading,
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn acceptor(&self, mode: Mode) -> Acceptor {
        Acceptor::new(mode, self.identity.clone())
    }

    pub(crate) fn connector(&self) -> Connector {
        Connector::new(self.identity.clone())
    }

    /// Waits until the party holds the certificate of this serial number.
    pub(crate) async fn holds(&self, serial: u64) {
        while u64::from_str_radix(&self.identity.status().serial, 16).unwrap() != serial {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

type Outcome = Result<Accepted, HandshakeError>;

/// One connection: what the server and what the client make of it.
pub(crate) async fn meet(
    acceptor: &Acceptor,
    connector: &Connector,
    expected: &Expected,
) -> (Outcome, Outcome) {
    let (accepted, connected) = tcp().await;
    tokio::join!(
        acceptor.accept(accepted, LIMIT),
        connector.connect(connected, expected, LIMIT),
    )
}

/// The same between two that insist on certificates, where the client takes anybody of its own trust domain.
pub(crate) async fn meet_strictly(server: &Party, client: &Party) -> (Outcome, Outcome) {
    meet(
        &server.acceptor(Mode::Strict),
        &client.connector(),
        &Expected::default(),
    )
    .await
}

/// Two ends of a connection: accepted, and connected.
pub(crate) async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (accepted, connected) = tokio::join!(listener.accept(), connecting);
    (accepted.unwrap().0, connected.unwrap())
}

/// Says something in both directions.
pub(crate) async fn talk(a: &mut Accepted, b: &mut Accepted) -> io::Result<()> {
    let mut heard = [0; 4];
    a.stream.write_all(b"ping").await?;
    a.stream.flush().await?;
    b.stream.read_exact(&mut heard).await?;
    b.stream.write_all(b"pong").await?;
    b.stream.flush().await?;
    a.stream.read_exact(&mut heard).await?;
    assert_eq!(&heard, b"pong");
    Ok(())
}

/// What is logged on this thread while it lives.
pub(crate) struct Logs {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: DefaultGuard,
}

impl Logs {
    pub(crate) fn capture() -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || Writer(writer.clone()))
            .finish();
        Self {
            lines,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines with this text.
    pub(crate) fn with(&self, text: &str) -> Vec<String> {
        let lines = String::from_utf8(self.lines.lock().unwrap().clone()).unwrap();
        let lines = lines.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }

    /// The one line with this text.
    pub(crate) fn one(&self, text: &str) -> String {
        let found = self.with(text);
        assert_eq!(found.len(), 1, "{text:?} in {found:#?}");
        found[0].clone()
    }
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
