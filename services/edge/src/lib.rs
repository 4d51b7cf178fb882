//! The REST edge: HTTP and JSON outside, gRPC through the mesh inside.
//!
//! Generic: routes, fields, documentation, audiences and streaming kinds are read from the descriptor set
//! of the contract, so that a new service or field needs no line here. It authenticates clients, turns
//! their requests into calls on their behalf, and answers errors as `google.rpc.Status` JSON.
//!
//! Deliberately without: a database, anything service-specific, TLS (an ingress terminates it), CORS.

mod api;
mod app;
mod auth;
mod call;
mod codec;
pub mod config;
mod download;
mod error;
mod guard;
mod health;
mod linger;
mod metrics;
mod negotiate;
mod pages;
mod request;
mod server;
mod socket;
mod status_json;
mod upload;

use anyhow::Context as _;
use mesh::Mesh;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use auth::KeyFileError;
pub use config::Config;
pub use guard::check_exposure;

/// Serves the contract of `mesh` over HTTP until `shutdown`, then drains.
///
/// Refuses to start without a key file on an address that is not loopback, unless told so by
/// `insecure`; with a key file that cannot be read; and without an address for every service it routes to.
pub async fn run(
    config: Config,
    mesh: Mesh,
    registry: &Registry,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    config.validate()?;
    let address = listener
        .local_addr()
        .context("the listener has no address")?;
    guard::check_exposure(&config, address)?;
    let keys = auth::Keys::load(&config.keys)?;
    let reloading = mesh::spawn(keys.clone().reload(config.keys.clone(), shutdown.clone()));
    let app = app::App::new(config, mesh, keys, registry, shutdown)?;
    tracing::info!(%address, routes = app.router.endpoints().len(), "edge is listening");
    server::serve(listener, app).await;
    reloading.await.context("the key reloader panicked")
}
