//! How a server says that calls should come here, or not any more, and what it still does then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use mesh::{Client, Config, Mesh, ServerConfig};
use prometheus::Registry;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
    health_client::HealthClient,
};

use crate::support::{PATIENCE, TestClient, TestService, elapse, mesh_calling, mesh_with, one};

const NAME: &str = "mesh.test.v1.TestService";
const WAIT: Duration = Duration::from_mins(1);

fn echo() -> TestService {
    TestService::new(|_, _| async { Ok(one("here")) })
}

fn ask(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn serves(client: &Client, service: &str) -> bool {
    let answer = HealthClient::new(client.clone()).check(ask(service)).await;
    answer.unwrap().get_ref().status() == ServingStatus::Serving
}

async fn next(watching: &mut Streaming<HealthCheckResponse>) -> ServingStatus {
    let answer = timeout(PATIENCE, watching.next()).await.unwrap();
    answer.unwrap().unwrap().status()
}

#[tokio::test]
async fn in_the_wait_before_the_drain_calls_are_served_and_health_sends_new_ones_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = ServerConfig {
        drain_wait_ms: WAIT.as_millis().try_into().unwrap(),
        ..ServerConfig::default()
    };
    let config = Config {
        server,
        ..Config::default()
    };
    let server = mesh_with(config, &Registry::new()).server().add(echo());
    let (draining, shutdown) = (server.draining(), CancellationToken::new());
    let serving = mesh::spawn(server.serve(listener, shutdown.clone()));
    let client = mesh_calling(address).client("test");
    for name in ["", "startup", "readiness", "liveness", NAME] {
        assert!(serves(&client, name).await, "{name}");
    }
    let nobody = HealthClient::new(client.clone()).check(ask("nobody")).await;
    assert_eq!(nobody.unwrap_err().code(), Code::NotFound);

    let watching = HealthClient::new(client.clone())
        .watch(ask("readiness"))
        .await;
    let mut watching = watching.unwrap().into_inner();
    assert_eq!(next(&mut watching).await, ServingStatus::Serving);
    shutdown.cancel();
    assert_eq!(next(&mut watching).await, ServingStatus::NotServing);
    elapse(WAIT / 2).await;
    let late = mesh_calling(address).client("test"); // Over a new connection.
    assert_eq!(
        TestClient(late.clone()).unary("Read", "").await.unwrap(),
        "here"
    );
    for (name, expected) in [
        ("startup", true),
        ("liveness", true),
        ("readiness", false),
        ("", false),
        (NAME, false),
    ] {
        assert_eq!(serves(&late, name).await, expected, "{name}");
    }
    assert!(!draining.is_cancelled() && !serving.is_finished());
    elapse(WAIT / 2).await;
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
    assert!(draining.is_cancelled());
}

#[tokio::test]
async fn readiness_follows_its_check_and_liveness_does_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let database = Arc::new(AtomicBool::new(false));
    let asked = database.clone();
    let server = mesh_with(Config::default(), &Registry::new()).server();
    let server = server.add(echo()).ready_when(move || {
        let answers = asked.load(SeqCst);
        async move { answers.then_some(()).ok_or_else(|| "away".to_owned()) }
    });
    let shutdown = CancellationToken::new();
    let serving = mesh::spawn(server.serve(listener, shutdown.clone()));
    let client = mesh_calling(address).client("test");
    let watching = HealthClient::new(client.clone())
        .watch(ask("readiness"))
        .await;
    let mut watching = watching.unwrap().into_inner();
    assert_eq!(next(&mut watching).await, ServingStatus::NotServing);
    assert!(serves(&client, "liveness").await && serves(&client, "startup").await);
    for answers in [true, false] {
        database.store(answers, SeqCst);
        elapse(Duration::from_secs(1)).await;
        let expected = if answers {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        assert_eq!(next(&mut watching).await, expected);
        assert_eq!(serves(&client, "").await, answers);
        assert!(serves(&client, "liveness").await && serves(&client, NAME).await);
    }
    shutdown.cancel();
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_check_that_hangs_counts_as_failed() {
    let mesh = mesh_with(Config::default(), &Registry::new());
    let (serving, shutdown, client) = hang_after_one_check(&mesh).await;
    elapse(Duration::from_secs(1)).await; // The second check begins,
    elapse(Duration::from_secs(2)).await; // and has no answer in time.
    become_unready(&client).await;
    shutdown.cancel();
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_check_has_the_time_that_is_configured_when_it_begins() {
    let mesh = mesh_with(Config::default(), &Registry::new());
    let (serving, shutdown, client) = hang_after_one_check(&mesh).await;
    let mut patient = Config::default();
    patient.server.readiness_timeout_ms = 4_000;
    mesh.reload(patient).unwrap();
    elapse(Duration::from_secs(1)).await;
    elapse(Duration::from_millis(2_500)).await;
    assert!(serves(&client, "").await);
    elapse(Duration::from_millis(1_500)).await;
    become_unready(&client).await;
    shutdown.cancel();
    timeout(PATIENCE, serving).await.unwrap().unwrap().unwrap();
}

/// A server that is ready, and whose further checks of that never end.
async fn hang_after_one_check(
    mesh: &Mesh,
) -> (
    JoinHandle<Result<(), mesh::Error>>,
    CancellationToken,
    Client,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let first = AtomicBool::new(true);
    let server = mesh.server().add(echo()).ready_when(move || {
        let first = first.swap(false, SeqCst);
        async move {
            if !first {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    });
    let shutdown = CancellationToken::new();
    let serving = mesh::spawn(server.serve(listener, shutdown.clone()));
    let client = mesh_calling(address).client("test");
    let watching = HealthClient::new(client.clone()).watch(ask("")).await;
    let mut watching = watching.unwrap().into_inner();
    while next(&mut watching).await != ServingStatus::Serving {}
    (serving, shutdown, client)
}

/// Waits until health says that calls should go elsewhere.
async fn become_unready(client: &Client) {
    let watching = HealthClient::new(client.clone()).watch(ask("")).await;
    let mut watching = watching.unwrap().into_inner();
    while next(&mut watching).await != ServingStatus::NotServing {}
}
