//! What the program reads from file, environment and flags; every key has a default.

use crate::data_dir::Storage;
use edge::config::{ApiConfig, KeysConfig, LimitsConfig};
use mesh_runtime::telemetry::TelemetryConfig;
use mesh_store::SqliteConfig;
use payment::ServiceConfig;
use payment::provider::simulator::SimulatorConfig;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// The whole shop.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where REST clients connect. Default: 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are served. Default: 127.0.0.1:9080.
    pub admin_listen: SocketAddr,
    /// The folder of the databases, created when missing. Relative database paths below are taken
    /// from here.
    pub data_dir: PathBuf,
    /// Keep the data in a temporary folder instead, which is removed at the end. Default: false.
    pub ephemeral: bool,
    /// Whether a new shop starts with the sample catalogue.
    pub sample: bool,
    /// The log.
    pub telemetry: TelemetryConfig,
    /// Limits of the mesh; destinations are filled in.
    pub mesh: mesh::Config,
    /// The product service.
    pub product: product::Config,
    /// The payment service.
    pub payment: ServiceConfig,
    /// The provider that moves no real money.
    pub simulator: SimulatorConfig,
    /// The simulator's own journal.
    pub simulator_journal: SqliteConfig,
    /// The REST edge.
    pub edge: EdgeConfig,
}

/// The REST edge, as far as it is not told by the rest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeConfig {
    /// Serve without a key file on an address that others can reach: everybody is then anonymous and
    /// may do everything. Default: false.
    pub insecure: bool,
    /// API keys.
    pub keys: KeysConfig,
    /// What one request may take.
    pub limits: LimitsConfig,
    /// What the documentation says about the API as a whole.
    pub api: ApiConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9080)),
            data_dir: "data".into(),
            ephemeral: false,
            sample: true,
            telemetry: TelemetryConfig {
                filter: "warn".to_owned(),
                ..TelemetryConfig::default()
            },
            mesh: mesh::Config::default(),
            product: product::Config {
                store: SqliteConfig {
                    path: "product.db".into(),
                    ..SqliteConfig::default()
                },
                ..product::Config::default()
            },
            payment: ServiceConfig {
                database: SqliteConfig {
                    path: "payment.db".into(),
                    ..SqliteConfig::default()
                },
                ..ServiceConfig::default()
            },
            simulator: SimulatorConfig::default(),
            simulator_journal: SqliteConfig {
                path: "simulator.db".into(),
                ..SqliteConfig::default()
            },
            edge: EdgeConfig::default(),
        }
    }
}

impl Config {
    /// Where the data is kept.
    pub(crate) fn storage(&self) -> Storage {
        if self.ephemeral {
            Storage::Ephemeral
        } else {
            Storage::Folder(self.data_dir.clone())
        }
    }

    /// The same with every database path taken from `folder`.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        for database in [
            &mut self.product.store,
            &mut self.payment.database,
            &mut self.simulator_journal,
        ] {
            database.path = folder.join(&database.path);
        }
        self
    }

    pub(crate) fn edge(&self) -> edge::Config {
        let EdgeConfig {
            insecure,
            keys,
            limits,
            api,
        } = self.edge.clone();
        edge::Config {
            listen: self.listen,
            admin_listen: self.admin_listen,
            insecure,
            keys,
            limits,
            api,
            ..edge::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_lie_in_the_data_directory() {
        let config = Config::default().within(Path::new("/somewhere"));
        let paths = [
            &config.product.store.path,
            &config.payment.database.path,
            &config.simulator_journal.path,
        ];
        let names = ["product.db", "payment.db", "simulator.db"];
        for (path, name) in paths.into_iter().zip(names) {
            assert_eq!(path, &Path::new("/somewhere").join(name));
        }
    }

    #[test]
    fn the_default_is_reachable_from_this_machine_only() {
        let config = Config::default();
        assert!(config.listen.ip().is_loopback() && config.admin_listen.ip().is_loopback());
        assert!(!config.edge.insecure);
    }
}
