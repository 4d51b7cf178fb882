//! The bytes under a connection: TCP.
//!
//! The seam for TLS: another [`Connect`] that opens TCP with this one, shakes hands with a rustls
//! `ClientConfig` (ALPN `h2`, the name of `target.authority`), and says that its scheme is https.

use std::{future::Future, io, pin::Pin};

use http::uri::Scheme;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::discovery::Target;

/// What a connection reads from and writes to.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(crate) type Connecting<'a> =
    Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send + 'a>>;

/// Opens the byte stream to an endpoint. Its time is limited by the caller.
pub(crate) trait Connect: Send + Sync + 'static {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a>;

    /// What requests say in `:scheme`.
    fn scheme(&self) -> Scheme {
        Scheme::HTTP
    }
}

/// Without encryption. A name is resolved anew for each connection, and its addresses tried in turn.
pub(crate) struct Tcp;

impl Connect for Tcp {
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        Box::pin(async {
            let stream = TcpStream::connect(&*target.address).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}
