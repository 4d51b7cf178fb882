//! Endpoints that go: the last one there was, and one that says farewell.

use std::sync::atomic::AtomicBool;

use super::*;

/// No pause between two attempts to connect ends within a test.
const FOR_EVER_MS: u64 = 1 << 40;

/// A connection that answers every call, until it breaks; it begins to go away with its first one where it `leaves`.
fn served(leaves: bool, breaks: CancellationToken) -> DuplexStream {
    let (near, far) = tokio::io::duplex(4096);
    let serving = async move {
        let mut server = h2::server::handshake(far).await.unwrap();
        while let Some(accepted) = server.accept().await {
            let Ok((_, mut respond)) = accepted else {
                return;
            };
            if leaves {
                server.graceful_shutdown();
            }
            crate::spawn(async move {
                if leaves {
                    settle().await; // It is known to leave before it has answered.
                }
                let head = Response::builder().header("content-type", "application/grpc");
                let head = head.header("grpc-status", "0").body(()).unwrap();
                respond.send_response(head, true).unwrap();
            });
        }
    };
    crate::spawn(async move {
        tokio::select! {
            () = serving => {}
            () = breaks.cancelled() => {}
        }
    });
    near
}

fn refused() -> io::Result<DuplexStream> {
    Err(io::ErrorKind::ConnectionRefused.into())
}

fn states(destination: &Destination) -> Vec<EndpointState> {
    let endpoints = destination.snapshot().endpoints.into_iter();
    endpoints.map(|endpoint| endpoint.state).collect()
}

#[tokio::test(start_paused = true)]
async fn when_the_last_endpoint_goes_the_others_are_tried_whatever_their_pauses_are() {
    let mut config = Config::default();
    config.client.pool.backoff_ms = FOR_EVER_MS;
    config.client.pool.backoff_max_ms = FOR_EVER_MS;
    let (broken, returned) = (CancellationToken::new(), Arc::new(AtomicBool::new(false)));
    let (breaks, back) = (broken.clone(), returned.clone());
    let connector = By(move |address: &str| match address {
        "gone:1" if back.load(Ordering::SeqCst) => Ok(served(false, CancellationToken::new())),
        "last:1" if !breaks.is_cancelled() => Ok(served(false, breaks.clone())),
        _ => refused(),
    });
    let endpoints = "http://gone:1,http://last:1";
    let destination = destination_over(Arc::new(connector), endpoints, &config);
    let client = client_of(destination.clone(), &config);
    while states(&destination) != [EndpointState::Down, EndpointState::Ready] {
        client.clone().oneshot(request(POST)).await.unwrap();
        settle().await;
    }
    returned.store(true, Ordering::SeqCst);
    broken.cancel();
    settle().await;
    assert_eq!(states(&destination), [EndpointState::Down; 2]);
    let started = Instant::now();
    client.oneshot(request(POST)).await.unwrap();
    assert!(started.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn calls_wait_for_an_endpoint_as_long_as_the_last_one_has_just_gone() {
    let config = Config::default();
    let patience = Duration::from_millis(config.client.connect_timeout_ms);
    let away = patience * 3 / 4;
    let broken = CancellationToken::new();
    let breaks = Arc::new(std::sync::Mutex::new((broken.clone(), Instant::now())));
    let held = breaks.clone();
    let connector = By(move |_: &str| {
        let (breaks, until) = held.lock().unwrap().clone();
        if Instant::now() < until {
            return refused();
        }
        Ok(served(false, breaks))
    });
    let destination = destination_over(Arc::new(connector), "http://test:1", &config);
    let client = client_of(destination, &config);
    let call = || client.clone().oneshot(request(POST));
    call().await.unwrap();
    let (again, started) = (CancellationToken::new(), Instant::now());
    *breaks.lock().unwrap() = (again.clone(), started + away);
    broken.cancel();
    settle().await;
    call().await.unwrap();
    let waited = started.elapsed();
    assert!((away..patience).contains(&waited), "{waited:?}");

    // One that does not come back is not waited for again and again.
    let started = Instant::now();
    breaks.lock().unwrap().1 = started + Duration::from_hours(1);
    again.cancel();
    settle().await;
    assert_eq!(call().await.unwrap_err().code(), Code::Unavailable);
    assert!(started.elapsed() >= patience);
    let started = Instant::now();
    assert_eq!(call().await.unwrap_err().code(), Code::Unavailable);
    // Four attempts with their pauses, of which none is longer than half a second.
    assert!(started.elapsed() < patience, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_farewell_before_the_first_answer_is_no_failure() {
    let mut config = Config::default();
    config.client.pool.backoff_ms = FOR_EVER_MS;
    config.client.pool.backoff_max_ms = FOR_EVER_MS;
    let leaves = AtomicBool::new(true);
    let connector = By(move |_: &str| {
        let leaves = leaves.swap(false, Ordering::SeqCst);
        Ok(served(leaves, CancellationToken::new()))
    });
    let destination = destination_over(Arc::new(connector), "http://test:1", &config);
    let client = client_of(destination.clone(), &config);
    client.clone().oneshot(request(POST)).await.unwrap();
    settle().await;
    let endpoint = destination.snapshot().endpoints.remove(0);
    assert_eq!((endpoint.connections, endpoint.trouble), (0, None));
    assert_eq!(endpoint.state, EndpointState::Idle);
    client.oneshot(request(POST)).await.unwrap();
}
