//! Which endpoint a call goes to: slow, failing and dead ones are avoided, new ones are taken in, and
//! connections grow and shrink.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use mesh::{Config, EndpointSnapshot, EndpointState, Mesh, ServerConfig};
use prometheus::Registry;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet, time::timeout};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    PATIENCE, Served, TestClient, TestService, elapse, mesh_calling_all, mesh_with, one, serve,
};

/// A backend that counts its calls.
async fn backend<F>(
    handle: impl Fn(String) -> F + Clone + Send + Sync + 'static,
) -> (Served, Arc<AtomicUsize>)
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let service = TestService::new(move |method, _| {
        counted.fetch_add(1, SeqCst);
        let handling = handle(method);
        async move { handling.await.map(|()| one("done")) }
    });
    (serve(Config::default(), service).await, count)
}

async fn well(_: String) -> Result<(), Status> {
    Ok(())
}

/// Makes `calls` calls, `concurrent` at a time; answers how many failed.
async fn call(
    client: &TestClient<mesh::Client>,
    method: &str,
    calls: usize,
    concurrent: usize,
) -> usize {
    let outcomes = stream::iter(0..calls).map(|_| client.unary(method, ""));
    let failed = outcomes
        .buffer_unordered(concurrent)
        .filter(|outcome| std::future::ready(outcome.is_err()));
    failed.count().await
}

fn endpoints(mesh: &Mesh) -> Vec<EndpointSnapshot> {
    mesh.endpoints().remove(0).endpoints
}

fn endpoint(mesh: &Mesh, address: SocketAddr) -> EndpointSnapshot {
    let mut all = endpoints(mesh).into_iter();
    all.find(|endpoint| endpoint.address == address.to_string())
        .expect("it is known")
}

/// Where nobody listens.
async fn dead() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    listener.local_addr().expect("loopback has a free port")
}

#[tokio::test]
async fn a_slow_backend_is_avoided() {
    let mut backends = Vec::new();
    for index in 0..4 {
        let pause = Duration::from_millis(if index == 0 { 2_000 } else { 1 });
        backends.push(
            backend(move |_| async move {
                tokio::time::sleep(pause).await;
                Ok(())
            })
            .await,
        );
    }
    let mesh = mesh_calling_all(backends.iter().map(|(served, _)| served.address));
    let client = TestClient(mesh.client("test"));
    assert_eq!(call(&client, "Post", 1000, 8).await, 0);
    let slow = backends[0].1.load(SeqCst);
    assert!(slow < 50, "{slow} of 1000 calls went to the slow one");
}

#[tokio::test]
async fn a_backend_that_fails_fast_gets_few_calls() {
    let mut backends = vec![backend(|_| async { Err(Status::unavailable("broken")) }).await];
    for _ in 0..4 {
        backends.push(backend(well).await);
    }
    let mesh = mesh_calling_all(backends.iter().map(|(served, _)| served.address));
    let client = TestClient(mesh.client("test"));
    let failed = call(&client, "Post", 1000, 4).await;
    println!("{failed} of 1000 calls went to the one of five that fails fast");
    assert_eq!(failed, backends[0].1.load(SeqCst), "nothing is sent twice");
    assert!(failed <= 10, "{failed} calls failed: over 5 % of its share");
}

#[tokio::test]
async fn a_backend_that_fails_in_a_row_is_ejected_and_asked_again() {
    let mut backends = vec![backend(|_| async { Err(Status::unavailable("broken")) }).await];
    for _ in 0..4 {
        // So slow that the failing one looks attractive for a while.
        backends.push(
            backend(|_| async {
                tokio::time::sleep(Duration::from_millis(30)).await;
                Ok(())
            })
            .await,
        );
    }
    let mesh = mesh_calling_all(backends.iter().map(|(served, _)| served.address));
    let client = TestClient(mesh.client("test"));
    let failed = call(&client, "Post", 400, 16).await;
    assert!((5..=24).contains(&failed), "{failed} calls failed");
    let broken = backends[0].0.address;
    let seen = endpoint(&mesh, broken);
    assert_eq!(seen.state, EndpointState::Ejected);
    assert!(seen.ejected_for_ms > 0);

    elapse(Duration::from_secs(31)).await;
    assert_eq!(endpoint(&mesh, broken).state, EndpointState::Ready);
    let failed = call(&client, "Post", 400, 16).await;
    assert!((1..=24).contains(&failed), "{failed} calls failed");
}

#[tokio::test]
async fn not_everybody_is_ejected_when_everybody_fails() {
    let mut backends = Vec::new();
    for _ in 0..4 {
        backends.push(backend(|_| async { Err(Status::unavailable("broken")) }).await);
    }
    let mesh = mesh_calling_all(backends.iter().map(|(served, _)| served.address));
    let client = TestClient(mesh.client("test"));
    assert_eq!(call(&client, "Post", 300, 4).await, 300, "and all are told");
    let ejected = endpoints(&mesh)
        .iter()
        .filter(|seen| seen.state == EndpointState::Ejected)
        .count();
    assert_eq!(ejected, 2, "half of them, by default");
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_call() {
    let (served, count) = backend(well).await;
    let mesh = mesh_calling_all([dead().await, served.address]);
    let client = TestClient(mesh.client("test"));
    assert_eq!(call(&client, "Post", 500, 8).await, 0);
    assert_eq!(count.load(SeqCst), 500);
    let mut states: Vec<_> = endpoints(&mesh)
        .into_iter()
        .map(|seen| seen.state)
        .collect();
    states.sort_unstable_by_key(|state| *state == EndpointState::Ready);
    assert_eq!(states, [EndpointState::Down, EndpointState::Ready]);
}

#[tokio::test]
async fn a_rolling_restart_fails_no_call() {
    let handle = |_: String| async {
        tokio::task::yield_now().await;
        Ok(())
    };
    let mut backends = vec![backend(handle).await, backend(handle).await];
    let mesh = mesh_calling_all(backends.iter().map(|(served, _)| served.address));
    let client = TestClient(mesh.client("test"));
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (client, stopping) = (client.clone(), stopping.clone());
        callers.spawn(mesh::carry(async move {
            let mut calls = 0;
            while !*stopping.borrow() {
                client.unary("Post", "").await.expect("no call fails");
                calls += 1;
            }
            calls
        }));
    }
    for round in 0..10 {
        let (served, count) = backends.remove(0);
        let before = count.load(SeqCst);
        // It serves before it goes.
        timeout(PATIENCE, async {
            while count.load(SeqCst) < before + 20 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("round {round}: it is not called: {:?}", endpoints(&mesh)));
        served.shutdown.cancel();
        served.serving.await.unwrap().unwrap();
        let listener = TcpListener::bind(served.address).await.unwrap();
        let (counted, shutdown) = (count.clone(), tokio_util::sync::CancellationToken::new());
        let service = TestService::new(move |_, _| {
            counted.fetch_add(1, SeqCst);
            async { Ok(one("done")) }
        });
        let server = mesh_with(Config::default(), &Registry::new());
        let serving = mesh::spawn(
            server
                .server()
                .add(service)
                .serve(listener, shutdown.clone()),
        );
        let (address, registry) = (served.address, served.registry);
        let served = Served {
            registry,
            address,
            shutdown,
            serving,
        };
        backends.push((served, count));
    }
    stop.send(true).unwrap();
    assert!(callers.join_all().await.iter().all(|calls| *calls > 0));
}

#[tokio::test]
async fn connections_grow_with_the_peers_limit_and_go_when_they_are_idle() {
    let release = Arc::new(Semaphore::new(0));
    let (arrived, released) = (Arc::new(AtomicUsize::new(0)), release.clone());
    let counted = arrived.clone();
    // Only the client ends connections: a server whose pings come back too late for a clock that leaps does too.
    let server = ServerConfig {
        streams_max: 2,
        connection_age_max_ms: 0,
        connection_idle_max_ms: 0,
        ..ServerConfig::default()
    };
    let config = Config {
        server,
        keepalive_timeout_ms: 3_600_000,
        ..Config::default()
    };
    let service = TestService::new(move |_, _| {
        counted.fetch_add(1, SeqCst);
        let released = released.clone();
        async move {
            drop(released.acquire().await);
            Ok(one("done"))
        }
    });
    let served = serve(config, service).await;
    let mesh = mesh_calling_all([served.address]);
    let client = TestClient(mesh.client("test"));
    let mut calls = JoinSet::new();
    for number in 1..=6 {
        let client = client.clone();
        calls.spawn(mesh::carry(async move { client.unary("Post", "").await }));
        timeout(PATIENCE, async {
            while arrived.load(SeqCst) < number {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("call {number} waits: {:?}", endpoints(&mesh)));
    }
    assert_eq!(endpoints(&mesh)[0].in_flight, 6);
    assert_eq!(endpoints(&mesh)[0].connections, 3);
    release.add_permits(6);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(endpoints(&mesh)[0].in_flight, 0);

    // Five minutes are the default; the clock of the test's own patience moves along.
    for _ in 0..1000 {
        if endpoints(&mesh)[0].connections == 0 {
            break;
        }
        elapse(Duration::from_secs(20)).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(endpoints(&mesh)[0].connections, 0);
    assert_eq!(endpoints(&mesh)[0].state, EndpointState::Idle);
    assert_eq!(client.unary("Post", "").await.unwrap(), "done");
}

#[tokio::test]
async fn what_is_above_the_circuit_breakers_limit_is_refused_at_once() {
    let (served, count) = backend(|_| std::future::pending()).await;
    let mut config = Config::default();
    config.client.concurrent_max = 1;
    config
        .destinations
        .insert("test".into(), format!("http://{}", served.address));
    let mesh = mesh_with(config, &Registry::new());
    let client = TestClient(mesh.client("test"));
    let hanging = client.clone();
    let hanging = mesh::spawn(async move { hanging.unary("Post", "").await });
    while count.load(SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let status = client.unary("Read", "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "CIRCUIT_OPEN");
    assert_eq!(info.metadata["layer"], "circuit");
    hanging.abort();
    let _ = hanging.await;
    assert_eq!(mesh.endpoints()[0].in_flight, 0);
}

#[tokio::test]
async fn calls_stay_in_their_zone_while_somebody_there_serves() {
    let (near, near_count) = backend(well).await;
    let (far, far_count) = backend(well).await;
    let mut config = Config::default();
    config.client.zone = "north".into();
    config.client.balance.zone_spill_percent = 100_000;
    let text = format!(
        "http://{};zone=north, http://{};zone=south",
        near.address, far.address
    );
    config.destinations.insert("test".into(), text);
    let mesh = mesh_with(config, &Registry::new());
    let client = TestClient(mesh.client("test"));
    // Connects both: nobody waits for the near one while the far one is there.
    call(&client, "Post", 50, 2).await;
    let before = (near_count.load(SeqCst), far_count.load(SeqCst));
    assert_eq!(call(&client, "Post", 200, 2).await, 0);
    assert_eq!(near_count.load(SeqCst) - before.0, 200);
    assert_eq!(far_count.load(SeqCst), before.1);
    near.shutdown.cancel();
    near.serving.await.unwrap().unwrap();
    assert_eq!(call(&client, "Post", 200, 2).await, 0);
    assert_eq!(far_count.load(SeqCst) - before.1, 200);
}
