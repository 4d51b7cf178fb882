//! Against a collector of the test's own, over real OTLP.

use std::collections::HashMap;

use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceResponse,
    metrics_service_server::{MetricsService, MetricsServiceServer},
};
use prometheus::IntCounter;
use tokio::{net::TcpListener, sync::mpsc as queue};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Response, Status};

use super::*;

fn asked(variables: &[(&str, &str)]) -> Result<Option<Asked>, TelemetryError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Asked::read(|name| variables.get(name).map(|text| (*text).to_owned()))
}

struct Collector(queue::UnboundedSender<(MetadataMap, ExportMetricsServiceRequest)>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        let _ = self.0.send((metadata, request));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_arrives_again_and_again_and_a_last_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send, mut requests) = queue::unbounded_channel();
    let collecting = tonic::transport::Server::builder()
        .add_service(MetricsServiceServer::new(Collector(send)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let _collecting = mesh::spawn(collecting);
    let asked = asked(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &url),
        ("OTEL_METRIC_EXPORT_INTERVAL", "5"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b"),
    ]);
    let registry = Registry::new();
    let sold = IntCounter::new("sold_total", "Sold.").unwrap();
    registry.register(Box::new(sold.clone())).unwrap();
    let resource = Resource {
        attributes: vec![translate::attribute("service.name", "shop")],
        ..Resource::default()
    };
    let export = asked.unwrap().unwrap().export(&registry, resource).unwrap();
    let (metadata, first) = requests.recv().await.unwrap();
    assert_eq!(metadata.get("x-key").unwrap(), "a b");
    let of_resource = &first.resource_metrics[0];
    let named = &of_resource.resource.as_ref().unwrap().attributes;
    assert_eq!(named[..], [translate::attribute("service.name", "shop")]);
    assert_eq!(of_resource.scope_metrics[0].metrics[0].name, "sold_total");
    requests.recv().await.unwrap();
    // What was counted last is sent when the export ends.
    sold.inc_by(7);
    let flushing = tokio::task::spawn_blocking(move || drop(export));
    flushing.await.unwrap();
    let mut last = None;
    while let Ok((_, request)) = requests.try_recv() {
        last = Some(request);
    }
    let last = last.unwrap();
    let shown = format!("{:?}", last.resource_metrics[0].scope_metrics[0].metrics[0]);
    assert!(shown.contains("AsDouble(7.0)"), "{shown}");
}

#[test]
fn a_collector_that_is_away_ends_nothing() {
    let asked = asked(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
    ]);
    let asked = asked.unwrap().unwrap();
    drop(asked.export(&Registry::new(), Resource::default()).unwrap());
}

#[test]
fn nothing_is_exported_unasked() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    assert!(asked(&[]).unwrap().is_none());
    for off in [
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_METRICS_EXPORTER", "prometheus"),
    ] {
        assert!(asked(&[endpoint, off]).unwrap().is_none(), "{off:?}");
    }
    let by_default = asked(&[endpoint]).unwrap().unwrap();
    assert_eq!(by_default.interval, Duration::from_mins(1));
    assert_eq!(by_default.timeout, Duration::from_secs(30));
}

#[test]
fn a_variable_that_cannot_be_read_is_named_and_no_secret_quoted() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    for (key, value, quoted) in [
        ("OTEL_METRICS_EXPORTER", "console", "console"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0", "0"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "soon", "soon"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no-pair", "…"),
    ] {
        let error = asked(&[endpoint, (key, value)]).unwrap_err().to_string();
        assert_eq!(error, format!("{key} \"{quoted}\" cannot be read"));
    }
}
