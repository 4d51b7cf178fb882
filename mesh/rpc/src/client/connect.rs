//! The bytes under a connection: TCP, with TLS over it where identity asks for it.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use http::uri::Scheme;
use mesh_identity::{Accepted, Expected, PeerGuard};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::discovery::Target;
use crate::{identities::Identities, live::Live};

/// What a connection reads from and writes to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A byte stream to an endpoint, and what watches who is at its other end.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) guard: PeerGuard,
}

pub(crate) type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Opened>> + Send + 'a>>;

/// Opens the byte stream to an endpoint. Its time is limited by the caller.
pub(crate) trait Connect: Send + Sync + 'static {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a>;

    /// What requests to an endpoint say in `:scheme`.
    fn scheme(&self, target: &Target) -> Scheme;
}

/// Over the network, encrypted as mode and endpoint say: never in mode `off`, where the endpoint says so
/// in `permissive`, always in `strict`. A name is resolved anew for each connection, and its addresses
/// tried in turn.
///
/// The server has to be one of those that the endpoint's `;id=` names, or of the own trust domain.
pub(crate) struct Network {
    identities: Arc<Identities>,
    live: Live,
}

impl Network {
    pub(crate) fn new(identities: Arc<Identities>, live: Live) -> Self {
        Self { identities, live }
    }

    async fn open(&self, target: &Target) -> io::Result<Accepted> {
        let connector = match &self.identities.connector {
            Some(connector) if self.encrypts(target) => Some(connector),
            // In a file, where the configuration could not be checked, or in a configuration that came later, with a
            // mode that needs a restart.
            None if target.tls => {
                let reason = "the endpoint speaks TLS, and mesh.identity.mode is off";
                return Err(io::Error::other(reason));
            }
            _ => None,
        };
        let stream = TcpStream::connect(&*target.address).await?;
        stream.set_nodelay(true)?;
        let Some(connector) = connector else {
            return Ok(Accepted::plaintext(stream));
        };
        let expected = Expected::one_of(target.ids.iter().cloned());
        // A handshake has no more time than the whole of connecting.
        let patience = Duration::from_millis(self.live.load().client.connect_timeout_ms);
        let connected = connector.connect(stream, &expected, patience).await;
        connected.map_err(|error| io::Error::other(format!("{error}: {}", error.reason)))
    }

    fn encrypts(&self, target: &Target) -> bool {
        self.identities.mode.encrypts(target.tls)
    }
}

impl Connect for Network {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async {
            let Accepted { stream, guard, .. } = self.open(target).await?;
            Ok(Opened {
                stream: Box::new(stream),
                guard,
            })
        })
    }

    fn scheme(&self, target: &Target) -> Scheme {
        if self.encrypts(target) {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }
}
