//! The mesh with everything that it has switched on, as both sides of it run here.

use anyhow::Result;
use mesh::{
    Config, Mesh,
    identity::{FilesConfig, Mode},
};
use mesh_runtime::telemetry::{self, Telemetry, TelemetryConfig};
use prometheus::Registry;

use super::{DESTINATION, certificates::Certificates};

/// A mesh of a process of its own, with the metrics that a service has; `address` is what it calls, `side` whose
/// certificate it shows.
pub(crate) async fn mesh(
    address: Option<&str>,
    certificates: Option<&Certificates>,
    side: &str,
) -> Result<Mesh> {
    let mut config = config();
    if let Some(address) = address {
        let destinations = &mut config.destinations;
        destinations.insert(DESTINATION.to_owned(), format!("http://{address}"));
    }
    if let Some(certificates) = certificates {
        let file = |name: &str| certificates.file(name).into();
        config.identity.mode = Mode::Strict;
        config.identity.files = Some(FilesConfig {
            certificate: file(&format!("{side}.pem")),
            key: file(&format!("{side}.key")),
            bundle: file("authority.pem"),
            ..FilesConfig::default()
        });
    }
    open(config).await
}

/// A mesh that knows the endpoints of a destination as `mesh.destinations` has it.
pub(crate) async fn knowing(destination: &str) -> Result<Mesh> {
    let mut config = config();
    config
        .destinations
        .insert(DESTINATION.to_owned(), destination.to_owned());
    open(config).await
}

/// The log that a service has.
pub(crate) fn log() -> Result<Telemetry> {
    Ok(telemetry::init(
        &TelemetryConfig::default(),
        mesh::log_context,
    )?)
}

fn config() -> Config {
    let mut config = Config::default();
    config.client.hedge.enabled = true;
    config
}

async fn open(config: Config) -> Result<Mesh> {
    Ok(Mesh::start(config, interop::contract(), &Registry::new()).await?)
}
