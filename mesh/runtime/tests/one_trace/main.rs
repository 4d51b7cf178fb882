//! One trace from the edge over a call and the outbox to the consumer of an event, as a collector sees it.

mod collector;
#[expect(
    dead_code,
    reason = "written for the tests of the mesh, which use all of it"
)]
#[path = "../../../rpc/tests/support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use collector::Collector;
use mesh::{CallContext, Config, Principal};
use mesh_events::{
    BoxError, Bus, BusError, Consumer, ConsumerConfig, DeadLetter, DeadLetters, Deliveries, Event,
    Handler, HandlerError, InMemoryBus, Metrics, Outbox, OutboxError, OutboxLag, PublishError,
    Relay, RelayConfig, Subscription,
};
use mesh_runtime::telemetry::{self, TelemetryConfig};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use support::{TestService, one, serve};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

const KIND: &str = "shop.Sold.v1";

/// An outbox that knows no failure, and so no lease.
#[derive(Default)]
struct Committed(Mutex<Vec<Event>>);

#[async_trait]
impl Outbox for Committed {
    async fn lease(&self, _: usize, _: i64, _: i64) -> Result<Vec<Event>, OutboxError> {
        let mut events = self.0.lock().expect("nobody panics while it is held");
        Ok(std::mem::take(&mut *events))
    }

    async fn published(&self, _: &[Uuid]) -> Result<(), OutboxError> {
        Ok(())
    }

    async fn defer(&self, ids: &[Uuid], _: i64) -> Result<(), OutboxError> {
        panic!("{ids:?} were not published")
    }

    async fn lag(&self, _: i64) -> Result<OutboxLag, OutboxError> {
        Ok(OutboxLag::default())
    }
}

/// Tells when its consumer listens: what is published before that reaches nobody.
struct Heard(InMemoryBus, Arc<Notify>);

#[async_trait]
impl Bus for Heard {
    async fn publish(&self, events: &[Event]) -> Vec<Result<(), PublishError>> {
        self.0.publish(events).await
    }

    async fn subscribe(&self, wanted: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
        let subscribed = self.0.subscribe(wanted).await;
        self.1.notify_one();
        subscribed
    }
}

/// Is told of an event, and of nothing that cannot be applied.
struct Applied(Arc<Notify>);

#[async_trait]
impl Handler for Applied {
    async fn handle(&self, _: &Event) -> Result<(), HandlerError> {
        self.0.notify_one();
        Ok(())
    }
}

#[async_trait]
impl DeadLetters for Applied {
    async fn record(&self, letter: DeadLetter) -> Result<(), BoxError> {
        panic!("{letter:?}")
    }
}

fn named<'s>(spans: &'s [Span], name: &str, kind: SpanKind) -> &'s Span {
    let found = spans
        .iter()
        .find(|span| span.name == name && span.kind() == kind);
    found.unwrap_or_else(|| panic!("no {kind:?} {name} among {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_its_event_and_the_events_effect_are_one_trace() {
    let collector = Collector::start().await;
    let (url, config) = (collector.url.clone(), TelemetryConfig::default());
    let telemetry = telemetry::init_as(&config, mesh::log_context, |name| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(url.clone()),
        _ => None,
    });
    let telemetry = telemetry.unwrap();

    let (outbox, wake, applied) = (
        Arc::new(Committed::default()),
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
    );
    let (listening, memory) = (Arc::new(Notify::new()), InMemoryBus::new());
    let bus = Arc::new(Heard(memory.clone(), listening.clone()));
    let stop = CancellationToken::new();
    let consumer = Consumer {
        name: "ledger".to_owned(),
        kinds: vec![KIND.to_owned()],
        bus: bus.clone(),
        handler: Arc::new(Applied(applied.clone())),
        dead_letters: Arc::new(Applied(applied.clone())),
        config: ConsumerConfig::default(),
        now: Arc::new(|| 0),
        metrics: Metrics::unregistered().unwrap(),
    };
    let relay = Relay {
        name: "shop".to_owned(),
        outbox: outbox.clone(),
        bus: bus.clone(),
        config: RelayConfig::default(),
        now: Arc::new(|| 0),
        wake: wake.clone(),
        metrics: Metrics::unregistered().unwrap(),
    };
    let consuming = mesh::spawn(consumer.run(stop.clone()));
    listening.notified().await;
    let relaying = mesh::spawn(relay.run(stop.clone()));
    let service = TestService::new(move |_, _| {
        let event = Event::new(KIND, "sale_1", 1, 1, "").optional();
        let event = event.with_traceparent(CallContext::current().traceparent());
        outbox.0.lock().unwrap().push(event);
        wake.notify_one();
        async { Ok(one("sold")) }
    });
    let served = serve(Config::default(), service).await;

    // As the edge does it, for a client with a trace of its own.
    let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let context = CallContext::from_traceparent(theirs, Principal::anonymous());
    let span = mesh::span!(context, "server", otel.name = "POST /v1/sales");
    let client = served.client();
    let calling = context.scope(client.unary("Put", "")).instrument(span);
    assert_eq!(calling.await.unwrap(), "sold");
    // The handler may be applied before its event is settled; the ends of both tasks come after both.
    applied.notified().await;
    memory.idle().await;
    stop.cancel();
    relaying.await.unwrap();
    consuming.await.unwrap();
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();
    let flushing = tokio::task::spawn_blocking(move || drop(telemetry));
    flushing.await.unwrap();

    let (_, spans) = collector.received().await;
    let edge = named(&spans, "POST /v1/sales", SpanKind::Server);
    let client = named(&spans, "mesh.test.v1.TestService/Put", SpanKind::Client);
    let server = named(&spans, "mesh.test.v1.TestService/Put", SpanKind::Server);
    let sent = named(&spans, "send shop.Sold.v1", SpanKind::Producer);
    let processed = named(&spans, "process shop.Sold.v1", SpanKind::Consumer);
    let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    let all = [edge, client, server, sent, processed];
    assert!(all.iter().all(|span| span.trace_id == trace), "{all:#?}");
    assert_eq!(edge.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!(client.parent_span_id, edge.span_id);
    assert_eq!(server.parent_span_id, client.span_id);
    assert_eq!(sent.parent_span_id, server.span_id);
    assert_eq!(processed.parent_span_id, server.span_id);
    assert_eq!(processed.links[0].span_id, server.span_id);
    assert_eq!(processed.links[0].trace_id, trace);
    assert_eq!(spans.len(), all.len(), "{spans:#?}");
}
