//! Spans to an OpenTelemetry collector, by OTLP over gRPC, where the standard environment variables ask for it:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) says where to, `OTEL_SDK_DISABLED` and
//! `OTEL_TRACES_EXPORTER=none` say no; `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER` with
//! `…_ARG`, `OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT` and `OTEL_BSP_*` mean what OpenTelemetry says of them.
//!
//! Ids come from whoever opens a span: the mesh writes those that travel in `traceparent` into the fields `otel.trace`,
//! `otel.span`, `otel.parent` and `otel.sampled`. Other spans, of a handler's own, become children of the span they are
//! opened in. Whether a trace is sampled by ratio follows from its id alone, so that every process with the same ratio
//! decides the same without a word; what an outer caller has not sampled stays so under a `parentbased_` sampler.
//!
//! Deliberately without: metrics (`otlp_metrics.rs`), logs by OTLP (stderr is there), TLS to the collector (it stands
//! beside the process), spans of libraries below INFO.

use std::{fmt, sync::Arc, time::Duration};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{
        BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, SpanData, SpanEvents, SpanLinks,
        SpanProcessor,
    },
};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::TelemetryError;

/// How long the last spans may take to leave when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// The target of the spans that the mesh makes for export only, and that no log shows at INFO.
const TARGET: &str = "mesh::span";
/// Attributes of one span; more are counted and dropped.
const ATTRIBUTES_MAX: usize = 64;

/// What the environment says of traces.
#[derive(Debug, PartialEq)]
pub(super) struct Traces {
    endpoint: String,
    service_name: Option<String>,
    sampler: Sampler,
}

/// Which traces are exported.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sampler {
    /// Whether what the caller has not sampled is left out.
    parent_based: bool,
    /// From 0 to 1.
    ratio: f64,
}

impl Traces {
    /// `None`: no export is asked for.
    pub(super) fn asked(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TelemetryError> {
        let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
        let says = |name: &str, text: &str| {
            variable(name).is_some_and(|value| value.eq_ignore_ascii_case(text))
        };
        if says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(endpoint) = endpoint else {
            return Ok(None);
        };
        let name = variable("OTEL_TRACES_SAMPLER");
        let argument = variable("OTEL_TRACES_SAMPLER_ARG");
        let sampler = Sampler::named(
            name.as_deref().unwrap_or("parentbased_always_on"),
            argument.as_deref(),
        )?;
        Ok(Some(Self {
            endpoint,
            service_name: variable("OTEL_SERVICE_NAME"),
            sampler,
        }))
    }

    /// Opens the way to the collector, which need not be there yet. Needs a tokio runtime.
    pub(super) fn layer(self, program: String) -> Result<(Spans, Flush), ExporterBuildError> {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(self.endpoint)
            .build()?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource(self.service_name.as_deref(), program));
        let processor = Arc::new(processor);
        let spans = Spans {
            processor: processor.clone(),
            sampler: self.sampler,
            scope: InstrumentationScope::builder("commerce-mesh")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            ids: RandomIdGenerator::default(),
        };
        Ok((spans, Flush(processor)))
    }
}

/// Who it is that exports: the service's name, or the program's where the environment gives none, and
/// `OTEL_RESOURCE_ATTRIBUTES`.
pub(super) fn resource(service_name: Option<&str>, program: String) -> Resource {
    let resource = Resource::builder();
    match service_name {
        Some(_) => resource.build(), // It reads the variable itself.
        None => resource.with_service_name(program).build(),
    }
}

impl Sampler {
    fn named(name: &str, argument: Option<&str>) -> Result<Self, TelemetryError> {
        let unknown = |key: &'static str, value: &str| TelemetryError::Variable {
            key,
            value: value.to_owned(),
        };
        let (parent_based, kind) = match name.strip_prefix("parentbased_") {
            Some(kind) => (true, kind),
            None => (false, name),
        };
        let ratio = match (kind, argument) {
            ("always_on", _) | ("traceidratio", None) => 1.0,
            ("always_off", _) => 0.0,
            ("traceidratio", Some(text)) => text
                .parse()
                .ok()
                .filter(|ratio| (0.0..=1.0).contains(ratio))
                .ok_or_else(|| unknown("OTEL_TRACES_SAMPLER_ARG", text))?,
            _ => return Err(unknown("OTEL_TRACES_SAMPLER", name)),
        };
        Ok(Self {
            parent_based,
            ratio,
        })
    }

    /// As OpenTelemetry's `TraceIdRatioBased`: the lower half of the id, as a share of all there are.
    fn takes(self, trace: u128, sampled: bool) -> bool {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "the lower half is meant, and a ratio is no exact number"
        )]
        let share = (trace as u64) as f64 / u64::MAX as f64;
        (sampled || !self.parent_based) && (self.ratio >= 1.0 || share < self.ratio)
    }
}

/// Sends what is still there, for at most [`FLUSH_TIMEOUT`].
pub(super) struct Flush(Arc<BatchSpanProcessor>);

impl Drop for Flush {
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

impl fmt::Debug for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flush")
    }
}

/// Makes OpenTelemetry's spans of tracing's.
pub(super) struct Spans {
    processor: Arc<BatchSpanProcessor>,
    sampler: Sampler,
    scope: InstrumentationScope,
    ids: RandomIdGenerator,
}

/// Whether a span is one for collectors: made for them by the mesh, or a program's own.
pub(super) fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    metadata.is_span()
        && (target == TARGET
            || (*metadata.level() <= tracing::Level::INFO
                && !target.starts_with("mesh::")
                && !target.starts_with("mesh_")))
}

/// A span that is open.
struct Open {
    ids: Ids,
    /// `None`: it is not sampled.
    draft: Option<Box<Draft>>,
}

#[derive(Clone, Copy, Default)]
struct Ids {
    trace: u128,
    span: u64,
    parent: u64,
    sampled: bool,
}

/// What the fields of a span have said so far.
struct Draft {
    begun: std::time::SystemTime,
    name: Option<String>,
    kind: SpanKind,
    failed: bool,
    link: Option<Link>,
    attributes: Vec<KeyValue>,
    dropped: u32,
}

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let above = span.parent().and_then(|parent| {
            let extensions = parent.extensions();
            extensions.get::<Open>().map(|open| open.ids)
        });
        let mut fields = Fields {
            ids: Ids::default(),
            draft: Draft {
                begun: opentelemetry::time::now(),
                name: None,
                kind: SpanKind::Internal,
                failed: false,
                link: None,
                attributes: Vec::new(),
                dropped: 0,
            },
        };
        attributes.record(&mut fields);
        let Fields { mut ids, draft } = fields;
        if ids.trace == 0 {
            let new = || u128::from_be_bytes(self.ids.new_trace_id().to_bytes());
            ids = Ids {
                trace: above.map_or_else(new, |above| above.trace),
                span: u64::from_be_bytes(self.ids.new_span_id().to_bytes()),
                parent: above.map_or(0, |above| above.span),
                sampled: above.is_none_or(|above| above.sampled),
            };
        }
        let sampled = self.sampler.takes(ids.trace, ids.sampled);
        span.extensions_mut().insert(Open {
            ids,
            draft: sampled.then(|| Box::new(draft)),
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(open) = extensions.get_mut::<Open>()
            && let Some(draft) = &mut open.draft
        {
            values.record(&mut **draft);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let open = span.extensions_mut().remove::<Open>();
        if let Some(Open {
            ids,
            draft: Some(draft),
        }) = open
        {
            self.processor
                .on_end(self.finished(ids, *draft, span.name()));
        }
    }
}

impl Spans {
    fn finished(&self, ids: Ids, draft: Draft, name: &'static str) -> SpanData {
        let mut links = SpanLinks::default();
        links.links.extend(draft.link);
        SpanData {
            span_context: context(ids.trace, ids.span, false),
            parent_span_id: SpanId::from(ids.parent),
            parent_span_is_remote: matches!(draft.kind, SpanKind::Server | SpanKind::Consumer),
            span_kind: draft.kind,
            name: draft.name.map_or(name.into(), Into::into),
            start_time: draft.begun,
            end_time: opentelemetry::time::now(),
            attributes: draft.attributes,
            dropped_attributes_count: draft.dropped,
            events: SpanEvents::default(),
            links,
            status: if draft.failed {
                Status::error("")
            } else {
                Status::Unset
            },
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// Of a span that is sampled.
fn context(trace: u128, span: u64, remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from(trace),
        SpanId::from(span),
        TraceFlags::SAMPLED,
        remote,
        TraceState::NONE,
    )
}

/// Reads the fields of a new span: ids, and what goes into its draft.
struct Fields {
    ids: Ids,
    draft: Draft,
}

impl Visit for Fields {
    fn record_u128(&mut self, field: &Field, value: u128) {
        if field.name() == "otel.trace" {
            self.ids.trace = value;
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "otel.span" => self.ids.span = value,
            "otel.parent" => self.ids.parent = value,
            _ => self.draft.record_u64(field, value),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        match field.name() {
            "otel.sampled" => self.ids.sampled = value,
            _ => self.draft.record_bool(field, value),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.draft.record_i64(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.draft.record_f64(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.draft.record_str(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.draft.record_debug(field, value);
    }
}

impl Draft {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        if self.attributes.len() < ATTRIBUTES_MAX {
            self.attributes.push(KeyValue::new(field.name(), value));
        } else {
            self.dropped += 1;
        }
    }
}

impl Visit for Draft {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "otel.name" => self.name = Some(value.to_owned()),
            "otel.kind" => {
                self.kind = match value {
                    "server" => SpanKind::Server,
                    "client" => SpanKind::Client,
                    "producer" => SpanKind::Producer,
                    "consumer" => SpanKind::Consumer,
                    _ => SpanKind::Internal,
                }
            }
            "otel.status_code" => self.failed = value.eq_ignore_ascii_case("error"),
            "otel.link" => self.link = linked(value),
            _ => self.add(field, value.to_owned()),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, i64::try_from(value).unwrap_or(i64::MAX));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            // With `%`, text comes by here.
            "otel.name" | "otel.link" => self.record_str(field, &format!("{value:?}")),
            _ => self.add(field, format!("{value:?}")),
        }
    }
}

/// The span that a W3C `traceparent` names, if it names one.
fn linked(traceparent: &str) -> Option<Link> {
    let mut parts = traceparent.split('-').skip(1);
    let trace = u128::from_str_radix(parts.next()?, 16).ok()?;
    let span = u64::from_str_radix(parts.next()?, 16).ok()?;
    (trace != 0 && span != 0).then(|| Link::with_context(context(trace, span, true)))
}

#[cfg(test)]
mod tests;
