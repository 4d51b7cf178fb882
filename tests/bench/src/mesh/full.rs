//! The mesh with everything that it has switched on, as both sides of it run here.

use anyhow::{Result, bail};
use mesh::{Config, Mesh};
use mesh_runtime::telemetry::TelemetryConfig;
use prometheus::Registry;

use super::{DESTINATION, certificates::Certificates};

/// A mesh of a process of its own, with the log and the metrics that a service has; `address` is what it calls.
pub(crate) fn mesh(address: Option<&str>, certificates: Option<&Certificates>) -> Result<Mesh> {
    let mut config = config();
    if let Some(address) = address {
        config
            .destinations
            .insert(DESTINATION.to_owned(), format!("http://{address}"));
    }
    if let Some(certificates) = certificates {
        secure(&mut config, certificates)?;
    }
    open(config)
}

/// A mesh that knows the endpoints of a destination as `mesh.destinations` has it.
pub(crate) fn knowing(destination: &str) -> Result<Mesh> {
    let mut config = config();
    config
        .destinations
        .insert(DESTINATION.to_owned(), destination.to_owned());
    open(config)
}

fn config() -> Config {
    let mut config = Config::default();
    config.client.hedge.enabled = true;
    config
}

fn open(config: Config) -> Result<Mesh> {
    mesh_runtime::telemetry::init(&TelemetryConfig::default())?;
    Ok(Mesh::new(config, interop::contract(), &Registry::new())?)
}

/// Why the mesh is not measured with mTLS; `None`: it is.
pub(crate) const WITHOUT_TLS: Option<&str> =
    Some("this version of the mesh has no TLS of its own yet");

/// Mutual TLS between both sides: the place where identity is switched on.
fn secure(_config: &mut Config, _certificates: &Certificates) -> Result<()> {
    match WITHOUT_TLS {
        Some(reason) => bail!(reason),
        None => Ok(()),
    }
}
