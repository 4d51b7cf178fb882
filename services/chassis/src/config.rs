//! Configuration: plain structs, every field with a default.

use std::net::{Ipv4Addr, SocketAddr};

use mesh_events::{ConsumerConfig, RelayConfig};
use mesh_rabbitmq::RabbitMqConfig;
use mesh_runtime::telemetry::TelemetryConfig;
use mesh_store::{PostgresConfig, SqliteConfig};
use serde::{Deserialize, Serialize};

/// The service, wherever it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The database file, where no PostgreSQL is named; one for each service.
    pub store: SqliteConfig,
    /// The database that replicas share; used when its URL is not empty.
    pub postgres: PostgresConfig,
    /// How long answers and message ids are kept.
    pub sweep: SweepConfig,
    /// Publishing events.
    pub relay: RelayConfig,
    /// Taking events.
    pub consumer: ConsumerConfig,
}

/// Retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepConfig {
    /// How long to rest between two rounds, in milliseconds.
    pub interval_ms: u64,
    /// Rows of a table in one transaction.
    pub batch_max: u32,
    /// How long stored answers are kept, in hours; callers are promised 24.
    pub answers_hours: u32,
    /// How long ids of applied events are kept, in hours. Longer than any event can be late.
    pub inbox_hours: u32,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self {
            interval_ms: 10_000,
            batch_max: 200,
            answers_hours: 48,
            inbox_hours: 90 * 24,
        }
    }
}

/// The service as a process of its own; `S` is the configuration of the service itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process<S = Config> {
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub admin_listen: SocketAddr,
    /// Logs.
    pub telemetry: TelemetryConfig,
    /// The mesh.
    pub mesh: mesh::Config,
    /// The broker that carries events.
    pub bus: RabbitMqConfig,
    /// The service itself.
    pub service: S,
}

impl<S: Default> Default for Process<S> {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9051)),
            telemetry: TelemetryConfig::default(),
            mesh: mesh::Config::default(),
            bus: RabbitMqConfig::default(),
            service: S::default(),
        }
    }
}
