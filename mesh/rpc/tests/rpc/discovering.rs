//! Endpoints come and go without an error, and a look-up that brings nothing changes nothing.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use mesh::{Config, Mesh};
use prometheus::{Registry, TextEncoder};
use tokio::{task::JoinSet, time::timeout};

use crate::support::{PATIENCE, Served, TestClient, TestService, mesh_with, one, serve};

async fn named(name: &'static str) -> Served {
    let service = TestService::new(move |_, _| async move { Ok(one(name)) });
    serve(Config::default(), service).await
}

fn write(path: &Path, addresses: &[SocketAddr]) {
    let lines: Vec<_> = addresses
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    let lines = lines.join("\n");
    let draft = path.with_extension("draft");
    std::fs::write(&draft, lines).expect("the folder is ours");
    std::fs::rename(draft, path).expect("the folder is ours");
}

fn mesh_of(destination: String) -> (Mesh, Registry) {
    let mut config = Config::default();
    config.client.discovery.file_interval_ms = 10;
    config.destinations.insert("test".into(), destination);
    let registry = Registry::new();
    (mesh_with(config, &registry), registry)
}

fn metrics(registry: &Registry) -> String {
    TextEncoder::new()
        .encode_to_string(&registry.gather())
        .expect("metrics are text")
}

/// Until the condition holds, or the test's patience is over.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, holds)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn endpoints_come_and_go_under_load_without_an_error() {
    let servers = [named("a").await, named("b").await, named("c").await];
    let address = |index: usize| servers[index].address;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints");
    write(&path, &[address(0)]);
    let (mesh, _registry) = mesh_of(format!("file://{}", path.display()));
    let client = TestClient(mesh.client("test"));
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (client, stop) = (client.clone(), stop.clone());
        callers.spawn(mesh::carry(async move {
            while !stop.load(SeqCst) {
                client.unary("Post", "").await.expect("no call fails");
            }
        }));
    }
    let known = || {
        let endpoints = mesh.endpoints().remove(0).endpoints;
        let mut known: Vec<_> = endpoints.into_iter().map(|seen| seen.address).collect();
        known.sort_unstable();
        known
    };
    for round in 0..12 {
        let kept = [address(round % 3), address((round + 1) % 3)];
        let kept = &kept[..=round % 2];
        write(&path, kept);
        let mut expected: Vec<_> = kept.iter().map(ToString::to_string).collect();
        expected.sort_unstable();
        until("the file is taken over", || known() == expected).await;
        // The one that is there now answers; those in flight elsewhere finish.
        client.unary("Post", "").await.unwrap();
    }
    stop.store(true, SeqCst);
    callers.join_all().await;
}

#[tokio::test]
async fn an_empty_a_broken_and_a_missing_file_change_nothing_and_say_so() {
    let server = named("a").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("endpoints");
    write(&path, &[server.address]);
    let (mesh, registry) = mesh_of(format!("file://{}", path.display()));
    let client = TestClient(mesh.client("test"));
    assert_eq!(client.unary("Read", "").await.unwrap(), "a");
    assert_eq!(mesh.endpoints()[0].discovery_trouble, None);

    let trouble = || {
        mesh.endpoints()
            .remove(0)
            .discovery_trouble
            .unwrap_or_default()
    };
    std::fs::write(&path, "# nobody\n").unwrap();
    until("it is empty", || trouble().contains("no endpoint")).await;
    assert_eq!(client.unary("Read", "").await.unwrap(), "a");
    std::fs::write(&path, "http://a:1\nnonsense\n").unwrap();
    until("it is broken", || trouble().contains("line 2")).await;
    assert_eq!(client.unary("Read", "").await.unwrap(), "a");
    std::fs::remove_file(&path).unwrap();
    until("it is missing", || trouble().contains("No such file")).await;
    assert_eq!(client.unary("Read", "").await.unwrap(), "a");

    let text = metrics(&registry);
    for outcome in ["empty", "failed", "updated"] {
        let line =
            format!("mesh_client_discovery_total{{grpc_target=\"test\",outcome=\"{outcome}\"}}");
        assert!(text.contains(&line), "{line} is missing from\n{text}");
    }
    write(&path, &[server.address]);
    until("it is well again", || trouble().is_empty()).await;
}

#[tokio::test]
async fn a_destination_without_any_endpoint_so_far_says_why() {
    let (mesh, _registry) = mesh_of("file:///nowhere/to/be/found".into());
    let status = TestClient(mesh.client("test"))
        .unary("Post", "")
        .await
        .unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert!(
        status
            .message()
            .contains("no endpoint has been found (discovery"),
        "{status}"
    );
}

#[tokio::test]
async fn a_name_is_resolved() {
    let server = named("a").await;
    let (mesh, _registry) = mesh_of(format!("dns://localhost:{}", server.address.port()));
    let client = TestClient(mesh.client("test"));
    assert_eq!(client.unary("Post", "").await.unwrap(), "a");
    let endpoints = mesh.endpoints().remove(0).endpoints;
    assert!(
        endpoints
            .iter()
            .any(|seen| seen.address == server.address.to_string()),
        "{endpoints:?}"
    );
}
