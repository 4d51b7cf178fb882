//! Headers over the limit end the call that they belong to, and not its neighbours on the connection.

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::StatusCode;
use mesh::{Config, Mesh};
use prometheus::Registry;
use tokio::{sync::broadcast, time::timeout};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Code, Request, Status, metadata::MetadataMap};
use tonic_types::StatusExt as _;

use crate::support::{
    PATIENCE, Served, TestClient, TestService, Texts, mesh_with, one, serve, wire,
};

const LIMIT: u32 = 8 << 10;
/// Over the limit, and not by so much that HTTP/2's own defence ends the connection.
const TOO_MUCH: usize = 12 << 10;
/// Over it by so much.
const FAR_TOO_MUCH: usize = 40 << 10;

fn limited() -> Config {
    Config {
        header_bytes_max: LIMIT,
        ..Config::default()
    }
}

fn note(bytes: usize) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert("note", "x".repeat(bytes).parse().unwrap());
    metadata
}

/// Says whatever `say` is given to everybody who watches; refuses reads, and breaks exports off, with a note.
fn noting(say: &broadcast::Sender<String>) -> TestService {
    let say = say.clone();
    TestService::new(move |method, _| {
        let texts = BroadcastStream::new(say.subscribe());
        async move {
            let refusal = Status::with_metadata(Code::NotFound, "no such thing", note(TOO_MUCH));
            let said: std::pin::Pin<Box<dyn Stream<Item = _> + Send>> = match method.as_str() {
                "Read" => return Err(refusal),
                "Watch" => Box::pin(texts.map(|text| Ok(text.unwrap()))),
                "Export" => Box::pin(stream::iter([Ok("first".to_owned()), Err(refusal)])),
                _ => return Ok(one("fine")),
            };
            Ok(said as Texts)
        }
    })
}

fn calling(served: &[&Served], mut config: Config) -> (Mesh, Registry) {
    let addresses = served
        .iter()
        .map(|served| format!("http://{}", served.address));
    let addresses: Vec<_> = addresses.collect();
    config
        .destinations
        .insert("test".into(), addresses.join(","));
    let registry = Registry::new();
    (mesh_with(config, &registry), registry)
}

/// How many calls of a method the client has counted with this code.
fn counted(registry: &Registry, method: &str, code: &str) -> u64 {
    let families = registry.gather();
    let family = families
        .iter()
        .find(|family| family.name() == "grpc_client_call_duration_seconds");
    let is_asked = |metric: &&prometheus::proto::Metric| {
        let has = |value: &str| {
            metric
                .get_label()
                .iter()
                .any(|label| label.value() == value)
        };
        has(&format!("mesh.test.v1.TestService/{method}")) && has(code)
    };
    let metrics = family.unwrap().get_metric().iter().filter(is_asked);
    metrics
        .map(|metric| metric.get_histogram().get_sample_count())
        .sum()
}

fn with_note(bytes: usize) -> Request<String> {
    Request::from_parts(note(bytes), tonic::Extensions::new(), String::new())
}

#[tokio::test]
async fn a_request_over_the_servers_limit_is_refused_and_the_connection_lives_on() {
    let (say, _) = broadcast::channel(1);
    let served = serve(limited(), noting(&say)).await;
    let (mesh, registry) = calling(&[&served], Config::default());
    let client = TestClient(mesh.client("test"));
    let mut watching = client.watch("Watch", "").await.unwrap();
    for method in ["Post", "Put"] {
        let status = client.ask(method, with_note(TOO_MUCH)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unknown, "{status}");
        assert!(status.message().contains("431"), "{status}");
        assert_eq!(counted(&registry, method, "UNKNOWN"), 1);
    }
    let below = LIMIT as usize / 2;
    assert_eq!(client.ask("Post", with_note(below)).await.unwrap(), "fine");
    say.send("still here".to_owned()).unwrap();
    let said = timeout(PATIENCE, watching.next()).await.unwrap();
    assert_eq!(said.unwrap().unwrap(), "still here");
    assert_eq!(mesh.endpoints()[0].endpoints[0].connections, 1);
}

#[tokio::test]
async fn whoever_speaks_http2_is_told_what_was_too_large() {
    let (say, _) = broadcast::channel(1);
    let served = serve(limited(), noting(&say)).await;
    let sender = wire::connect(served.address, 65_535).await;
    for (bytes, expected) in [
        (TOO_MUCH, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        (LIMIT as usize / 2, StatusCode::OK),
    ] {
        let request = http::Request::post("http://test/mesh.test.v1.TestService/Post")
            .header("content-type", "application/grpc")
            .header("note", "x".repeat(bytes))
            .body(())
            .unwrap();
        let mut sender = sender.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        // It may be refused before.
        let _ = body.send_data(Bytes::from_static(&[0; 5]), true);
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), expected);
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_no_fault_of_the_endpoints() {
    let (say, _) = broadcast::channel(1);
    let served = [
        serve(limited(), noting(&say)).await,
        serve(limited(), noting(&say)).await,
    ];
    let (mesh, _) = calling(&[&served[0], &served[1]], Config::default());
    let client = TestClient(mesh.client("test"));
    let threshold = Config::default().client.outlier.consecutive_failures;
    for _ in 0..4 * threshold {
        let status = client.ask("Post", with_note(TOO_MUCH)).await.unwrap_err();
        assert!(status.message().contains("431"), "{status}");
    }
    for _ in 0..threshold {
        let asked = client.ask("Post", with_note(FAR_TOO_MUCH)).await;
        assert_eq!(asked.unwrap_err().code(), Code::Unavailable);
    }
    let endpoints = &mesh.endpoints()[0].endpoints;
    assert!(
        endpoints
            .iter()
            .all(|endpoint| endpoint.ejected_for_ms == 0),
        "{endpoints:?}"
    );
}

#[tokio::test]
async fn an_answer_over_the_clients_limit_is_an_error_and_the_connection_lives_on() {
    let (say, _) = broadcast::channel(1);
    let served = serve(Config::default(), noting(&say)).await;
    let (mesh, registry) = calling(&[&served], limited());
    let client = TestClient(mesh.client("test"));
    let mut watching = client.watch("Watch", "").await.unwrap();

    // In the headers there is nothing to be read any more.
    let status = client.unary("Read", "").await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "DESTINATION_BROKE_PROTOCOL");
    assert_eq!(info.metadata["layer"], "connection");

    // Of trailers the end is missing, and with it the status.
    let mut exporting = client.watch("Export", "").await.unwrap();
    assert_eq!(exporting.next().await.unwrap().unwrap(), "first");
    let ended = timeout(PATIENCE, exporting.next()).await.unwrap();
    let status = ended.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status}");
    drop(exporting);
    assert_eq!(counted(&registry, "Read", "INTERNAL"), 1);
    assert_eq!(counted(&registry, "Export", "UNKNOWN"), 1);

    assert_eq!(client.unary("Post", "").await.unwrap(), "fine");
    say.send("still here".to_owned()).unwrap();
    let said = timeout(PATIENCE, watching.next()).await.unwrap();
    assert_eq!(said.unwrap().unwrap(), "still here");
    assert_eq!(mesh.endpoints()[0].endpoints[0].connections, 1);
    // A client whose limit is wider reads both.
    let wide = TestClient(calling(&[&served], Config::default()).0.client("test"));
    for outcome in [
        wide.unary("Read", "").await.map(drop),
        crate::support::drain(wide.watch("Export", "").await.unwrap())
            .await
            .1,
    ] {
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        assert_eq!(status.metadata().get("note").unwrap().len(), TOO_MUCH);
    }
}

#[tokio::test]
async fn a_request_far_over_the_limit_ends_its_connection_and_is_not_sent_over_and_over() {
    let (say, _) = broadcast::channel(1);
    let served = serve(limited(), noting(&say)).await;
    let (mesh, _registry) = calling(&[&served], Config::default());
    let client = TestClient(mesh.client("test"));
    assert_eq!(client.unary("Post", "").await.unwrap(), "fine");
    let status = client
        .ask("Put", with_note(FAR_TOO_MUCH))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert!(
        info.metadata["attempt"].parse::<u32>().unwrap() <= 4,
        "{info:?}"
    );
    assert_eq!(client.unary("Post", "").await.unwrap(), "fine");
}
