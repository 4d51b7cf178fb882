//! A server as a process of its own: bare tonic or the mesh, with the same handler.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};

use super::{busy::Busy, certificates::Certificates, full};

/// A side of the mesh, or bare tonic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// tonic alone.
    Tonic,
    /// The mesh.
    Mesh,
}

impl Kind {
    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Tonic => "tonic",
            Kind::Mesh => "mesh",
        }
    }
}

/// What to serve.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[arg(long)]
    kind: Kind,
    #[arg(long)]
    listen: SocketAddr,
    /// With mTLS, by the certificates in this folder.
    #[arg(long, value_name = "FOLDER")]
    certificates: Option<PathBuf>,
    /// So many workers do the work; a call waits for one of them. The mesh only, as the two below.
    #[arg(long)]
    workers: Option<usize>,
    /// How long a call keeps its worker, in milliseconds.
    #[arg(long, default_value_t = 0)]
    takes_ms: u64,
    /// How many calls the mesh lets in at once, where it is not to find that out.
    #[arg(long)]
    places: Option<usize>,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    let certificates = options.certificates.as_deref().map(Certificates::of);
    match (options.kind, &certificates) {
        (Kind::Mesh, certificates) => {
            let _log = full::log()?;
            let mesh = full::serving(certificates.as_ref(), options.places).await?;
            let (server, service) = (mesh.server(), interop::server::service());
            let server = match options.workers {
                None => server.add(service),
                Some(workers) => {
                    let takes = Duration::from_millis(options.takes_ms);
                    server.add(Busy::new(service, workers, takes))
                }
            };
            server.serve(listener, CancellationToken::new()).await?;
        }
        (Kind::Tonic, None) => {
            Server::builder()
                .add_service(interop::server::service())
                .serve_with_incoming(plain(listener))
                .await?;
        }
        (Kind::Tonic, Some(certificates)) => {
            let acceptor = TlsAcceptor::from(Arc::new(certificates.server()?));
            Server::builder()
                .add_service(interop::server::service())
                .serve_with_incoming(secured(listener, acceptor))
                .await
                .context("serving tonic")?;
        }
    }
    Ok(())
}

fn plain(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async {
        let accepted = accept(&listener).await;
        Some((accepted, listener))
    })
}

async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn secured(
    listener: TcpListener,
    acceptor: TlsAcceptor,
) -> impl Stream<Item = io::Result<Secured>> {
    stream::unfold((listener, acceptor), |(listener, acceptor)| async {
        let accepted = match accept(&listener).await {
            Ok(stream) => acceptor.accept(stream).await.map(Secured),
            Err(error) => Err(error),
        };
        Some((accepted, (listener, acceptor)))
    })
}

/// What tonic wants of a connection, for one that is made without its TLS.
struct Secured(TlsStream<TcpStream>);

impl Connected for Secured {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
