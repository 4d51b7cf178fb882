//! The log: pretty on a terminal, JSON lines elsewhere, always on stderr.
//!
//! Metrics are each crate's own, registered in the registry that `main` hands around and served by
//! [`crate::admin`]. Deliberately without an exporter of traces: spans are written as fields of log lines.

use std::io::{self, IsTerminal as _};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// What is logged, and how it looks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// What is logged: a level, or `target=level` pairs, as in `info,mesh=debug`. Default: `info`.
    pub filter: String,
    /// How a line looks. Default: `auto`.
    pub format: Format,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            filter: "info,lapin=error".to_owned(), // lapin warns with the bodies of returned messages.
            format: Format::Auto,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Pretty where stderr is a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object per line, for machines.
    Json,
}

impl Format {
    fn resolve(self, on_terminal: bool) -> Self {
        match self {
            Self::Auto if on_terminal => Self::Pretty,
            Self::Auto => Self::Json,
            stated => stated,
        }
    }
}

/// Why nothing will be logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Neither a level nor pairs of target and level.
    #[error("telemetry.filter \"{filter}\" cannot be read")]
    Filter {
        /// As configured.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Somebody else has set up the log.
    #[error("the log is set up already")]
    AlreadySet,
}

/// Sets up the log of this process. To be called once, in `main`; tests may do without.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let registry = tracing_subscriber::registry().with(filter(config)?);
    match config.format.resolve(io::stderr().is_terminal()) {
        Format::Json => registry
            .with(
                fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_span_list(false)
                    .with_writer(io::stderr),
            )
            .try_init(),
        Format::Pretty | Format::Auto => registry
            .with(
                fmt::layer()
                    .compact()
                    .with_ansi(io::stderr().is_terminal())
                    .with_writer(io::stderr),
            )
            .try_init(),
    }
    .map_err(|_| TelemetryError::AlreadySet)
}

fn filter(config: &TelemetryConfig) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(&config.filter).map_err(|source| TelemetryError::Filter {
        filter: config.filter.clone(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_looks_at_the_terminal_and_a_stated_format_does_not() {
        assert_eq!(Format::Auto.resolve(true), Format::Pretty);
        assert_eq!(Format::Auto.resolve(false), Format::Json);
        assert_eq!(Format::Json.resolve(true), Format::Json);
        assert_eq!(Format::Pretty.resolve(false), Format::Pretty);
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let config = TelemetryConfig {
            filter: "mesh=loud".into(),
            ..TelemetryConfig::default()
        };
        let error = init(&config).unwrap_err().to_string();
        assert_eq!(error, "telemetry.filter \"mesh=loud\" cannot be read");
    }

    #[test]
    fn the_second_set_up_is_refused() {
        let config = TelemetryConfig {
            filter: "off".into(),
            ..TelemetryConfig::default()
        };
        init(&config).unwrap();
        assert!(matches!(init(&config), Err(TelemetryError::AlreadySet)));
    }
}
