//! Peers that take a call and say nothing more: who does not answer a ping is let go, who only takes long is not.

use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// What a peer does with the calls of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// Answers each after so long, and pings at once.
    Answers(Duration),
    /// Falls silent with the first one.
    Silent,
    /// The same, after it has said that it goes away.
    SilentlyLeaves,
    /// Answers each at once, on a line on which what it is told takes so long.
    Far(Duration),
    /// Answers at length, and pings at once, on a line that lets the next byte through after so long, and then little by
    /// little.
    Slow(Duration),
}

const AT_ONCE: Peer = Peer::Answers(Duration::ZERO);

fn connection_to(peer: Peer) -> DuplexStream {
    let (near, mut far) = tokio::io::duplex(4096);
    let is_slow = Arc::new(AtomicBool::new(false));
    match peer {
        Peer::Slow(first) => far = slow_line(far, first, is_slow.clone()),
        Peer::Far(takes) => far = late_line(far, takes),
        Peer::Answers(_) | Peer::Silent | Peer::SilentlyLeaves => {}
    }
    crate::spawn(async move {
        let mut server = h2::server::handshake(far).await.unwrap();
        while let Some(Ok((_, mut respond))) = server.accept().await {
            is_slow.store(true, Ordering::SeqCst);
            if matches!(peer, Peer::Slow(_)) {
                answer_at_length(&mut respond);
                continue;
            }
            let after = match peer {
                Peer::Answers(after) => Some(after),
                Peer::Far(_) => Some(Duration::ZERO),
                _ => None,
            };
            let Some(after) = after else {
                if peer == Peer::SilentlyLeaves {
                    server.graceful_shutdown();
                    let flushing = tokio::time::timeout(Duration::from_millis(1), server.accept());
                    assert!(flushing.await.is_err(), "the connection is over");
                }
                return std::future::pending().await; // Nothing is closed.
            };
            crate::spawn(async move {
                sleep(after).await;
                let head = Response::builder().header("content-type", "application/grpc");
                let head = head.header("grpc-status", "0").body(()).unwrap();
                respond.send_response(head, true).unwrap();
            });
        }
    });
    near
}

/// A message of 60 bytes, in pieces of one.
fn answer_at_length(respond: &mut h2::server::SendResponse<Bytes>) {
    let head = Response::builder().header("content-type", "application/grpc");
    let head = head.body(()).unwrap();
    let mut answer = respond.send_response(head, false).unwrap();
    for byte in [&[0, 0, 0, 0, 60][..], &[7; 60]].concat() {
        answer.send_data(Bytes::from(vec![byte]), false).unwrap();
    }
    let ok = http::HeaderValue::from_static("0");
    let trailers = http::HeaderMap::from_iter([(Status::GRPC_STATUS, ok)]);
    answer.send_trailers(trailers).unwrap();
}

/// The server's end of a line to `client`. Once it is slow, the next byte to the client takes so long, and each further one
/// ten milliseconds.
fn slow_line(client: DuplexStream, first: Duration, is_slow: Arc<AtomicBool>) -> DuplexStream {
    let (own, server) = tokio::io::duplex(4096);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(own);
    crate::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    crate::spawn(async move {
        let mut takes = first;
        while let Ok(byte) = from_server.read_u8().await {
            if is_slow.load(Ordering::SeqCst) {
                sleep(takes).await;
                takes = Duration::from_millis(10);
            }
            if to_client.write_u8(byte).await.is_err() {
                return;
            }
        }
    });
    server
}

/// The server's end of a line on which what `client` says takes so long.
fn late_line(client: DuplexStream, takes: Duration) -> DuplexStream {
    let (own, server) = tokio::io::duplex(1 << 16);
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(own);
    crate::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    crate::spawn(async move {
        let mut said = Vec::with_capacity(1 << 16);
        while from_client.read_buf(&mut said).await.is_ok_and(|n| n > 0) {
            sleep(takes).await;
            if to_server.write_all(&said).await.is_err() {
                return;
            }
            said.clear();
        }
    });
    server
}

/// Calls as a test likes, of a destination whose first connection leads to `first` and all later ones to a peer that
/// answers; and how many there were.
fn client_to(first: Peer, config: &Config) -> (Client, Arc<AtomicU32>) {
    let (count, made) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    let connect = move || {
        let is_first = made.fetch_add(1, Ordering::SeqCst) == 0;
        let connected = connection_to(if is_first { first } else { AT_ONCE });
        async { Ok(connected) }
    };
    let connector = Made {
        connect,
        count: count.clone(),
    };
    let destination = destination_over(Arc::new(connector), "http://test:1", config);
    (client_of(destination, config), count)
}

/// With deadlines that no test comes to.
fn patient() -> Config {
    Config {
        deadline_default_ms: 3_600_000,
        ..Config::default()
    }
}

/// How long a call may go on with a peer that has said nothing at all, to the accuracy of the runtime's timers.
fn noticed_in(config: &Config) -> std::ops::RangeInclusive<Duration> {
    let due = config.keepalive_interval() + config.keepalive_timeout();
    due..=due + Duration::from_millis(5)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_let_go_and_the_next_call_is_made_elsewhere() {
    let config = patient();
    let (client, connections) = client_to(Peer::Silent, &config);
    let started = Instant::now();
    let status = client.clone().oneshot(request(POST)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let took = started.elapsed();
    assert!(noticed_in(&config).contains(&took), "{took:?}");
    client.oneshot(request(POST)).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_be_repeated_outlives_the_silence_of_its_peer() {
    let config = patient();
    let (client, connections) = client_to(Peer::Silent, &config);
    let started = Instant::now();
    client.oneshot(request(PUT)).await.unwrap();
    let (took, due) = (started.elapsed(), *noticed_in(&config).start());
    // It is sent again after a pause, and not before there is another connection.
    assert!(
        (due..due + Duration::from_secs(1)).contains(&took),
        "{took:?}"
    );
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_may_take_as_long_as_it_likes() {
    let takes = Duration::from_mins(10);
    let (client, connections) = client_to(Peer::Answers(takes), &patient());
    let started = Instant::now();
    client.oneshot(request(POST)).await.unwrap();
    assert!(started.elapsed() >= takes);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_is_heard_is_not_silent_though_its_answer_to_a_ping_is_late() {
    let config = patient();
    // Nothing comes before the ping, and then much before its answer.
    let first = config.keepalive_interval() + config.keepalive_timeout() / 2;
    let (client, connections) = client_to(Peer::Slow(first), &config);
    let started = Instant::now();
    let answer = client.oneshot(request(POST)).await.unwrap();
    let message = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(message.len(), 65);
    let took = started.elapsed();
    let noticed = config.keepalive_interval() + config.keepalive_timeout();
    assert!(took > noticed, "{took:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_with_a_peer_that_goes_away_ends_with_its_silence_too() {
    let config = patient();
    let (client, _) = client_to(Peer::SilentlyLeaves, &config);
    let started = Instant::now();
    let calling = crate::spawn(client.clone().oneshot(request(POST)));
    settle().await;
    client.oneshot(request(POST)).await.unwrap(); // It has left: this one goes to another connection.
    assert!(started.elapsed() < config.keepalive_interval());
    let status = calling.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let took = started.elapsed();
    assert!(noticed_in(&config).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_outlives_any_number_of_answers_to_calls_that_were_given_up() {
    let takes = Duration::from_millis(50);
    let (client, connections) = client_to(Peer::Far(takes), &patient());
    client.clone().oneshot(request(POST)).await.unwrap();
    for _ in 0..120 {
        // Few, so that the peer sees none of them given up before it has taken it.
        let calls = (0..12).map(|_| {
            let calling = client.clone().oneshot(request(POST));
            async move { tokio::time::timeout(takes * 4 / 5, calling).await.is_err() }
        });
        let given_up = futures_util::future::join_all(calls).await;
        assert_eq!(given_up, [true; 12]);
        sleep(takes * 4).await; // The answers come, to nobody.
    }
    client.oneshot(request(POST)).await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}
