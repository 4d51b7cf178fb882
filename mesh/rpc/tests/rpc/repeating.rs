//! What is sent a second time, what never is, and how much of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use h2::Reason;
use mesh::{Config, RetryConfig};
use prometheus::Registry;
use tokio::{sync::mpsc, time::timeout};
use tonic::{Code, Status};

use crate::support::{
    PATIENCE, Served, TestClient, TestService, all_ready,
    by_hand::{Ending, by_hand},
    drain, mesh_calling, mesh_calling_all, mesh_with, one, serve,
};

#[tokio::test]
async fn what_may_do_its_work_twice_is_never_sent_twice() {
    let (address, seen) = by_hand(|stream| match stream % 5 {
        0 => Ending::Reset(Reason::INTERNAL_ERROR),
        1 => Ending::Reset(Reason::CANCEL),
        2 => Ending::Reset(Reason::NO_ERROR),
        3 => Ending::Break,
        _ => Ending::Answer,
    })
    .await;
    let client = TestClient(mesh_calling(address).client("test"));
    let (mut answered, mut failed) = (0, 0);
    for number in 0..300 {
        match client.unary("Post", &number.to_string()).await {
            Ok(_) => answered += 1,
            Err(status) => {
                assert!(
                    matches!(status.code(), Code::Unavailable | Code::Internal),
                    "{status}"
                );
                failed += 1;
            }
        }
    }
    assert!(answered > 20 && failed > 100, "{answered} {failed}");
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
}

#[tokio::test]
async fn what_may_be_repeated_succeeds_in_spite_of_resets() {
    let (address, seen) = by_hand(|stream| match stream % 3 {
        0 => Ending::Reset(Reason::CANCEL),
        1 => Ending::Break,
        _ => Ending::Answer,
    })
    .await;
    let client = TestClient(mesh_calling(address).client("test"));
    for number in 0..30 {
        client.unary("Put", &number.to_string()).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.values().sum::<u32>(), 90);
}

#[tokio::test]
async fn what_a_server_refuses_to_see_is_sent_again_whatever_it_is() {
    let (address, seen) = by_hand(|stream| match stream % 3 {
        2 => Ending::Answer,
        _ => Ending::Reset(Reason::REFUSED_STREAM),
    })
    .await;
    let client = TestClient(mesh_calling(address).client("test"));
    for number in 0..50 {
        client.unary("Post", &number.to_string()).await.unwrap();
    }
    assert!(seen.lock().unwrap().values().all(|times| *times == 1));
}

/// A service that is always unavailable, and counts.
async fn failing() -> (Served, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let service = TestService::new(move |_, _| {
        counted.fetch_add(1, SeqCst);
        async { Err(Status::unavailable("not today")) }
    });
    (serve(Config::default(), service).await, count)
}

/// Calls with few free retries and short pauses.
fn thrifty(addresses: &[SocketAddr]) -> TestClient<mesh::Client> {
    let mut config = Config::default();
    config.client.retry = RetryConfig {
        backoff_ms: 1,
        backoff_max_ms: 1,
        budget_min_per_s: 1,
        ..RetryConfig::default()
    };
    let listed: Vec<_> = addresses
        .iter()
        .map(|address| format!("http://{address}"))
        .collect();
    config.destinations.insert("test".into(), listed.join(","));
    TestClient(mesh_with(config, &Registry::new()).client("test"))
}

/// The free retries of one hop: one a second, for as long as the budget looks back and the test takes.
fn free(began: Instant) -> usize {
    11 + usize::try_from(began.elapsed().as_secs()).expect("a test is short")
}

#[tokio::test]
async fn the_budget_bounds_retries_when_every_backend_fails() {
    let (first, second) = (failing().await, failing().await);
    let client = thrifty(&[first.0.address, second.0.address]);
    let began = Instant::now();
    for _ in 0..1000 {
        let status = client.unary("Read", "").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
    let made = first.1.load(SeqCst) + second.1.load(SeqCst);
    println!(
        "1000 calls that all fail: {made} attempts, {} of them may be free",
        free(began)
    );
    assert!(
        (1100..=1200 + free(began)).contains(&made),
        "{made} attempts"
    );
}

#[tokio::test]
async fn retries_do_not_multiply_over_three_hops() {
    let (back, reached) = failing().await;
    let forward = |client: TestClient<mesh::Client>| {
        TestService::new(move |method, _| {
            let client = client.clone();
            async move { client.unary(&method, "").await.map(one) }
        })
    };
    let middle = serve(Config::default(), forward(thrifty(&[back.address]))).await;
    let front = serve(Config::default(), forward(thrifty(&[middle.address]))).await;
    let client = thrifty(&[front.address]);
    let began = Instant::now();
    for _ in 0..1000 {
        let status = client.unary("Read", "").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
    }
    let made = reached.load(SeqCst);
    let free = 3 * free(began); // Each hop has its own.
    println!(
        "1000 calls over three hops that all fail: {made} attempts, {free} of them may be free"
    );
    assert!((1000..=1200 + free).contains(&made), "{made} attempts");
}

#[tokio::test]
async fn pushback_is_obeyed() {
    for (pushback, attempts) in [("-1", 1), ("nonsense", 1), ("0", 4)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let service = TestService::new(move |_, _| {
            counted.fetch_add(1, SeqCst);
            async move {
                let mut status = Status::unavailable("later");
                let pushback = pushback.parse().unwrap();
                status
                    .metadata_mut()
                    .insert("grpc-retry-pushback-ms", pushback);
                Err(status)
            }
        });
        let served = serve(Config::default(), service).await;
        served.client().unary("Read", "").await.unwrap_err();
        assert_eq!(count.load(SeqCst), attempts, "{pushback}");
    }
}

/// Sends its name when it is dropped before it has said that it is well.
struct Cancelled(mpsc::UnboundedSender<()>);

impl Drop for Cancelled {
    fn drop(&mut self) {
        // A test that no longer listens has seen what it wanted.
        let _ = self.0.send(());
    }
}

#[tokio::test]
async fn a_slow_read_is_asked_elsewhere_and_the_slow_one_cancelled() {
    let (cancelled, mut cancellations) = mpsc::unbounded_channel();
    let hang = Arc::new(AtomicBool::new(false));
    let (hangs, counts) = (hang.clone(), [0, 1].map(|_| Arc::new(AtomicUsize::new(0))));
    let mut served = Vec::new();
    for count in &counts {
        let (hang, count, cancelled) = (hangs.clone(), count.clone(), cancelled.clone());
        let service = TestService::new(move |_, _| {
            count.fetch_add(1, SeqCst);
            // The first call after the switch hangs, wherever it is.
            let hangs = hang.swap(false, SeqCst);
            let cancelled = cancelled.clone();
            async move {
                if hangs {
                    let _cancelled = Cancelled(cancelled);
                    std::future::pending::<()>().await;
                }
                Ok(one("done"))
            }
        });
        served.push(serve(Config::default(), service).await);
    }
    let client = TestClient(mesh_calling_all(served.iter().map(|s| s.address)).client("test"));
    for method in ["Read", "Put"] {
        // Learns how fast it is, and connects both.
        for _ in 0..300 {
            client.unary(method, "").await.unwrap();
        }
    }
    hang.store(true, SeqCst);
    assert_eq!(client.unary("Read", "").await.unwrap(), "done");
    timeout(PATIENCE, cancellations.recv())
        .await
        .expect("the loser is cancelled")
        .unwrap();

    // What is no read is waited for.
    hang.store(true, SeqCst);
    let put = client.clone();
    let waiting = mesh::spawn(async move { put.unary("Put", "").await });
    while hang.load(SeqCst) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn a_stream_of_requests_flows_and_ends_with_its_call() {
    let (ended, mut endings) = mpsc::unbounded_channel();
    let service = TestService::new(move |_, mut requests| {
        let ended = ended.clone();
        async move {
            let mut bytes = 0;
            while let Some(text) = requests.next().await {
                bytes += text?.len();
            }
            ended.send(bytes).unwrap();
            Ok(one(bytes.to_string()))
        }
    });
    let served = serve(Config::default(), service).await;
    let client = served.client();
    // More than every window on the way.
    let texts = futures_util::stream::iter(0..64).map(|_| "x".repeat(1 << 20));
    let mut answers = client.stream("Import", texts).await.unwrap();
    let answer = timeout(PATIENCE, answers.next()).await.unwrap().unwrap();
    assert_eq!(answer.unwrap(), (64 << 20).to_string());
    assert_eq!(endings.recv().await, Some(64 << 20));

    // A source that never ends is let go with its call.
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let guard = Cancelled(dropped);
    let endless = futures_util::stream::pending().map(move |text: String| {
        let _ = &guard;
        text
    });
    let opening = client.stream("Import", endless);
    let opening = timeout(Duration::from_millis(200), opening).await;
    assert!(opening.is_err(), "nothing is answered before the end");
    timeout(PATIENCE, drops.recv())
        .await
        .expect("it is dropped");
}

/// Of two attempts at a read the first says that there is nothing, and the other would never end.
#[tokio::test]
async fn an_answer_that_no_other_could_better_ends_a_hedged_read() {
    let slow = Arc::new(AtomicUsize::new(0));
    let service = || {
        let slow = slow.clone();
        TestService::new(move |_, texts| {
            let slow = slow.clone();
            async move {
                if drain(texts).await.0 == ["quick"] {
                    return Ok(one(""));
                }
                if slow.fetch_add(1, SeqCst) > 0 {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(Status::not_found("nothing"))
            }
        })
    };
    let (first, second) = (
        serve(Config::default(), service()).await,
        serve(Config::default(), service()).await,
    );
    let mut config = Config::default();
    config.client.hedge.calls_min = 1;
    let both = format!("http://{},http://{}", first.address, second.address);
    config.destinations.insert("test".into(), both);
    let mesh = mesh_with(config, &Registry::new());
    let client = TestClient(mesh.client("test"));
    client.unary("Read", "quick").await.unwrap();
    all_ready(&mesh).await;
    for _ in 0..50 {
        client.unary("Read", "quick").await.unwrap();
    }
    let nothing = client.unary("Read", "slow").await.unwrap_err();
    assert_eq!(slow.load(SeqCst), 2, "it was hedged");
    assert_eq!(nothing.code(), Code::NotFound, "{nothing}");
}

#[tokio::test]
async fn an_upload_that_fails_at_its_caller_is_no_failure_of_the_endpoint() {
    let service =
        || TestService::new(|_, texts| async move { Ok(one(drain(texts).await.0.concat())) });
    let (first, second) = (
        serve(Config::default(), service()).await,
        serve(Config::default(), service()).await,
    );
    let mut config = Config {
        message_bytes_max: 1_000,
        ..Config::default()
    };
    let both = format!("http://{},http://{}", first.address, second.address);
    config.destinations.insert("test".into(), both);
    let mesh = mesh_with(config, &Registry::new());
    let client = TestClient(mesh.client("test"));
    for _ in 0..30 {
        let texts = stream::iter([1, 2_000]).then(|length: usize| async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            "x".repeat(length)
        });
        client.stream("Import", texts).await.unwrap_err();
    }
    for endpoint in mesh.endpoints().into_iter().flat_map(|one| one.endpoints) {
        assert_eq!(endpoint.ejected_for_ms, 0, "{endpoint:?}");
    }
}
