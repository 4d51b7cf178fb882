//! Backends that go and come back while they are called: in good order, and not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::stream;
use mesh::Config;
use prometheus::Registry;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::support::{
    PATIENCE, TestClient, TestService, Texts, all_ready, count, drain, due, mesh_calling_all,
    mesh_with, one, rate, serve,
};

/// The load, and how many callers make it.
const CALLS_PER_S: f64 = 2_000.0;
const CALLERS: usize = 16;

/// One process of a backend.
struct Backend {
    shutdown: CancellationToken,
    serving: JoinHandle<Result<(), mesh::Error>>,
}

async fn start(address: SocketAddr, service: TestService) -> (SocketAddr, Backend) {
    let listener = TcpListener::bind(address)
        .await
        .expect("the last one has let go");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    let mesh = mesh_with(Config::default(), &Registry::new());
    let shutdown = CancellationToken::new();
    let serving = mesh::spawn(mesh.server().add(service).serve(listener, shutdown.clone()));
    (address, Backend { shutdown, serving })
}

/// Unary calls at once, and streams of twenty texts that take a while.
fn ticking() -> TestService {
    TestService::new(|method, _| async move {
        if method != "Export" {
            return Ok(one("fine"));
        }
        let ticks = tokio::time::interval(Duration::from_millis(3));
        let texts = stream::unfold(ticks, |mut ticks| async {
            ticks.tick().await;
            Some((Ok("tick".to_owned()), ticks))
        });
        Ok(Box::pin(futures_util::StreamExt::take(texts, 20)) as Texts)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_fail_no_call_and_cut_no_stream() {
    // The hundred by the variable.
    let restarts = count("MESH_TEST_RESTARTS", 40);
    let anywhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (first, a) = start(anywhere, ticking()).await;
    let (second, b) = start(anywhere, ticking()).await;
    let mut backends = [(first, a), (second, b)];
    let caller = mesh_calling_all([first, second]);
    let client = TestClient(caller.client("test"));
    let (done, made) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let (mut load, began) = (tokio::task::JoinSet::new(), Instant::now());
    for method in ["Read", "Put", "Post", "Post"]
        .into_iter()
        .cycle()
        .take(CALLERS)
    {
        let (client, done, made) = (client.clone(), done.clone(), made.clone());
        load.spawn(async move {
            while !done.load(SeqCst) {
                client.unary(method, "").await.unwrap();
                due(began, made.fetch_add(1, SeqCst), CALLS_PER_S).await;
            }
        });
    }
    for _ in 0..2 {
        let (client, done) = (client.clone(), done.clone());
        load.spawn(async move {
            while !done.load(SeqCst) {
                let (texts, outcome) = drain(client.watch("Export", "").await.unwrap()).await;
                outcome.unwrap();
                assert_eq!(texts.len(), 20);
            }
        });
    }
    for round in 0..restarts {
        let (address, old) = &mut backends[round % 2];
        let before = made.load(SeqCst);
        old.shutdown.cancel();
        timeout(PATIENCE, &mut old.serving)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        *old = start(*address, ticking()).await.1;
        all_ready(&caller).await;
        while made.load(SeqCst) < before + 10 {
            tokio::task::yield_now().await;
            assert!(!load.is_empty() && load.try_join_next().is_none());
        }
    }
    done.store(true, SeqCst);
    rate(
        "rolling restarts",
        made.load(SeqCst),
        began.elapsed(),
        CALLS_PER_S,
    );
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_hurts_only_what_was_in_flight_there_and_may_not_be_repeated() {
    // Both backends hold every call; one of them dies with its calls, the other answers them then.
    let held: Arc<[AtomicUsize; 3]> = Arc::default();
    let release = CancellationToken::new();
    // One clone for each call that is held by the one that dies.
    let alive = Arc::new(());
    let holding = |dies: bool| {
        let (held, release) = (held.clone(), release.clone());
        let alive = Arc::downgrade(&alive);
        TestService::new(move |method, _| {
            let place = usize::from(method == "Post");
            held[if dies { place } else { 2 }].fetch_add(1, SeqCst);
            let release = release.clone();
            let alive = alive.upgrade().filter(|_| dies);
            async move {
                release.cancelled().await;
                drop(alive);
                Ok(one("fine"))
            }
        })
    };
    let doomed = serve(Config::default(), holding(true)).await;
    let sound = serve(Config::default(), holding(false)).await;
    let client = TestClient(mesh_calling_all([doomed.address, sound.address]).client("test"));
    let mut calls = tokio::task::JoinSet::new();
    let held = |place: usize| held[place].load(SeqCst);
    // Until calls of both methods are in flight there. One by one, so that they are few and within the
    // budget of retries.
    let filling = async {
        for method in ["Put", "Post"].into_iter().cycle() {
            if held(0) >= 2 && held(1) >= 2 {
                return;
            }
            let client = client.clone();
            calls.spawn(async move { (method, client.unary(method, "").await) });
            while held(0) + held(1) + held(2) < calls.len() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    timeout(PATIENCE, filling).await.unwrap();
    let in_flight = held(1);
    doomed.serving.abort(); // Its connections break, whatever is on them.
    let _ = doomed.serving.await;
    let gone = async {
        while Arc::strong_count(&alive) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, gone).await.unwrap(); // Or they would be answered after all.
    release.cancel();
    let mut lost = 0;
    while let Some(ended) = timeout(PATIENCE, calls.join_next()).await.unwrap() {
        match ended.unwrap() {
            (_, Ok(text)) => assert_eq!(text, "fine"),
            (method, Err(status)) => {
                assert_eq!((method, status.code()), ("Post", Code::Unavailable));
                lost += 1;
            }
        }
    }
    assert_eq!(
        lost, in_flight,
        "what may not be repeated is lost, and nothing else"
    );
    client.unary("Post", "").await.unwrap();
}
