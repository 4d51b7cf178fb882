//! One purchase as a collector sees it: from REST over gRPC and SQL into the outbox, over the bus and into the other
//! service's database, one trace. A process has one log and so one exporter: this test has a binary of its own.

#[path = "../../mesh/runtime/tests/one_trace/collector.rs"]
mod collector;

use std::collections::{HashMap, HashSet};

use collector::Collector;
use mesh_runtime::telemetry::{self, TelemetryConfig};
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use tests::{
    orders::{order, put_on_sale},
    shop::Shop,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CREATE: &str = "commerce.payment.v1.PaymentService/CreatePayment";
const QUOTE: &str = "commerce.product.v1.ProductService/BatchGetProducts";
const CAPTURED: &str = "payment.PaymentCaptured.v1";

/// The spans of the trace, by id.
struct Seen(HashMap<Vec<u8>, Span>);

impl Seen {
    fn one(&self, name: &str, kind: SpanKind) -> &Span {
        let mut found = self.0.values().filter(|span| span.name == name);
        let found = found.find(|span| span.kind() == kind);
        found.unwrap_or_else(|| panic!("no {kind:?} {name} among {:#?}", self.names()))
    }

    /// The spans of this name somewhere below a span.
    fn below(&self, above: &Span, name: &str) -> Vec<&Span> {
        let named = self.0.values().filter(|span| span.name == name);
        let below = |span: &&Span| {
            let parents =
                std::iter::successors(Some(*span), |span| self.0.get(&span.parent_span_id));
            parents.skip(1).any(|span| span.span_id == above.span_id)
        };
        named.filter(below).collect()
    }

    fn names(&self) -> HashSet<&str> {
        self.0.values().map(|span| &*span.name).collect()
    }
}

/// Text attributes by name.
fn attributes(span: &Span) -> HashMap<&str, &str> {
    let pairs =
        span.attributes
            .iter()
            .filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
                Value::StringValue(text) => Some((&*pair.key, &**text)),
                _ => None,
            });
    pairs.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_one_trace_through_every_part_and_both_databases() {
    let collector = Collector::start().await;
    let url = collector.url.clone();
    let config = TelemetryConfig {
        filter: "off".to_owned(),
        ..TelemetryConfig::default()
    };
    let telemetry = telemetry::init_as(&config, mesh::log_context, |name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(url.clone()),
        _ => None,
    });
    let telemetry = telemetry.unwrap();
    let shop = Shop::start().await;
    put_on_sale(shop.rest(), "MUG-1", 1250, 10).await;
    let theirs = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let buying = shop.rest().request(reqwest::Method::POST, "/v1/payments");
    let buying = buying
        .header("idempotency-key", "one-trace")
        .header("traceparent", theirs)
        .json(&order("ORDER-1", &[("MUG-1", 3)]));
    let bought = shop.rest().send(buying).await.unwrap().ok();
    assert_eq!(bought["state"], "SUCCEEDED");
    shop.drain_events().await;
    shop.close().await;
    let flushing = tokio::task::spawn_blocking(move || drop(telemetry));
    flushing.await.unwrap();

    let (_, spans) = collector.received().await;
    // What is read for nobody, by polling, is no trace.
    let alone = |span: &Span| span.name == "read" && span.parent_span_id.is_empty();
    assert!(!spans.iter().any(alone));
    let trace = u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes();
    let of_trace = spans.into_iter().filter(|span| span.trace_id == trace);
    let seen = Seen(of_trace.map(|span| (span.span_id.clone(), span)).collect());
    // REST, gRPC, and the purchase in payment's database.
    let edge = seen.one("POST /v1/payments", SpanKind::Server);
    let client = seen.one(CREATE, SpanKind::Client);
    let server = seen.one(CREATE, SpanKind::Server);
    assert_eq!(client.parent_span_id, edge.span_id);
    assert_eq!(server.parent_span_id, client.span_id);
    let written = seen.below(server, "transaction");
    assert!(!written.is_empty(), "{:?}", seen.names());
    // The quote is one question to product, which is one read of its database.
    let quote = seen.one(QUOTE, SpanKind::Server);
    let read = seen.below(quote, "read");
    assert_eq!(read.len(), 1, "{:?}", seen.names());
    for statement in written.into_iter().chain(read) {
        let said = attributes(statement);
        assert_eq!(statement.kind(), SpanKind::Client);
        assert_eq!(said["db.system.name"], "sqlite");
        assert!(said["db.namespace"].contains(".db"), "{said:?}");
        let words = format!("{:?}", statement.attributes);
        assert!(
            !words.contains("ORDER-1") && !words.contains("MUG-1"),
            "{words}"
        );
    }
    // The outbox, the bus, and what product makes of it in a database of its own.
    seen.one(&format!("send {CAPTURED}"), SpanKind::Producer);
    let processed = seen.one(&format!("process {CAPTURED}"), SpanKind::Consumer);
    let applied = seen.below(processed, "transaction");
    assert!(!applied.is_empty(), "{:?}", seen.names());
}
