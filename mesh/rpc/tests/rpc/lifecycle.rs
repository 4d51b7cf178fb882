//! From the first call to the last: health, reflection, metrics, drain, restart.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use mesh::{Config, ServerConfig};
use prometheus::TextEncoder;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt as _;

use crate::support::{PATIENCE, TestClient, TestService, Texts, elapse, mesh_with, one, serve};

const NAME: &str = "mesh.test.v1.TestService";

/// One text, and then silence for ever.
fn endless() -> TestService {
    TestService::new(|_, _| async {
        Ok(Box::pin(stream::iter([Ok("first".to_owned())]).chain(stream::pending())) as Texts)
    })
}

fn draining_within(drain_timeout_ms: u64) -> Config {
    let server = ServerConfig {
        drain_timeout_ms,
        ..ServerConfig::default()
    };
    Config {
        server,
        ..Config::default()
    }
}

/// Until nothing listens any more: the drain has begun.
async fn closed(address: SocketAddr) {
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(PATIENCE, refused)
        .await
        .expect("the listener closes");
}

#[tokio::test]
async fn the_drain_ends_within_its_bound_and_tells_those_that_it_cuts_off() {
    let bound = Duration::from_secs(9);
    let served = serve(draining_within(9_000), endless()).await;
    let mut answers = served.client().watch("Export", "").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "first");
    served.shutdown.cancel();
    closed(served.address).await;
    elapse(bound / 2).await;
    assert!(
        futures_util::poll!(answers.next()).is_pending(),
        "it has its time"
    );
    elapse(bound / 2).await;
    let status = timeout(PATIENCE, answers.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    // Told by the server, not guessed from a connection that broke.
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(
        status.get_error_details().error_info().unwrap().reason,
        "SHUTTING_DOWN"
    );
    timeout(PATIENCE, served.serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_stream_without_a_deadline_goes_on_for_its_grace_and_holds_up_the_drain_no_longer() {
    let mut config = draining_within(60_000);
    config.server.stream_grace_ms = 7_000;
    let (say, said) = mpsc::unbounded_channel();
    let said = Mutex::new(Some(said));
    let service = TestService::new(move |_, _| {
        let said = said.lock().unwrap().take().expect("it is called once");
        async { Ok(Box::pin(UnboundedReceiverStream::new(said).map(Ok)) as Texts) }
    });
    let served = serve(config, service).await;
    let mut answers = served.client().watch("Watch", "").await.unwrap();
    served.shutdown.cancel();
    closed(served.address).await;
    elapse(Duration::from_secs(5)).await;
    say.send("within its grace".to_owned()).unwrap();
    let heard = timeout(PATIENCE, answers.next()).await.unwrap();
    assert_eq!(heard.unwrap().unwrap(), "within its grace");
    assert!(!served.serving.is_finished());
    elapse(Duration::from_secs(3)).await;
    let status = timeout(PATIENCE, answers.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    timeout(PATIENCE, served.serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_call_in_flight_finishes_while_new_connections_are_refused() {
    let (arrived, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (arriving, finishing) = (arrived.clone(), finish.clone());
    let served = serve(
        draining_within(60_000),
        TestService::new(move |_, _| {
            let (arriving, finishing) = (arriving.clone(), finishing.clone());
            async move {
                arriving.notify_one();
                finishing.notified().await;
                Ok(one("finished"))
            }
        }),
    )
    .await;
    let client = served.client();
    let calling = mesh::spawn(async move { client.unary("Read", "").await });
    arrived.notified().await;
    served.shutdown.cancel();
    closed(served.address).await;
    assert!(!served.serving.is_finished());
    finish.notify_one();
    assert_eq!(calling.await.unwrap().unwrap(), "finished");
    timeout(PATIENCE, served.serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_server_that_is_dropped_takes_its_calls_along() {
    let served = serve(draining_within(60_000), endless()).await;
    let mut answers = served.client().watch("Export", "").await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap(), "first");
    served.serving.abort();
    let status = timeout(PATIENCE, answers.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
}

#[tokio::test]
async fn a_client_survives_the_restart_of_its_server() {
    fn echo() -> TestService {
        TestService::new(|_, _| async { Ok(one("here")) })
    }
    let first = serve(Config::default(), echo()).await;
    let client = first.client();
    assert_eq!(client.unary("Read", "").await.unwrap(), "here");
    first.shutdown.cancel();
    first.serving.await.unwrap().unwrap();

    let listener = TcpListener::bind(first.address).await.unwrap();
    let mesh = mesh_with(Config::default(), &prometheus::Registry::new());
    let shutdown = tokio_util::sync::CancellationToken::new();
    mesh::spawn(mesh.server().add(echo()).serve(listener, shutdown));
    assert_eq!(client.unary("Read", "").await.unwrap(), "here");
}

#[tokio::test]
async fn health_says_who_serves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mesh = mesh_with(Config::default(), &prometheus::Registry::new());
    let server = mesh.server().add(endless());
    let health = server.health();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let serving = mesh::spawn(server.serve(listener, shutdown.clone()));

    let mut client = HealthClient::new(crate::support::mesh_calling(address).client("test"));
    let ask = |service: &str| HealthCheckRequest {
        service: service.to_owned(),
    };
    let (serves, serves_not) = (1, 2);
    for service in ["", NAME] {
        assert_eq!(
            client
                .check(ask(service))
                .await
                .unwrap()
                .into_inner()
                .status,
            serves
        );
    }
    assert_eq!(
        client.check(ask("nobody")).await.unwrap_err().code(),
        Code::NotFound
    );
    health.set(NAME, false).await;
    assert_eq!(
        client.check(ask(NAME)).await.unwrap().into_inner().status,
        serves_not
    );
    assert_eq!(
        client.check(ask("")).await.unwrap().into_inner().status,
        serves
    );
    health.set(NAME, true).await;

    // Whoever watches learns of the shutdown, one way or the other.
    let mut watching = client.watch(ask(NAME)).await.unwrap().into_inner();
    assert_eq!(watching.next().await.unwrap().unwrap().status, serves);
    shutdown.cancel();
    match timeout(PATIENCE, watching.next()).await.unwrap().unwrap() {
        Ok(answer) => assert_eq!(answer.status, serves_not),
        Err(status) => assert_eq!(status.code(), Code::Unavailable),
    }
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn reflection_lists_the_contract() {
    let served = serve(Config::default(), endless()).await;
    let mut client = ServerReflectionClient::new(served.client().0);
    let ask = |request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let questions = stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(NAME.to_owned())),
    ]);
    let mut answers = client
        .server_reflection_info(questions)
        .await
        .unwrap()
        .into_inner();
    let listed = answers
        .next()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    let MessageResponse::ListServicesResponse(listed) = listed else {
        panic!("{listed:?}")
    };
    let names: BTreeSet<_> = listed
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    let expected = [
        NAME,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ];
    assert_eq!(names, BTreeSet::from(expected));
    let file = answers
        .next()
        .await
        .unwrap()
        .unwrap()
        .message_response
        .unwrap();
    assert!(
        matches!(file, MessageResponse::FileDescriptorResponse(_)),
        "{file:?}"
    );
}

#[tokio::test]
async fn a_service_that_the_contract_does_not_know_is_refused() {
    let contract = mesh::Contract::new(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
    let mesh = mesh::Mesh::new(Config::default(), contract, &prometheus::Registry::new()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = tokio_util::sync::CancellationToken::new();
    let error = mesh
        .server()
        .add(endless())
        .serve(listener, shutdown)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("service \"{NAME}\" is served but not part of the contract")
    );
}

#[tokio::test]
async fn calls_are_counted_by_method_and_outcome_on_both_sides() {
    let served = serve(
        Config::default(),
        TestService::new(|method, _| async move {
            match method.as_str() {
                "Read" => Ok(one("")),
                _ => Err(tonic::Status::not_found("no such thing")),
            }
        }),
    )
    .await;
    let registry = prometheus::Registry::new();
    let mut config = Config::default();
    config
        .destinations
        .insert("test".into(), format!("http://{}", served.address));
    let client = TestClient(mesh_with(config, &registry).client("test"));
    client.unary("Read", "").await.unwrap();
    client.unary("Read", "").await.unwrap();
    client.unary("Put", "").await.unwrap_err();
    client.unary("Nonsense", "").await.unwrap_err();
    served.shutdown.cancel();
    served.serving.await.unwrap().unwrap();

    for (registry, side) in [(&registry, "client"), (&served.registry, "server")] {
        let text = TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let target = match side {
            "client" => ",grpc_target=\"test\"",
            _ => "",
        };
        let calls = |method: &str, status: &str| {
            let labels = format!("grpc_method=\"{method}\",grpc_status=\"{status}\"{target}");
            format!("grpc_{side}_call_duration_seconds_count{{{labels}}}")
        };
        for line in [
            calls(&format!("{NAME}/Read"), "OK") + " 2",
            calls(&format!("{NAME}/Put"), "NOT_FOUND") + " 1",
            calls("other", "NOT_FOUND") + " 1",
            format!("mesh_{side}_calls_in_flight 0"),
        ] {
            assert!(text.contains(&line), "{line} is missing from\n{text}");
        }
    }
}

#[tokio::test]
async fn two_meshes_in_one_registry_are_refused() {
    let registry = prometheus::Registry::new();
    let contract = || mesh::Contract::new(crate::support::contract::descriptor_set()).unwrap();
    let _first = mesh::Mesh::new(Config::default(), contract(), &registry).unwrap();
    let second = mesh::Mesh::new(Config::default(), contract(), &registry).unwrap_err();
    assert!(matches!(second, mesh::Error::Metrics(_)), "{second}");
}
