//! Another configuration while calls run: the next call finds it, and none fails for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use mesh::{CallContext, Config, Mesh, RateLimitRule};
use prometheus::Registry;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{Served, TestClient, TestService, mesh_with, one, serve};

/// Answers with its name.
async fn named(name: &'static str) -> Served {
    let service = TestService::new(move |_, _| async move { Ok(one(name)) });
    serve(Config::default(), service).await
}

fn client(mesh: &Mesh) -> TestClient<mesh::Client> {
    TestClient(mesh.client("test"))
}

/// A mesh with the destinations `v1` and `v2`, and `test` shared between them.
fn split(one: &Served, two: &Served, weights: (u32, u32)) -> Config {
    let mut config = Config::default();
    for (name, served) in [("v1", one), ("v2", two)] {
        let address = format!("http://{}", served.address);
        config.destinations.insert(name.to_owned(), address);
    }
    let versions = [("v1".to_owned(), weights.0), ("v2".to_owned(), weights.1)];
    config
        .splits
        .insert("test".to_owned(), BTreeMap::from(versions));
    config
}

/// Calls that go on until they are told to stop, and how many there were.
struct Calls {
    stop: Arc<AtomicBool>,
    made: Arc<AtomicU32>,
    tasks: Vec<tokio::task::JoinHandle<Result<(), Status>>>,
}

impl Calls {
    fn begin(mesh: &Mesh) -> Self {
        let (stop, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let tasks = (0..4).map(|_| {
            let (client, stop, made) = (client(mesh), stop.clone(), made.clone());
            mesh::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Not repeatable: nothing makes a failure good.
                    client.unary("Post", "").await?;
                    made.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        });
        Self {
            tasks: tasks.collect(),
            stop,
            made,
        }
    }

    /// Waits until so many more were made.
    async fn go_on(&self, more: u32) {
        let wanted = self.made.load(Ordering::Relaxed) + more;
        while self.made.load(Ordering::Relaxed) < wanted
            && !self.tasks.iter().any(tokio::task::JoinHandle::is_finished)
        {
            tokio::task::yield_now().await;
        }
    }

    /// The first failure, if there was one.
    async fn end(self) -> Result<(), Status> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("callers do not panic")?;
        }
        Ok(())
    }
}

async fn share_of_two(mesh: &Mesh, calls: u32) -> u32 {
    let (client, mut two) = (client(mesh), 0);
    for _ in 0..calls {
        let name = client.unary("Post", "").await.expect("no call fails");
        two += u32::from(name == "two");
    }
    two
}

#[tokio::test]
async fn weights_change_while_calls_run_and_none_fails() {
    let (one, two) = (named("one").await, named("two").await);
    let mesh = mesh_with(split(&one, &two, (1, 0)), &Registry::new());
    mesh.require(&["test"]).unwrap();
    assert_eq!(share_of_two(&mesh, 50).await, 0);
    let calls = Calls::begin(&mesh);
    calls.go_on(100).await;
    for (weights, expected) in [((0, 7), 200..=200), ((3, 1), 20..=80), ((1, 0), 0..=0)] {
        let reloaded = mesh.reload(split(&one, &two, weights)).unwrap();
        assert!(reloaded.after_restart.is_empty(), "{reloaded:?}");
        calls.go_on(100).await;
        let seen = share_of_two(&mesh, 200).await;
        assert!(expected.contains(&seen), "{weights:?}: {seen} of 200");
    }
    calls.end().await.unwrap();
}

#[tokio::test]
async fn a_destination_moves_while_calls_run_and_none_fails() {
    let (one, two) = (named("one").await, named("two").await);
    let at = |served: &Served| {
        let address = format!("http://{}", served.address);
        Config {
            destinations: BTreeMap::from([("test".to_owned(), address)]),
            ..Config::default()
        }
    };
    let mesh = mesh_with(at(&one), &Registry::new());
    let calls = Calls::begin(&mesh);
    calls.go_on(100).await;
    let reloaded = mesh.reload(at(&two)).unwrap();
    assert_eq!(reloaded.changed, ["mesh.destinations.test"]);
    while client(&mesh).unary("Post", "").await.unwrap() != "two" {}
    calls.go_on(100).await;
    calls.end().await.unwrap();
}

#[tokio::test]
async fn the_default_deadline_of_the_next_call_is_the_new_one() {
    let service = TestService::new(|_, _| async {
        let left = CallContext::current()
            .deadline()
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        Ok(one(left.map_or(0, |left| left.as_secs()).to_string()))
    });
    let served = serve(Config::default(), service).await;
    let config = |deadline_default_ms| {
        let address = format!("http://{}", served.address);
        Config {
            destinations: BTreeMap::from([("test".to_owned(), address)]),
            deadline_default_ms,
            ..Config::default()
        }
    };
    let mesh = mesh_with(config(9_500), &Registry::new());
    let left = async || {
        let left = client(&mesh).unary("Post", "").await.unwrap();
        left.parse::<u64>().unwrap()
    };
    assert!((5..10).contains(&left().await));
    let reloaded = mesh.reload(config(4_500)).unwrap();
    assert_eq!(reloaded.changed, ["mesh.deadline_default_ms"]);
    assert!((1..5).contains(&left().await));
}

/// A server whose mesh can be reloaded.
async fn reloadable() -> (Mesh, TestClient<mesh::Client>) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    let mesh = mesh_with(Config::default(), &Registry::new());
    let service = TestService::new(|_, _| async { Ok(one("fine")) });
    let server = mesh.server().add(service);
    mesh::spawn(server.serve(listener, CancellationToken::new()));
    let client = TestClient(crate::support::mesh_calling(address).client("test"));
    (mesh, client)
}

/// Hardly ever more than one `Put`.
fn limited() -> Config {
    let mut config = Config::default();
    let rule = RateLimitRule {
        methods: vec!["/mesh.test.v1.TestService/Put".to_owned()],
        per_s: 0.001,
        ..RateLimitRule::default()
    };
    let rules = &mut config.server.rate_limits.rules;
    rules.insert("puts".to_owned(), rule);
    config
}

#[tokio::test]
async fn a_rate_limit_comes_and_goes_while_the_server_runs() {
    let (mesh, client) = reloadable().await;
    for _ in 0..5 {
        client.unary("Put", "").await.unwrap();
    }
    mesh.reload(limited()).unwrap();
    client.unary("Put", "").await.unwrap();
    let refused = client.unary("Put", "").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let info = refused.get_error_details().error_info().cloned().unwrap();
    assert_eq!(
        (&*info.reason, &*info.metadata["policy"]),
        ("RATE_LIMITED", "puts")
    );
    client.unary("Read", "").await.unwrap();
    mesh.reload(Config::default()).unwrap();
    client.unary("Put", "").await.unwrap();
}

#[tokio::test]
async fn a_bad_configuration_is_refused_as_a_whole() {
    let (mesh, client) = reloadable().await;
    let bad = Config {
        message_bytes_max: 0,
        ..limited()
    };
    let error = mesh.reload(bad).unwrap_err().to_string();
    assert_eq!(error, "mesh.message_bytes_max must not be 0");
    let mut bad = limited();
    bad.server
        .rate_limits
        .rules
        .insert("r".to_owned(), RateLimitRule::default());
    let error = mesh.reload(bad).unwrap_err().to_string();
    assert!(
        error.starts_with("mesh.server.rate_limits.rules.r.per_s must be above 0"),
        "{error}"
    );
    // Nothing of either has come into effect.
    for _ in 0..3 {
        client.unary("Put", "").await.unwrap();
    }
    assert!(mesh.config().server.rate_limits.rules.is_empty());
}

#[tokio::test]
async fn a_configuration_without_a_required_destination_is_refused() {
    let (one, two) = (named("one").await, named("two").await);
    let config = split(&one, &two, (1, 1));
    let mesh = mesh_with(config.clone(), &Registry::new());
    mesh.require(&["test", "v1"]).unwrap();
    let mut without = config.clone();
    without.splits.clear();
    let error = mesh.reload(without).unwrap_err().to_string();
    assert!(error.starts_with("mesh.destinations.test"), "{error}");
    let mut unknown = config;
    unknown.destinations.remove("v2");
    let error = mesh.reload(unknown).unwrap_err().to_string();
    assert_eq!(
        error,
        "mesh.splits.test.v2 must be one of mesh.destinations"
    );
    client(&mesh).unary("Post", "").await.unwrap();
}

#[tokio::test]
async fn an_identity_and_what_needs_it_do_not_come_in_one_reload() {
    let served = named("one").await;
    let plain = Config {
        destinations: BTreeMap::from([("test".to_owned(), format!("http://{}", served.address))]),
        ..Config::default()
    };
    let mesh = mesh_with(plain.clone(), &Registry::new());
    let mut identified = plain;
    identified.identity.mode = mesh::identity::Mode::Permissive;
    identified.identity.workload_api = Some("unix:///run/spire/agent.sock".to_owned());
    let mut encrypted = identified.clone();
    let address = format!("https://{}", served.address);
    encrypted.destinations.insert("test".to_owned(), address);
    let error = mesh.reload(encrypted).unwrap_err().to_string();
    let reason = "speaks TLS, and mesh.identity.mode stays off until the process starts again";
    assert_eq!(error, format!("mesh.destinations.test {reason}"));
    client(&mesh).unary("Post", "").await.unwrap();
    // By itself it is taken, and named as what needs a restart.
    let reloaded = mesh.reload(identified).unwrap();
    assert!(reloaded.changed.is_empty(), "{reloaded:?}");
    assert_eq!(
        reloaded.after_restart,
        ["mesh.identity.mode", "mesh.identity.workload_api"]
    );
}

#[tokio::test]
async fn what_counts_only_after_a_restart_is_named() {
    let mesh = mesh_with(Config::default(), &Registry::new());
    let mut config = Config {
        stream_window_bytes: 1 << 17,
        message_bytes_max: 1 << 21,
        ..Config::default()
    };
    config.server.streams_max = 5;
    config.server.connection_age_max_ms = 5_000;
    config.server.connection_age_grace_ms = 5_000;
    config.server.connection_idle_max_ms = 5_000;
    config.identity.workload_api = Some("unix:///run/spire/agent.sock".to_owned());
    config.client.retry.budget_percent = 7;
    config.server.overload.limit_min = 16;
    let mut reloaded = mesh.reload(config.clone()).unwrap();
    reloaded.changed.sort();
    reloaded.after_restart.sort();
    assert_eq!(
        reloaded.changed,
        ["mesh.message_bytes_max", "mesh.server.overload.limit_min"]
    );
    assert_eq!(
        reloaded.after_restart,
        [
            "mesh.client.retry.budget_percent",
            "mesh.identity.workload_api",
            "mesh.server.connection_age_grace_ms",
            "mesh.server.connection_age_max_ms",
            "mesh.server.connection_idle_max_ms",
            "mesh.server.streams_max",
            "mesh.stream_window_bytes"
        ]
    );
    let again = mesh.reload(config).unwrap();
    assert!(again.changed.is_empty() && again.after_restart.is_empty());
}
