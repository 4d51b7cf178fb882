//! Toss Payments' settings.

use mesh_runtime::config::Secret;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Toss Payments' settings, read only where it is the provider of something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TossConfig {
    /// Where its API is; plain HTTP only on this machine.
    pub url: String,
    /// The secret key, `test_sk_…` or `live_sk_…`.
    pub secret_key: Secret,
    /// The file that holds it, instead.
    pub secret_key_file: Option<PathBuf>,
    /// The first day whose transactions are listed, `YYYY-MM-DD` in Korea's time.
    pub transactions_from: String,
    /// How long connecting may take, in milliseconds.
    pub connect_timeout_ms: u32,
}

impl Default for TossConfig {
    fn default() -> Self {
        Self {
            url: "https://api.tosspayments.com".to_owned(),
            secret_key: Secret::default(),
            secret_key_file: None,
            transactions_from: "2020-01-01".to_owned(),
            connect_timeout_ms: 5_000,
        }
    }
}
