//! Which of several backends a call goes to, and on how many connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::support::{
    PATIENCE, TestService,
    kinds::{AnyClient, Kind, Running, Terms},
    one, percentile,
};

const BACKENDS: usize = 20;
const CALLS: usize = 800;
const CONCURRENT: usize = 20;
/// How long a backend takes for a call, much more than calling it does, and how much longer the slow one takes.
const TAKES_MS: u64 = 30;
const SLOWER: u64 = 10;

/// Backends that answer how many milliseconds a call takes them, then.
async fn fleet(slow: Option<usize>) -> Vec<Running> {
    let mut fleet = Vec::new();
    for index in 0..BACKENDS {
        let factor = if slow == Some(index) { SLOWER } else { 1 };
        let takes_ms = TAKES_MS * factor;
        let service = TestService::new(move |_, _| async move {
            tokio::time::sleep(Duration::from_millis(takes_ms)).await;
            Ok(one(takes_ms.to_string()))
        });
        fleet.push(Kind::Plain.serve(service, Terms::default()).await);
    }
    fleet
}

fn addresses(fleet: &[Running]) -> Vec<SocketAddr> {
    fleet.iter().map(|served| served.address).collect()
}

/// What each call took: by the machine's clock, and by what its backend says of itself.
async fn took(client: &AnyClient, calls: usize) -> (Vec<Duration>, Vec<Duration>) {
    let calls = stream::iter(0..calls).map(|_| async {
        let began = Instant::now();
        let stated = client.unary("Post", "").await.unwrap();
        let stated = Duration::from_millis(stated.parse().unwrap());
        (began.elapsed(), stated)
    });
    calls.buffer_unordered(CONCURRENT).unzip().await
}

/// The 99th percentile of what calls are said to take. It is not the measured one, which is printed beside it, for that
/// is the machine's too: where nine parts of calls in ten go to sound backends does not depend on it.
async fn p99(kind: Kind, slow: Option<usize>) -> Duration {
    let fleet = fleet(slow).await;
    let client = kind.client(&addresses(&fleet));
    took(&client, CALLS / 4).await; // Connects, and learns.
    let (mut measured, mut stated) = took(&client, CALLS).await;
    let (measured, stated) = (percentile(&mut measured, 99), percentile(&mut stated, 99));
    println!("{kind:?}, slow {slow:?}: p99 {stated:?} of the backends, {measured:?} measured");
    stated
}

#[tokio::test]
async fn one_slow_backend_of_twenty_costs_nothing() {
    let healthy = p99(Kind::Mesh, None).await;
    let with_slow = p99(Kind::Mesh, Some(3)).await;
    let plain = p99(Kind::Plain, Some(3)).await;
    assert!(with_slow.as_secs_f64() <= 1.3 * healthy.as_secs_f64());
    assert!(plain >= 5 * with_slow, "{plain:?} and {with_slow:?}");
}

#[tokio::test]
async fn a_dead_endpoint_costs_no_call() {
    for (kind, costs) in [(Kind::Plain, true), (Kind::Mesh, false)] {
        let service = TestService::new(|_, _| async { Ok(one("fine")) });
        let live = Kind::Plain.serve(service, Terms::default()).await;
        // Bound and not listening: it refuses, and nobody else gets the port meanwhile.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let dead = socket.local_addr().unwrap();
        let client = kind.client(&[dead, live.address]);
        let calls = stream::iter(0..400).map(|_| client.unary("Post", ""));
        let outcomes = calls.buffer_unordered(8);
        let failed = outcomes.filter(|outcome| std::future::ready(outcome.is_err()));
        let failed = failed.count().await;
        println!("{kind:?}: {failed} of 400 calls failed");
        assert_eq!(failed > 0, costs, "{kind:?}");
    }
}

/// Forwards connections to `to`, and counts them.
async fn counted(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    mesh::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            counting.fetch_add(1, SeqCst);
            mesh::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                // However it ends.
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    (address, count)
}

#[tokio::test]
async fn many_calls_get_several_connections() {
    for (kind, expected) in [(Kind::Plain, 1..=1), (Kind::Mesh, 2..=4)] {
        let (release, arrived) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (released, counting) = (release.clone(), arrived.clone());
        let held = TestService::new(move |_, _| {
            counting.fetch_add(1, SeqCst);
            let released = released.clone();
            async move {
                drop(released.acquire().await);
                Ok(one("done"))
            }
        });
        let served = Kind::Plain.serve(held, Terms::default()).await;
        let (address, connections) = counted(served.address).await;
        let client = kind.client(&[address]);
        let mut calls = JoinSet::new();
        for number in 1..=160 {
            let client = client.clone();
            calls.spawn(async move { client.unary("Post", "").await });
            let arriving = async {
                while arrived.load(SeqCst) < number {
                    tokio::task::yield_now().await;
                }
            };
            timeout(PATIENCE, arriving).await.unwrap();
        }
        let connections = connections.load(SeqCst);
        assert!(expected.contains(&connections), "{kind:?}: {connections}");
        release.close();
        assert!(calls.join_all().await.iter().all(Result::is_ok));
    }
}
