//! Makes connections out of TCP streams: at a server [`Acceptor`], at a client [`Connector`].
//!
//! Deliberately without sockets of its own: the caller accepts, connects and closes.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{AlertDescription, ClientConfig};
use rustls_pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    Expected, Identity, MeshStream, Mode, PeerGuard, PeerIdentity, Refusal, SpiffeId,
    tls::{self, Verifier},
};

/// The first byte of a TLS connection: a handshake record (RFC 8446, section 5.1).
const TLS_FIRST: u8 = 0x16;
/// The first byte of a plaintext one: `PRI * HTTP/2.0` (RFC 9113, section 3.4).
const HTTP2_FIRST: u8 = b'P';

/// A connection whose peer is known as far as the mode asks for it.
#[derive(Debug)]
pub struct Accepted {
    /// What the application reads and writes.
    pub stream: MeshStream,
    /// Who is at the other end; `None` in plaintext.
    pub peer: Option<PeerIdentity>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Says when the connection has to end. Whoever serves the connection awaits it.
    pub guard: PeerGuard,
}

impl Accepted {
    /// A connection in plaintext.
    pub fn plaintext(stream: TcpStream) -> Self {
        Self::unproven(MeshStream::plain(stream))
    }

    fn unproven(stream: MeshStream) -> Self {
        Self {
            stream,
            peer: None,
            tls: false,
            guard: PeerGuard::default(),
        }
    }
}

/// Why there is no connection. It has been logged.
#[derive(Debug)]
pub struct HandshakeError {
    /// The address of the other end; `None`: it hung up before it was asked for.
    pub peer: Option<SocketAddr>,
    /// Who the other end says it is, proven or not.
    pub id: Option<SpiffeId>,
    /// Why.
    pub reason: HandshakeFailure,
}

/// Why a handshake has failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// We do not let the peer in.
    #[error("{0}")]
    Refused(#[source] Refusal),
    /// The peer does not let us in; its log says why.
    #[error("the peer refuses us: {0:?}")]
    Alert(AlertDescription),
    /// The mode is strict, and the peer speaks plaintext.
    #[error("plaintext is not accepted here")]
    Plaintext,
    /// Neither TLS nor HTTP/2.
    #[error("the first byte {0:#04x} is neither TLS nor HTTP/2")]
    Protocol(u8),
    /// The server does not speak HTTP/2 over TLS.
    #[error("the peer did not agree on HTTP/2 (ALPN h2)")]
    NoHttp2,
    /// The peer was silent for too long.
    #[error("not finished within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The peer hung up before it was through.
    #[error("the peer hung up")]
    HungUp,
    /// TLS, broken otherwise.
    #[error("TLS failed: {0}")]
    Tls(#[source] rustls::Error),
    /// The connection, broken otherwise.
    #[error("the connection failed: {0}")]
    Io(#[source] io::Error),
}

/// Accepts connections in one mode. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    // `None`: the mode is off.
    identity: Option<Identity>,
    plaintext: bool,
}

impl Acceptor {
    /// Plaintext only.
    pub fn off() -> Self {
        Self {
            identity: None,
            plaintext: true,
        }
    }

    /// By the mode: plaintext, both on one port, or TLS only.
    pub fn new(mode: Mode, identity: Identity) -> Self {
        match mode {
            Mode::Off => Self::off(),
            Mode::Permissive | Mode::Strict => Self {
                identity: Some(identity),
                plaintext: mode == Mode::Permissive,
            },
        }
    }

    /// Takes a connection that has just been accepted through its handshake, within `limit`.
    ///
    /// A failure is logged here, in one line; dropping the stream has closed the connection.
    pub async fn accept(
        &self,
        stream: TcpStream,
        limit: Duration,
    ) -> Result<Accepted, HandshakeError> {
        let Some(identity) = &self.identity else {
            return Ok(Accepted::plaintext(stream));
        };
        let verifier = Arc::new(Verifier::of_client(identity.clone()));
        let address = stream.peer_addr().ok();
        let accepting = self.handshake(stream, identity, verifier.clone());
        let accepted = match timeout(limit, accepting).await {
            Ok(accepted) => accepted,
            Err(_) => Err(HandshakeFailure::TimedOut(limit)),
        };
        finish(accepted, identity, address, &verifier, "connection refused")
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        identity: &Identity,
        verifier: Arc<Verifier>,
    ) -> Result<MeshStream, HandshakeFailure> {
        // One byte decides: waiting for more would need a peer that sends more.
        let mut first = [0];
        let peeked = stream.peek(&mut first).await.map_err(io_failure)?;
        match first[0] {
            _ if peeked == 0 => Err(HandshakeFailure::HungUp),
            TLS_FIRST => {
                let config = Arc::new(tls::server_config(identity, verifier));
                let accepted = TlsAcceptor::from(config).accept(stream).await;
                accepted.map(MeshStream::tls).map_err(io_failure)
            }
            HTTP2_FIRST if self.plaintext => Ok(MeshStream::plain(stream)),
            HTTP2_FIRST => Err(HandshakeFailure::Plaintext),
            other => Err(HandshakeFailure::Protocol(other)),
        }
    }
}

/// Makes encrypted connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    identity: Identity,
    config: Arc<ClientConfig>,
}

impl Connector {
    /// Shows this identity, always the newest.
    pub fn new(identity: Identity) -> Self {
        let config = Arc::new(tls::client_config(&identity));
        Self { identity, config }
    }

    /// Takes a connection that has just been made through its handshake, within `limit`. The peer is one
    /// of those `expected`, or there is no connection.
    ///
    /// Whether the peer likes *our* certificate shows with the first read (TLS 1.3): see
    /// [`alert_of`](crate::alert_of). A failure is logged here, in one line.
    pub async fn connect(
        &self,
        stream: TcpStream,
        expected: &Expected,
        limit: Duration,
    ) -> Result<Accepted, HandshakeError> {
        let address = stream.peer_addr().ok();
        let verifier = Arc::new(Verifier::of_server(self.identity.clone(), expected.clone()));
        let mut config = ClientConfig::clone(&self.config);
        config
            .dangerous()
            .set_certificate_verifier(verifier.clone());
        let connector = TlsConnector::from(Arc::new(config));
        // A name for rustls to hold; it is not sent, and the verifier looks at the SPIFFE ID.
        let name = ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let connecting = connector.connect(name, stream);
        let connected = match timeout(limit, connecting).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() != Some(tls::ALPN) => {
                Err(HandshakeFailure::NoHttp2)
            }
            Ok(connected) => connected.map(MeshStream::tls).map_err(io_failure),
            Err(_) => Err(HandshakeFailure::TimedOut(limit)),
        };
        finish(
            connected,
            &self.identity,
            address,
            &verifier,
            "connection failed",
        )
    }
}

/// What has come of a handshake. A failure is logged under the words of `failed`.
fn finish(
    outcome: Result<MeshStream, HandshakeFailure>,
    identity: &Identity,
    address: Option<SocketAddr>,
    verifier: &Verifier,
    failed: &'static str,
) -> Result<Accepted, HandshakeError> {
    let verdict = verifier.verdict();
    let judged = verdict.map(|verdict| (&verdict.outcome, &verdict.trust));
    let reason = match (outcome, judged) {
        (Ok(stream), Some((Ok(peer), trust))) => {
            let chain = stream.peer_chain().unwrap_or_default();
            let (identity, trust) = (identity.clone(), trust.clone());
            let role = verifier.role();
            return Ok(Accepted {
                stream,
                tls: true,
                guard: PeerGuard::new(identity, address, peer.clone(), chain, role, trust),
                peer: Some(peer.clone()),
            });
        }
        (Ok(stream), None) if !stream.is_tls() => return Ok(Accepted::unproven(stream)),
        // rustls asks the verifier of every peer; if it ever should not, nobody is let in.
        (Ok(_), None) => HandshakeFailure::Refused(Refusal::NoCertificate),
        (Ok(_) | Err(HandshakeFailure::Tls(_)), Some((Err(refusal), _))) => {
            HandshakeFailure::Refused(refusal.clone())
        }
        (Err(failure), _) => failure,
    };
    let error = HandshakeError {
        peer: address,
        id: verdict.and_then(|verdict| verdict.claimed.clone()),
        reason,
    };
    error.log(failed);
    Err(error)
}

/// What an I/O error of a handshake means.
fn io_failure(error: io::Error) -> HandshakeFailure {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let kind = error.kind();
    match error.downcast::<rustls::Error>() {
        Ok(rustls::Error::AlertReceived(alert)) => HandshakeFailure::Alert(alert),
        Ok(rustls::Error::NoCertificatesPresented) => {
            HandshakeFailure::Refused(Refusal::NoCertificate)
        }
        Ok(error) => HandshakeFailure::Tls(error),
        Err(_)
            if matches!(
                kind,
                BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
            ) =>
        {
            HandshakeFailure::HungUp
        }
        Err(error) => HandshakeFailure::Io(error),
    }
}

impl HandshakeFailure {
    /// A word for metrics and rules; it does not change.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Alert(_) => "alert",
            Self::Plaintext => "plaintext",
            Self::Protocol(_) => "protocol",
            Self::NoHttp2 => "no_http2",
            Self::TimedOut(_) => "timed_out",
            Self::HungUp => "hung_up",
            Self::Tls(_) => "tls",
            Self::Io(_) => "io",
        }
    }
}

impl HandshakeError {
    fn log(&self, failed: &'static str) {
        let peer = self.peer.map(tracing::field::display);
        let id = self.id.as_ref().map_or("", SpiffeId::as_str);
        let (why, reason) = (&self.reason, self.reason.reason());
        if matches!(why, HandshakeFailure::HungUp) {
            // Port scans and TCP probes do this all day.
            tracing::debug!(peer, spiffe.id = id, reason, "{failed}: {why}");
        } else {
            tracing::warn!(peer, spiffe.id = id, reason, "{failed}: {why}");
        }
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")?;
        if let Some(peer) = self.peer {
            write!(f, " with {peer}")?;
        }
        match &self.id {
            Some(id) => write!(f, " ({id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for HandshakeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.reason)
    }
}
