//! The log: pretty on a terminal, JSON lines elsewhere, always on stderr.
//!
//! Metrics are each crate's own, registered in the registry that `main` hands around and served by
//! [`crate::admin`]; [`export_metrics`] sends them to a collector too. Traces go to a collector where OpenTelemetry's environment variables say so (`otlp.rs`), and
//! nowhere otherwise: then the spans for it are never opened. Log lines carry trace ids in either case.

mod line;
mod otlp;
mod otlp_metrics;

use std::{
    env,
    io::{self, IsTerminal as _},
};

pub use line::LineContext;
pub use otlp_metrics::MetricsExport;
use prometheus::Registry;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, fmt, layer::SubscriberExt as _, registry::LookupSpan,
    util::SubscriberInitExt as _,
};

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
    /// A variable of OpenTelemetry.
    #[error("{key} \"{value}\" cannot be read")]
    Variable {
        /// Its name.
        key: &'static str,
        /// As set.
        value: String,
    },
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` cannot be used.
    #[error("traces cannot be exported as OTEL_EXPORTER_OTLP_ENDPOINT says")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The thread that exports metrics.
    #[error("the thread that exports metrics cannot be started")]
    Thread(#[source] io::Error),
    /// Somebody else has set up the log.
    #[error("the log is set up already")]
    AlreadySet,
}

/// What has to end with the process: dropped, it sends the last spans, for at most two seconds.
#[derive(Debug)]
#[must_use = "dropped at once, it ends the export of traces"]
pub struct Telemetry {
    _flush: Option<otlp::Flush>,
}

/// Sets up the log of this process, and the export of traces where the environment asks for it. `context` tells what a
/// line says beside its own fields. To be called once, in `main`, inside a multi-threaded runtime; tests may do without.
pub fn init(config: &TelemetryConfig, context: LineContext) -> Result<Telemetry, TelemetryError> {
    init_as(config, context, environment())
}

/// OpenTelemetry's variables, as they are now.
fn environment() -> impl Fn(&str) -> Option<String> {
    let set = env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        name.starts_with("OTEL_")
            .then(|| (name, value.to_string_lossy().into_owned()))
    });
    let set: Vec<_> = set.collect();
    move |name| {
        let found = set.iter().find(|(held, _)| held == name);
        found.map(|(_, value)| value.clone())
    }
}

/// Sends what the registry holds to a collector as well, where the environment asks for it; `None`: it does not.
pub fn export_metrics(registry: &Registry) -> Result<Option<MetricsExport>, TelemetryError> {
    let variable = environment();
    let Some(asked) = otlp_metrics::Asked::read(&variable)? else {
        return Ok(None);
    };
    let resource = otlp::resource(variable("OTEL_SERVICE_NAME").as_deref(), program());
    let exporting = asked.export(registry, otlp_metrics::resource(&resource));
    exporting.map(Some).map_err(TelemetryError::Thread)
}

/// The name of the running program.
fn program() -> String {
    let program = env::current_exe().ok();
    let program = program.as_ref().and_then(|path| path.file_stem());
    program.map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// [`init`] with variables of the caller's own. What is sent along with each request (`OTEL_EXPORTER_OTLP_HEADERS`, …) is
/// read from the environment all the same.
pub fn init_as(
    config: &TelemetryConfig,
    context: LineContext,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Telemetry, TelemetryError> {
    let filter = filter(config)?;
    let registry = tracing_subscriber::registry();
    let Some(traces) = otlp::Traces::asked(variable)? else {
        // One filter for all, so that what nobody logs costs one comparison.
        let registry = registry.with(filter).with(log(config.format, context));
        registry
            .try_init()
            .map_err(|_| TelemetryError::AlreadySet)?;
        return Ok(Telemetry { _flush: None });
    };
    let (spans, flush) = traces.layer(program())?;
    registry
        .with(log(config.format, context).with_filter(filter))
        .with(spans.with_filter(filter_fn(otlp::is_wanted)))
        .try_init()
        .map_err(|_| TelemetryError::AlreadySet)?;
    Ok(Telemetry {
        _flush: Some(flush),
    })
}

fn log<S>(format: Format, context: LineContext) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
{
    let on_terminal = io::stderr().is_terminal();
    match format.resolve(on_terminal) {
        Format::Json => fmt::layer()
            .json()
            .event_format(line::json(context))
            .with_writer(io::stderr)
            .boxed(),
        Format::Pretty | Format::Auto => fmt::layer()
            .event_format(line::pretty(context, on_terminal))
            .with_ansi(on_terminal)
            .with_writer(io::stderr)
            .boxed(),
    }
}

fn filter(config: &TelemetryConfig) -> Result<EnvFilter, TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|source| TelemetryError::Filter {
        filter: config.filter.clone(),
        source,
    })?;
    // The spans for collectors say nothing to whoever reads the log: their ids are numbers there.
    Ok(filter.add_directive("mesh::span=off".parse().expect("a directive")))
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
        let error = init(&config, |_| {}).unwrap_err().to_string();
        assert_eq!(error, "telemetry.filter \"mesh=loud\" cannot be read");
    }

    #[test]
    fn the_second_set_up_is_refused() {
        let config = TelemetryConfig {
            filter: "off".into(),
            ..TelemetryConfig::default()
        };
        let _telemetry = init(&config, |_| {}).unwrap();
        assert!(matches!(
            init(&config, |_| {}),
            Err(TelemetryError::AlreadySet)
        ));
    }
}
