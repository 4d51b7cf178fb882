//! Metrics to an OpenTelemetry collector, by OTLP over gRPC, where the standard environment variables ask for it:
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_METRICS_ENDPOINT`) says where to, `OTEL_SDK_DISABLED` and
//! `OTEL_METRICS_EXPORTER=none` say no; `OTEL_METRIC_EXPORT_INTERVAL`, `OTEL_METRIC_EXPORT_TIMEOUT`,
//! `OTEL_EXPORTER_OTLP_HEADERS` (or `…_METRICS_HEADERS`), `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` mean what
//! OpenTelemetry says of them.
//!
//! What is sent is what `/metrics` shows, under the same names, read from the same registry when the interval is over:
//! no metric is counted twice, and where nobody asks, nothing of this exists. A thread of its own does it, so that a
//! collector that is slow or away costs no call anything.
//!
//! Deliberately without: exemplars (the traces go to the same collector), delta temporality, TLS to the collector.

mod translate;

use std::{
    fmt, io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient,
    },
    metrics::v1::{ResourceMetrics, ScopeMetrics},
    resource::v1::Resource,
};
use prometheus::Registry;
use tokio::time::timeout;
use tonic::{
    Request,
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::TelemetryError;

/// Between two exports, where the environment says nothing; OpenTelemetry's default.
const INTERVAL: Duration = Duration::from_mins(1);
/// How long an export may take, where it says nothing; OpenTelemetry's default.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last export may take when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// What the environment says of metrics.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    endpoint: Endpoint,
    interval: Duration,
    timeout: Duration,
    headers: MetadataMap,
}

impl Asked {
    /// `None`: no export is asked for.
    pub(super) fn read(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TelemetryError> {
        let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
        let of_metrics = |rest: &str| {
            variable(&format!("OTEL_EXPORTER_OTLP_METRICS_{rest}"))
                .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{rest}")))
        };
        let is_disabled =
            variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        // "prometheus" is what the admin endpoint does in any case.
        let exporter = variable("OTEL_METRICS_EXPORTER").unwrap_or_else(|| "otlp".to_owned());
        let (false, "otlp", Some(endpoint)) = (is_disabled, &*exporter, of_metrics("ENDPOINT"))
        else {
            return match &*exporter {
                "otlp" | "none" | "prometheus" => Ok(None),
                _ => Err(unreadable("OTEL_METRICS_EXPORTER", &exporter)),
            };
        };
        let parsed = Endpoint::from_shared(endpoint.clone());
        let millis = |key: &'static str, default: Duration| match variable(key) {
            None => Ok(default),
            Some(text) => {
                let ms = text.parse().ok().filter(|ms: &u64| *ms > 0);
                ms.map(Duration::from_millis)
                    .ok_or_else(|| unreadable(key, &text))
            }
        };
        Ok(Some(Self {
            endpoint: parsed
                .map_err(|_| unreadable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &endpoint))?,
            interval: millis("OTEL_METRIC_EXPORT_INTERVAL", INTERVAL)?,
            timeout: millis("OTEL_METRIC_EXPORT_TIMEOUT", TIMEOUT)?,
            headers: headers(&of_metrics("HEADERS").unwrap_or_default())?,
        }))
    }

    /// Begins to export. The thread ends when the value is dropped.
    pub(super) fn export(
        self,
        registry: &Registry,
        resource: Resource,
    ) -> io::Result<MetricsExport> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = mpsc::channel();
        let (tell_end, ended) = mpsc::channel();
        let exporting = Exporting {
            registry: registry.clone(),
            resource,
            began_ns: now_ns(),
            asked: self,
            complained: false,
        };
        let thread = thread::Builder::new().name("otlp-metrics".to_owned());
        let thread = thread.spawn(move || {
            runtime.block_on(exporting.run(&stopped));
            drop(tell_end);
        })?;
        Ok(MetricsExport {
            stop: Some(stop),
            ended,
            thread: Some(thread),
        })
    }
}

/// The SDK's resource as OTLP has it.
pub(super) fn resource(resource: &opentelemetry_sdk::Resource) -> Resource {
    let attributes = resource.iter();
    let attributes =
        attributes.map(|(key, value)| translate::attribute(key.as_str(), &value.as_str()));
    Resource {
        attributes: attributes.collect(),
        ..Resource::default()
    }
}

fn unreadable(key: &'static str, value: &str) -> TelemetryError {
    TelemetryError::Variable {
        key,
        value: value.to_owned(),
    }
}

/// `name=value` pairs with commas between, values percent-encoded.
fn headers(text: &str) -> Result<MetadataMap, TelemetryError> {
    let mut headers = MetadataMap::new();
    // The variable holds secrets: none of it is quoted.
    let refused = || unreadable("OTEL_EXPORTER_OTLP_HEADERS", "…");
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=').ok_or_else(refused)?;
        let name = name.trim().to_ascii_lowercase();
        let name = MetadataKey::from_bytes(name.as_bytes()).map_err(|_| refused())?;
        let value = percent_encoding::percent_decode_str(value.trim()).decode_utf8();
        let value = value.map_err(|_| refused())?;
        let value = MetadataValue::try_from(&*value).map_err(|_| refused())?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn now_ns() -> u64 {
    let since = opentelemetry::time::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    })
}

/// The work of the thread.
struct Exporting {
    registry: Registry,
    resource: Resource,
    began_ns: u64,
    asked: Asked,
    /// Whether the last export failed: only the first of a row is reported.
    complained: bool,
}

impl Exporting {
    async fn run(mut self, stopped: &Receiver<()>) {
        let client = MetricsServiceClient::new(self.asked.endpoint.connect_lazy());
        // The thread has nothing else to do: it waits itself.
        while stopped.recv_timeout(self.asked.interval) == Err(RecvTimeoutError::Timeout) {
            self.once(client.clone(), self.asked.timeout).await;
        }
        self.once(client, self.asked.timeout.min(FLUSH_TIMEOUT))
            .await;
    }

    async fn once(&mut self, mut client: MetricsServiceClient<Channel>, limit: Duration) {
        let metrics = translate::metrics(&self.registry.gather(), self.began_ns, now_ns());
        let of_resource = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        };
        let mut request = Request::new(ExportMetricsServiceRequest {
            resource_metrics: vec![of_resource],
        });
        *request.metadata_mut() = self.asked.headers.clone();
        let trouble = match timeout(limit, client.export(request)).await {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(status.to_string()),
            Err(_) => Some(format!("not done within {} ms", limit.as_millis())),
        };
        if let Some(trouble) = &trouble
            && !self.complained
        {
            tracing::warn!("metrics cannot be exported: {trouble}");
        }
        self.complained = trouble.is_some();
    }
}

/// Metrics go to a collector while it lives; dropped, it sends the last ones, for at most two seconds.
#[must_use = "dropped at once, it ends the export of metrics"]
pub struct MetricsExport {
    /// Dropped, it tells the thread to end.
    stop: Option<Sender<()>>,
    /// Nothing ever comes: it is the end of the thread that shows here.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for MetricsExport {
    fn drop(&mut self) {
        drop(self.stop.take());
        let waited = self.ended.recv_timeout(2 * FLUSH_TIMEOUT);
        if waited == Err(RecvTimeoutError::Disconnected)
            && let Some(thread) = self.thread.take()
        {
            if thread.join().is_err() {
                tracing::error!("the export of metrics has panicked");
            }
        } else {
            tracing::warn!("the last metrics were not sent");
        }
    }
}

impl fmt::Debug for MetricsExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetricsExport")
    }
}

#[cfg(test)]
mod tests;
