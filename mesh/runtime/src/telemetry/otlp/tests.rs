//! Against a collector of the test's own, over real OTLP.

#[path = "../../../tests/one_trace/collector.rs"]
mod collector;

use std::collections::HashMap;

use collector::Collector;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind as Kind, status::StatusCode};
use tracing::{debug_span, field::Empty, info_span, subscriber::with_default, trace_span};
use tracing_subscriber::{Layer as _, filter::filter_fn, layer::SubscriberExt as _};

use super::*;

fn asked(variables: &[(&str, &str)]) -> Result<Option<Traces>, TelemetryError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Traces::asked(|name| variables.get(name).map(|text| (*text).to_owned()))
}

/// What a collector receives of the spans that `work` opens.
async fn exported(sampler: (&str, &str), work: impl FnOnce()) -> (String, Vec<Span>) {
    let collector = Collector::start().await;
    let traces = asked(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url),
        ("OTEL_TRACES_SAMPLER", sampler.0),
        ("OTEL_TRACES_SAMPLER_ARG", sampler.1),
    ]);
    let (spans, flush) = traces.unwrap().unwrap().layer("shop".to_owned()).unwrap();
    let subscriber = tracing_subscriber::registry().with(spans.with_filter(filter_fn(is_wanted)));
    with_default(subscriber, work);
    let flushing = tokio::task::spawn_blocking(move || drop(flush));
    flushing.await.unwrap();
    collector.received().await
}

fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.clone());
    value.map_or_else(String::new, |value| format!("{:?}", value.value))
}

fn call(trace: u128, sampled: bool) -> tracing::Span {
    debug_span!(
        target: "mesh::span",
        "call",
        otel.trace = trace,
        otel.span = 7_u64,
        otel.parent = 5_u64,
        otel.sampled = sampled,
        otel.kind = "server",
        otel.name = "shop.v1.Shop/Buy",
        otel.link = "00-000000000000000000000000000000ab-00000000000000cd-01",
        otel.status_code = Empty,
        rpc.system = "grpc",
        rpc.grpc.status_code = Empty,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ids_of_the_mesh_and_the_conventions_arrive() {
    let (name, spans) = exported(("parentbased_always_on", ""), || {
        let call = call(0xfeed, true);
        call.in_scope(|| {
            info_span!(target: "shop", "own", answer = 42)
                .in_scope(|| trace_span!(target: "shop", "noise").in_scope(|| {}));
        });
        call.record("rpc.grpc.status_code", 13_i64);
        call.record("otel.status_code", "ERROR");
    })
    .await;
    assert!(name.contains("shop"), "{name}");
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (call, own) = (find("shop.v1.Shop/Buy"), find("own"));
    assert_eq!(spans.len(), 2, "{spans:?}");
    assert_eq!(call.trace_id, 0xfeed_u128.to_be_bytes());
    assert_eq!(call.span_id, 7_u64.to_be_bytes());
    assert_eq!(call.parent_span_id, 5_u64.to_be_bytes());
    assert_eq!(call.kind(), Kind::Server);
    assert!(text(&call.attributes, "rpc.system").contains("grpc"));
    assert!(text(&call.attributes, "rpc.grpc.status_code").contains("13"));
    assert_eq!(call.status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(call.links[0].span_id, 0xcd_u64.to_be_bytes());
    assert_eq!(own.trace_id, call.trace_id);
    assert_eq!(own.parent_span_id, call.span_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_sampled_stays_here_with_all_that_is_in_it() {
    let (_, spans) = exported(("parentbased_traceidratio", "0.5"), || {
        let above = u128::from(u64::MAX); // The highest share there is.
        call(above, true).in_scope(|| info_span!(target: "shop", "above").in_scope(|| {}));
        call(1, false).in_scope(|| info_span!(target: "shop", "unsampled").in_scope(|| {}));
        call(2, true).in_scope(|| info_span!(target: "shop", "below").in_scope(|| {}));
    })
    .await;
    let mut names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    names.sort_unstable();
    assert_eq!(names, ["below", "shop.v1.Shop/Buy"]);
}

#[test]
fn nothing_is_exported_unasked() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    assert_eq!(asked(&[]).unwrap(), None);
    assert_eq!(asked(&[(endpoint.0, "")]).unwrap(), None);
    assert_eq!(
        asked(&[endpoint, ("OTEL_SDK_DISABLED", "true")]).unwrap(),
        None
    );
    assert_eq!(
        asked(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]).unwrap(),
        None
    );
    let traces = asked(&[endpoint]).unwrap().unwrap();
    let all = Sampler {
        parent_based: true,
        ratio: 1.0,
    };
    assert_eq!((&*traces.endpoint, traces.sampler), (endpoint.1, all));
}

#[test]
fn a_sampler_that_is_unknown_is_named() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
    let error = asked(&[endpoint, ("OTEL_TRACES_SAMPLER", "sometimes")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "OTEL_TRACES_SAMPLER \"sometimes\" cannot be read"
    );
    let ratio = ("OTEL_TRACES_SAMPLER", "traceidratio");
    let error = asked(&[endpoint, ratio, ("OTEL_TRACES_SAMPLER_ARG", "2")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "OTEL_TRACES_SAMPLER_ARG \"2\" cannot be read"
    );
}
