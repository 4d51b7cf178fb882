//! The layer on a tonic channel: what a program has of the mesh before it gives the channel up.

use std::time::Duration;

use mesh::{CallContext, Config, Layered, Mesh, Principal, TapFilter};
use prometheus::Registry;
use tokio::{sync::mpsc, time::Instant};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};
use tower::Layer as _;

use crate::support::{TestClient, TestService, elapse, mesh_with, one, serve};

const DEADLINE: Duration = Duration::from_secs(9);

fn within(limit: Duration) -> CallContext {
    CallContext::root(Principal::new("shop", ["operator"]))
        .with_deadline(Some(Instant::now() + limit))
}

/// A mesh with no destination, and a channel with its layer.
fn layered(channel: Channel, registry: &Registry) -> (Mesh, TestClient<Layered<Channel>>) {
    let mesh = mesh_with(Config::default(), registry);
    let client = TestClient(mesh.layer("far").layer(channel));
    (mesh, client)
}

/// A channel whose connection never comes about.
fn hung() -> Channel {
    let never = tower::service_fn(|_| {
        std::future::pending::<Result<hyper_util::rt::TokioIo<tokio::io::DuplexStream>, Status>>()
    });
    Endpoint::from_static("http://far.example").connect_with_connector_lazy(never)
}

#[tokio::test]
async fn a_channel_that_does_not_connect_ends_with_the_deadline() {
    let (mesh, client) = layered(hung(), &Registry::new());
    let calling =
        mesh::spawn(async move { within(DEADLINE).scope(client.unary("Read", "")).await });
    while mesh.calls().calls.is_empty() {
        tokio::task::yield_now().await;
    }
    elapse(DEADLINE).await;
    let status = calling.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
}

#[tokio::test]
async fn deadline_and_caller_travel_over_the_channel() {
    let (told, mut heard) = mpsc::unbounded_channel();
    let service = TestService::new(move |_, _| {
        let context = CallContext::current();
        let left = context.deadline().unwrap() - Instant::now();
        told.send((left, context.principal().clone())).unwrap();
        async { Ok(one("")) }
    });
    let served = serve(Config::default(), service).await;
    let address = served.address;
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let registry = Registry::new();
    let (mesh, client) = layered(endpoint.connect_lazy(), &registry);
    let mut tap = mesh.tap(TapFilter::default()).unwrap();
    within(DEADLINE)
        .scope(client.unary("Read", "four"))
        .await
        .unwrap();
    let (left, principal) = heard.recv().await.unwrap();
    assert!(
        left <= Duration::from_secs(5),
        "the contract's own: {left:?}"
    );
    assert_eq!(principal, Principal::new("shop", ["operator"]));
    let ended = tap.next().await;
    assert_eq!((ended.code, ended.attempt), ("OK", 1));
    let counted = registry.gather().into_iter().any(|family| {
        let metrics = family.get_metric().iter();
        let mut labels = metrics.flat_map(prometheus::proto::Metric::get_label);
        family.name() == "grpc_client_call_duration_seconds"
            && labels.any(|label| (label.name(), label.value()) == ("grpc_target", "far"))
    });
    assert!(counted);
}

#[tokio::test]
async fn an_answer_that_ends_with_its_headers_and_says_no_status_counts_as_unknown() {
    let silent = tower::service_fn(|_: http::Request<tonic::body::Body>| async {
        let answer = http::Response::builder().header("content-type", "application/grpc");
        Ok::<_, Status>(answer.body(tonic::body::Body::empty()).unwrap())
    });
    let mesh = mesh_with(Config::default(), &Registry::new());
    let mut tap = mesh.tap(TapFilter::default()).unwrap();
    let client = TestClient(mesh.layer("far").layer(silent));
    client.unary("Read", "").await.unwrap_err();
    assert_eq!(tap.next().await.code, "UNKNOWN");
}
