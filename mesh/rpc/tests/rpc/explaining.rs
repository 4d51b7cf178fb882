//! Every error that a layer makes says in its details which layer it was, by what, and at which attempt.

use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use mesh::{CallContext, Config, ERROR_DOMAIN, FaultRule, RateLimitRule};
use prometheus::Registry;
use tokio::{net::TcpListener, sync::mpsc, time::Instant};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    TestClient, TestService, Texts, drain, elapse, mesh_calling, mesh_with, one, plain, serve,
};

/// Does what it is asked for: panics, answers at length, hangs.
fn moody() -> TestService {
    TestService::new(|method, mut requests| async move {
        let asked = requests.next().await.transpose()?.unwrap_or_default();
        match (&*method, &*asked) {
            (_, "panic") => panic!("in the handler"),
            (_, "long") => Ok(one("x".repeat(2048))),
            ("Watch", _) => Ok(Box::pin(stream::pending()) as Texts),
            _ => std::future::pending().await,
        }
    })
}

/// Code; reason, layer, policy and attempt.
fn explained(status: &Status) -> (Code, [String; 4]) {
    let details = status.get_error_details();
    let info = details.error_info().expect("the mesh explains its errors");
    assert_eq!(info.domain, ERROR_DOMAIN);
    let known = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
    let [layer, policy, attempt] = ["layer", "policy", "attempt"].map(known);
    (status.code(), [info.reason.clone(), layer, policy, attempt])
}

fn with(name: &'static str, value: &'static str) -> Request<String> {
    let mut request = Request::new(String::new());
    request
        .metadata_mut()
        .insert(name, value.parse().expect("it is ASCII"));
    request
}

/// Code, reason, layer, policy and attempt of each.
const EXPLAINED: [(Code, &str, &str, &str, &str); 9] = [
    (
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "deadline",
        "mesh.deadline_default_ms",
        "3",
    ),
    (
        Code::InvalidArgument,
        "MALFORMED_HEADER",
        "context",
        "grpc-timeout",
        "0",
    ),
    (
        Code::Internal,
        "INTERNAL",
        "panic",
        "the handler panicked",
        "1",
    ),
    (
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
        "frames",
        "mesh.message_bytes_max",
        "1",
    ),
    (
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "deadline",
        "grpc-timeout",
        "1",
    ),
    (
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "deadline",
        "the caller's deadline",
        "0",
    ),
    (
        Code::ResourceExhausted,
        "MESSAGE_TOO_LARGE",
        "frames",
        "mesh.message_bytes_max",
        "0",
    ),
    (
        Code::Unavailable,
        "DESTINATION_NOT_CONFIGURED",
        "discovery",
        "mesh.destinations.nowhere",
        "1",
    ),
    (
        Code::Unavailable,
        "SHUTTING_DOWN",
        "deadline",
        "shutdown",
        "1",
    ),
];

#[tokio::test]
async fn every_layer_explains_its_errors() {
    let config = Config {
        message_bytes_max: 1024,
        deadline_default_ms: 60,
        ..Config::default()
    };
    let served = serve(config.clone(), moody()).await;
    let (far, near) = (plain(served.address), mesh_calling(served.address));
    let client = TestClient(near.client("test"));
    let again = with("grpc-previous-rpc-attempts", "2");
    let watched = far.watch("Watch", "").await.unwrap();
    let mut config = config;
    let address = format!("http://{}", served.address);
    config.destinations.insert("test".into(), address);
    let small = TestClient(mesh_with(config, &Registry::new()).client("test"));
    let late = CallContext::current().with_deadline(Some(Instant::now()));
    let nowhere = TestClient(near.client("nowhere"));
    let long = "x".repeat(2048);
    let mut statuses = vec![
        // The server's.
        far.ask("Put", again).await.unwrap_err(),
        far.ask("Read", with("grpc-timeout", "soon"))
            .await
            .unwrap_err(),
        far.unary("Put", "panic").await.unwrap_err(),
        far.unary("Put", "long").await.unwrap_err(),
        // Of whichever end is the first to know.
        client
            .ask("Put", with("grpc-timeout", "30m"))
            .await
            .unwrap_err(),
        // The client's.
        late.scope(client.unary("Read", "")).await.unwrap_err(),
        small.unary("Read", &long).await.unwrap_err(),
        nowhere.unary("Read", "").await.unwrap_err(),
    ];
    // The server's, at its end.
    served.shutdown.cancel();
    statuses.push(drain(watched).await.1.unwrap_err());
    let explained: Vec<_> = statuses.iter().map(explained).collect();
    assert_eq!(
        explained,
        EXPLAINED.map(|(code, reason, layer, policy, attempt)| {
            (code, [reason, layer, policy, attempt].map(str::to_owned))
        })
    );
}

#[tokio::test]
async fn a_refusal_says_which_attempt_was_refused_and_by_whom() {
    let mut config = Config::default();
    let limit = RateLimitRule {
        methods: vec!["/mesh.test.v1.TestService/Read".to_owned()],
        per_s: 0.001,
        ..RateLimitRule::default()
    };
    let fault = FaultRule {
        methods: vec!["/mesh.test.v1.TestService/Put".to_owned()],
        percent: 100.0,
        abort: "DATA_LOSS".to_owned(),
        ..FaultRule::default()
    };
    config.server.rate_limits.rules.insert("r".into(), limit);
    config.server.faults.rules.insert("f".into(), fault);
    let served = serve(config, moody()).await;
    let client = plain(served.address);
    let third = || with("grpc-previous-rpc-attempts", "2");
    client.unary("Read", "panic").await.unwrap_err(); // And so the limit is reached.
    for (method, reason, layer, policy) in [
        ("Read", "RATE_LIMITED", "rate_limit", "r"),
        ("Put", "FAULT_INJECTED", "fault", "f"),
    ] {
        let status = client.ask(method, third()).await.unwrap_err();
        let expected = [reason, layer, policy, "3"].map(str::to_owned);
        assert_eq!(explained(&status).1, expected);
        let details = status.get_error_details();
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["endpoint"], served.address.to_string());
    }
}

#[tokio::test]
async fn a_deadline_that_passes_under_way_names_attempt_and_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    // Takes every call and answers none.
    let _hanging = AbortOnDropHandle::new(mesh::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut calls = h2::server::handshake(stream).await.unwrap();
        let mut held = Vec::new();
        while let Some(call) = calls.accept().await {
            held.push(call);
            arrived.send(()).unwrap();
        }
    }));
    let client = TestClient(mesh_calling(address).client("test"));
    let calling = mesh::spawn(async move { client.ask("Read", with("grpc-timeout", "4S")).await });
    arrivals.recv().await.unwrap();
    elapse(Duration::from_secs(4)).await;
    let status = calling.await.unwrap().unwrap_err();
    let details = status.get_error_details();
    let metadata = &details.error_info().unwrap().metadata;
    assert_eq!(metadata["policy"], "grpc-timeout");
    assert_eq!(metadata["attempt"], "1");
    assert_eq!(metadata["endpoint"], address.to_string());
}
