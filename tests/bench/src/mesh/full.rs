//! The mesh with everything that it has switched on, what is off unless configured too, as both sides of it run here.

use anyhow::Result;
use mesh::{
    Config, Mesh, OverloadConfig, RateLimitRule,
    identity::{FilesConfig, Mode, PolicyConfig},
};
use mesh_runtime::telemetry::{self, Telemetry, TelemetryConfig};
use prometheus::Registry;

use super::{DESTINATION, certificates::Certificates};

/// The mesh of a client, with the metrics that a service has.
pub(crate) async fn calling(address: &str, certificates: Option<&Certificates>) -> Result<Mesh> {
    let mut config = config();
    let destinations = &mut config.destinations;
    destinations.insert(DESTINATION.to_owned(), format!("http://{address}"));
    identify(&mut config, certificates, "client");
    open(config).await
}

/// The mesh of a server. With `places` it works on so many calls at once and lets none wait, instead of finding out what
/// it can bear.
pub(crate) async fn serving(
    certificates: Option<&Certificates>,
    places: Option<usize>,
) -> Result<Mesh> {
    let mut config = config();
    if let Some(places) = places {
        config.server.overload = OverloadConfig {
            limit_initial: places,
            limit_min: places,
            limit_max: places,
            waiting_max: 0,
            ..OverloadConfig::default()
        };
    }
    identify(&mut config, certificates, "server");
    open(config).await
}

/// With certificates, those of this side and mTLS.
fn identify(config: &mut Config, certificates: Option<&Certificates>, side: &str) {
    if let Some(certificates) = certificates {
        let file = |name: &str| certificates.file(name).into();
        config.identity.mode = Mode::Strict;
        config.identity.files = Some(FilesConfig {
            certificate: file(&format!("{side}.pem")),
            key: file(&format!("{side}.key")),
            bundle: file("authority.pem"),
            ..FilesConfig::default()
        });
        config.identity.policy = Some(PolicyConfig {
            file: file("policy.toml"),
            ..PolicyConfig::default()
        });
    }
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
    // Each call is counted, and none is too many.
    let limit = RateLimitRule {
        per_s: 1e6,
        burst: 1_000_000,
        ..RateLimitRule::default()
    };
    let limits = &mut config.server.rate_limits.rules;
    limits.insert("every caller".to_owned(), limit);
    config.server.faults.headers_allowed = true;
    config
}

async fn open(config: Config) -> Result<Mesh> {
    Ok(Mesh::start(config, interop::contract(), &Registry::new()).await?)
}
