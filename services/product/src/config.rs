//! Configuration: plain structs, every field with a default.

use mesh_events::{ConsumerConfig, RelayConfig};
use mesh_store::{PostgresConfig, SqliteConfig};
use serde::{Deserialize, Serialize};

/// The service, wherever it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The database file, where no PostgreSQL is named.
    pub store: SqliteConfig,
    /// The database that replicas share; used when its URL is not empty.
    pub postgres: PostgresConfig,
    /// What a shared database needs beside its connections.
    pub shared: SharedConfig,
    /// How long a reservation holds when the caller does not say, in milliseconds.
    pub reservation_ttl_default_ms: u32,
    /// Import and export of files.
    pub transfer: TransferConfig,
    /// Watching changes.
    pub watch: WatchConfig,
    /// Expiry and retention.
    pub sweep: SweepConfig,
    /// Publishing events.
    pub relay: RelayConfig,
    /// Consuming payment events.
    pub consumer: ConsumerConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: SqliteConfig {
                path: "data/product.db".into(),
                ..SqliteConfig::default()
            },
            postgres: PostgresConfig::default(),
            shared: SharedConfig::default(),
            reservation_ttl_default_ms: 15 * 60 * 1000,
            transfer: TransferConfig::default(),
            watch: WatchConfig::default(),
            sweep: SweepConfig::default(),
            relay: RelayConfig::default(),
            consumer: ConsumerConfig::default(),
        }
    }
}

/// What a shared database needs beside its connections. SQLite uses none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SharedConfig {
    /// Reservations of the same SKU queue in the same of so many lanes. Each lane uses a connection.
    pub lanes: usize,
    /// Reads of single products queue in so many lanes, and those that queue are read together. Each lane uses a
    /// connection.
    pub read_lanes: usize,
    /// Reservations or reads that queue in each lane; further ones are refused.
    pub queue_max: usize,
    /// Reservations that are committed together, or products that are read together, at most.
    pub batch_max: usize,
    /// How often something is decided at most when others are faster.
    pub attempts_max: u32,
    /// How often to look for changes that another replica wrote, in milliseconds.
    pub revisions_poll_ms: u64,
}

impl Default for SharedConfig {
    fn default() -> Self {
        Self {
            lanes: 8,
            read_lanes: 4,
            queue_max: 1_024,
            batch_max: 64,
            attempts_max: 20,
            revisions_poll_ms: 200,
        }
    }
}

/// Limits of import and export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TransferConfig {
    /// The largest file, in bytes.
    pub file_bytes_max: u64,
    /// The most rows of a file, without its header.
    pub rows_max: u64,
    /// The most columns of a file.
    pub columns_max: usize,
    /// The longest field, in bytes.
    pub field_bytes_max: usize,
    /// Rows that are written in one transaction, about.
    pub batch_rows: usize,
    /// Refused rows that are reported one by one.
    pub refused_max: usize,
    /// Products that are read at a time for export.
    pub page_products: usize,
    /// The largest piece of an exported file, in bytes.
    pub piece_bytes_max: usize,
}

impl Default for TransferConfig {
    fn default() -> Self {
        Self {
            file_bytes_max: 64 << 20,
            rows_max: 1_000_000,
            columns_max: 500,
            field_bytes_max: 512 << 10, // A description of 65,536 characters fits in any script.
            batch_rows: 100, // Others wait for the writer meanwhile: a few hundredths of a second.
            refused_max: 1_000,
            page_products: 100,
            piece_bytes_max: 256 << 10,
        }
    }
}

/// Limits of watching.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// The most watchers at a time.
    pub watchers_max: usize,
    /// Changes that are read at a time for a watcher.
    pub batch_max: usize,
    /// How often to look for changes that another process wrote, in milliseconds.
    pub poll_ms: u64,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            watchers_max: 1_000,
            batch_max: 64,
            poll_ms: 1_000,
        }
    }
}

/// Expiry and retention.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepConfig {
    /// How long to rest between two rounds, in milliseconds.
    pub interval_ms: u64,
    /// Holds or rows of a table in one transaction.
    pub batch_max: u32,
    /// How long stored answers are kept, in hours; callers are promised 24.
    pub answers_hours: u32,
    /// How long ids of applied events are kept, in hours. Longer than any event can be late.
    pub inbox_hours: u32,
    /// How long changes are kept for those who resume watching, in hours.
    pub changes_hours: u32,
    /// How long reservations that hold nothing any more are kept, in hours. Longer than refunds take.
    pub reservations_hours: u32,
}

impl Default for SweepConfig {
    fn default() -> Self {
        Self {
            interval_ms: 1_000,
            batch_max: 200,
            answers_hours: 48,
            inbox_hours: 90 * 24,
            changes_hours: 7 * 24,
            reservations_hours: 400 * 24,
        }
    }
}
