//! Identities that change under a system that runs: certificates, authorities, modes.

use std::{
    net::SocketAddr,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use mesh::{Client, Config, Mesh, identity::Mode};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    party::{Authority, Party, QUICK, holds, started},
    support::{PATIENCE, TestClient, TestService, all_ready, count, due, mesh_with, one, rate},
};

fn echo() -> TestService {
    TestService::new(|_, _| async { Ok(one("fine")) })
}

/// The issue's load.
const CALLS_PER_S: f64 = 500.0;

/// Calls until it is told to end; every call has to succeed.
struct Load {
    calls: JoinSet<()>,
    began: Instant,
    done: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    client: Arc<RwLock<TestClient<Client>>>,
}

impl Load {
    fn begin(client: Client) -> Self {
        let client = Arc::new(RwLock::new(TestClient(client)));
        let (done, made) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (mut calls, began) = (JoinSet::new(), Instant::now());
        for method in ["Read", "Put", "Post", "Post"] {
            let (client, done, made) = (client.clone(), done.clone(), made.clone());
            calls.spawn(async move {
                while !done.load(SeqCst) {
                    let client = client.read().unwrap().clone();
                    client.unary(method, "").await.unwrap();
                    due(began, made.fetch_add(1, SeqCst), CALLS_PER_S).await;
                }
            });
        }
        Self {
            calls,
            began,
            done,
            made,
            client,
        }
    }

    /// Until so many calls more were made.
    async fn goes_on(&mut self, calls: usize) {
        let enough = self.made.load(SeqCst) + calls;
        while self.made.load(SeqCst) < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(self.calls.try_join_next().is_none(), "a call has failed");
        }
    }

    async fn end(mut self, what: &str) -> usize {
        self.done.store(true, SeqCst);
        let made = self.made.load(SeqCst);
        rate(what, made, self.began.elapsed(), CALLS_PER_S);
        while let Some(ended) = self.calls.join_next().await {
            ended.unwrap();
        }
        made
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotations_under_load_fail_no_call() {
    // The issue's thousand by the variable.
    let rotations = count("MESH_TEST_ROTATIONS", 200);
    let mut authority = Authority::new("shop.example");
    let mut bundle = authority.pem();
    let product = Party::new(&authority.issue("/product"), &bundle);
    let payment = Party::new(&authority.issue("/payment"), &bundle);
    let mut config = product.config(Mode::Strict, QUICK);
    config.server.connection_age_max_ms = 300; // So that there are handshakes all the time.
    let server = started(config).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let serving = mesh::spawn(
        server
            .server()
            .add(echo())
            .serve(listener, shutdown.clone()),
    );
    let mut config = payment.config(Mode::Strict, QUICK);
    let to = format!("https://{address};id=spiffe://shop.example/product");
    config.destinations.insert("test".into(), to);
    let caller = started(config).await;
    let mut load = Load::begin(caller.client("test"));
    for rotation in 1..=rotations {
        // Once in a while the authority itself: first everybody trusts both, then the new one signs.
        let next = (rotation % 50 == 0).then(|| Authority::new("shop.example"));
        if let Some(next) = &next {
            bundle = authority.pem() + &next.pem();
        }
        for _ in 0..=usize::from(next.is_some()) {
            let (ours, theirs) = (authority.issue("/product"), authority.issue("/payment"));
            product.write(&ours, &bundle, "");
            payment.write(&theirs, &bundle, "");
            let held = async {
                tokio::join!(holds(&server, ours.serial), holds(&caller, theirs.serial));
            };
            timeout(PATIENCE, held).await.unwrap();
        }
        if let Some(next) = next {
            authority = next;
        }
        assert!(load.calls.try_join_next().is_none(), "a call has failed");
    }
    load.goes_on(10).await;
    let made = load.end("rotations").await;
    assert!(
        made > rotations / 10,
        "only {made} calls were made meanwhile"
    );
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

struct Process {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), mesh::Error>>,
}

/// Two processes of a server, restarted one after the other.
struct Fleet {
    processes: Vec<Process>,
}

impl Fleet {
    async fn begin(config: &Config) -> Self {
        let mut processes = Vec::new();
        for _ in 0..2 {
            processes.push(Self::process("127.0.0.1:0".parse().unwrap(), config).await);
        }
        Self { processes }
    }

    async fn process(address: SocketAddr, config: &Config) -> Process {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mesh, shutdown) = (started(config.clone()).await, CancellationToken::new());
        let serving = mesh::spawn(mesh.server().add(echo()).serve(listener, shutdown.clone()));
        Process {
            address,
            shutdown,
            serving,
        }
    }

    async fn restart(&mut self, config: &Config, caller: &Mesh, load: &mut Load) {
        for process in &mut self.processes {
            process.shutdown.cancel();
            let ended = timeout(PATIENCE, &mut process.serving).await.unwrap();
            ended.unwrap().unwrap();
            *process = Self::process(process.address, config).await;
            all_ready(caller).await;
            load.goes_on(100).await;
        }
    }

    fn addressed(&self, scheme: &str, mut config: Config) -> Config {
        let addresses: Vec<_> = self
            .processes
            .iter()
            .map(|process| format!("{scheme}://{}", process.address))
            .collect();
        config
            .destinations
            .insert("test".into(), addresses.join(","));
        config
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_plaintext_over_permissive_to_strict_without_a_failed_call() {
    let authority = Authority::new("shop.example");
    let product = Party::new(&authority.issue("/product"), &authority.pem());
    let payment = Party::new(&authority.issue("/payment"), &authority.pem());
    let mut fleet = Fleet::begin(&Config::default()).await;
    let plain = fleet.addressed("http", Config::default());
    let plaintext = mesh_with(plain, &prometheus::Registry::new());
    let mut load = Load::begin(plaintext.client("test"));
    load.goes_on(100).await;
    // First the servers take both, then the clients speak TLS, then the servers want it; and back.
    let permissive = product.config(Mode::Permissive, QUICK);
    fleet.restart(&permissive, &plaintext, &mut load).await;
    let encrypted = fleet.addressed("https", payment.config(Mode::Permissive, QUICK));
    let encrypted = started(encrypted).await;
    *load.client.write().unwrap() = TestClient(encrypted.client("test"));
    load.goes_on(100).await;
    fleet
        .restart(&product.config(Mode::Strict, QUICK), &encrypted, &mut load)
        .await;
    let refused = TestClient(plaintext.client("test")).unary("Post", "").await;
    refused.unwrap_err();
    fleet.restart(&permissive, &encrypted, &mut load).await;
    *load.client.write().unwrap() = TestClient(plaintext.client("test"));
    load.goes_on(100).await;
    fleet
        .restart(&Config::default(), &plaintext, &mut load)
        .await;
    load.end("from plaintext to strict and back").await;
}
