//! What a client may not take: connections, headers, time, room.

use futures_util::StreamExt as _;
use mesh::{Contract, Mesh};
use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use crate::harness::{Edge, PATIENCE};

async fn raw(edge: &Edge, text: &str) -> String {
    let mut socket = TcpStream::connect(edge.address).await.unwrap();
    socket.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = socket.read_to_end(&mut answer);
    // A reset after the answer is as good as an end.
    let _ = tokio::time::timeout(PATIENCE, reading)
        .await
        .expect("the edge hangs up");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn clients_that_say_too_much_or_nothing_are_hung_up_on() {
    let edge = Edge::with(|config| {
        config.limits.header_timeout_ms = 100;
        config.limits.headers_max = 20;
    })
    .await;
    for said in ["", "P", "PRI * HTTP/2.0\r\n"] {
        assert_eq!(raw(&edge, said).await, "", "{said:?}");
    }
    assert!(
        !raw(&edge, "GET / HTTP/1.1\r\nhost: localhost\r\n")
            .await
            .starts_with("HTTP/1.1 200")
    );
    let many: Vec<_> = (0..50).map(|i| format!("x-{i}: y\r\n")).collect();
    let many = many.concat();
    let answer = raw(
        &edge,
        &format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let long = "y".repeat(100_000);
    let answer = raw(
        &edge,
        &format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(edge.get("/v1/notes/a").await.status(), 200);
    edge.stop().await;
}

/// A client that says how much it will send, and sends less.
async fn stalled(edge: &Edge, path: &str, bytes: usize) -> TcpStream {
    let mut socket = TcpStream::connect(edge.address).await.unwrap();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {bytes}\r\n\r\nx");
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test]
async fn bodies_take_no_more_memory_than_they_may() {
    const LONGEST: usize = 64 << 10;
    let edge = Edge::with(|config| {
        config.limits.body_bytes_max = LONGEST;
        config.limits.raw_body_bytes_max = LONGEST;
        config.limits.held_body_bytes_max = 2 * LONGEST as u64;
    })
    .await;
    let status = async |method: &str, path: &str, body: &str| {
        let answer = edge.send(method, path, body).await;
        answer.status().as_u16()
    };
    let becomes = async |method: &str, path: &str, body: &str, wanted: u16| {
        let until = async {
            while status(method, path, body).await != wanted {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        let until = tokio::time::timeout(PATIENCE, until).await;
        until.unwrap_or_else(|_| panic!("{method} {path} never becomes {wanted}"));
    };
    // Half of all is taken by requests without keys, and they get no more; others do.
    let keyless = stalled(&edge, "/v1/hooks/bank", LONGEST).await;
    becomes("POST", "/v1/hooks/bank", "x", 503).await;
    assert_eq!(
        status("POST", "/v1/hooks/bank", "").await,
        200,
        "it has none"
    );
    let note = r#"{"title": "a"}"#;
    assert_ne!(status("POST", "/v1/notes", note).await, 503);
    let other = stalled(&edge, "/v1/notes", LONGEST).await;
    becomes("POST", "/v1/notes", note, 503).await;
    assert_eq!(status("GET", "/v1/notes/a", "").await, 200);
    drop((keyless, other));
    becomes("POST", "/v1/hooks/bank", "x", 200).await;
    edge.stop().await;
}

#[tokio::test]
async fn paths_are_taken_as_they_come() {
    let edge = Edge::start().await;
    for (path, status) in [
        ("/v1/notes/../notes/a", 404),
        ("/v1/notes/%2e%2e", 400),
        ("/v1/notes/..", 400),
        ("/v1/hooks/../notes/a", 404),
        ("/v1//notes/a", 404),
        ("//v1/notes/a", 404),
        ("/v1/notes/a%00b", 200),
        ("/docs/../v1/notes/a", 404),
        ("/docs/..%2f..%2fetc/passwd", 404),
    ] {
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = raw(&edge, &head).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
    }
    edge.stop().await;
}

/// Sends a whole request of so many bytes before it reads the answer, as most clients do.
async fn sent_first(edge: &Edge, path: &str, bytes: usize) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(edge.address).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {bytes}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    let spaces = vec![b' '; 65_536];
    for _ in 0..bytes / spaces.len() {
        socket.write_all(&spaces).await?;
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn who_sends_before_reading_gets_the_answer_up_to_a_limit() {
    let edge = Edge::with(|config| config.limits.discard_bytes_max = 4 << 20).await;
    for (path, status) in [("/v1/notes", 413), ("/v1/other", 404)] {
        let answer = sent_first(&edge, path, 4 << 20).await.unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {answer}"
        );
    }
    let endless = sent_first(&edge, "/v1/other", 256 << 20).await;
    assert!(endless.is_err(), "{endless:?}");
    edge.stop().await;
}

#[tokio::test]
async fn a_file_sent_to_the_wrong_place_gets_an_answer_by_default() {
    let edge = Edge::with(|_| {}).await;
    let answer = sent_first(&edge, "/v1/notes", 24 << 20).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    edge.stop().await;
}

#[tokio::test]
async fn a_body_has_to_arrive_in_time() {
    let edge = Edge::with(|config| config.limits.body_timeout_ms = 100).await;
    let head = "POST /v1/notes HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{";
    let answer = raw(&edge, head).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    edge.stop().await;
}

#[tokio::test]
async fn what_there_is_no_room_for_is_refused_at_once() {
    let edge = Edge::with(|config| {
        config.limits.in_flight_max = 1;
        config.limits.streams_max = 1;
    })
    .await;
    let slow = mesh::spawn(edge.request("GET", "/v1/notes/slow").send());
    edge.observed.event.notified().await;
    let refused = edge.get("/v1/notes/a").await;
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["retry-after"]),
        (503, &"1".parse().unwrap())
    );
    slow.abort();
    edge.cancelled().await;

    // A stream takes room of its own kind, and gives it back.
    let mut body = edge.get("/v1/notes:watch").await.bytes_stream();
    body.next().await.unwrap().unwrap();
    assert_eq!(edge.get("/v1/notes:watch").await.status(), 503);
    assert_eq!(edge.get("/v1/notes/a").await.status(), 200);
    drop(body);
    let freed = async { while edge.get("/v1/notes:watch?ending=end").await.status() != 200 {} };
    tokio::time::timeout(PATIENCE, freed)
        .await
        .expect("the room is given back");
    edge.stop().await;
}

#[tokio::test]
async fn it_does_not_start_where_it_could_not_serve() {
    let start = async |configure: fn(&mut edge::Config), address: &str| {
        let mut config = edge::Config::default();
        configure(&mut config);
        let contract = Contract::new(proto::FILE_DESCRIPTOR_SET).unwrap();
        let registry = Registry::new();
        let mesh = Mesh::new(config.mesh.clone(), contract, &registry).unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let outcome = edge::run(config, mesh, &registry, listener, CancellationToken::new()).await;
        outcome.unwrap_err().to_string()
    };
    let error = start(|_| {}, "0.0.0.0:0").await;
    assert!(
        error.contains("without API keys") && error.contains("--insecure"),
        "{error}"
    );
    let error = start(
        |config| config.keys.file = Some("/nowhere/keys.toml".into()),
        "127.0.0.1:0",
    )
    .await;
    assert_eq!(error, "key file \"/nowhere/keys.toml\" cannot be read");
    let error = start(|config| config.limits.streams_max = 0, "127.0.0.1:0").await;
    assert_eq!(error, "limits.streams_max must not be 0");
    let error = start(|_| {}, "127.0.0.1:0").await;
    assert!(error.contains("mesh.destinations."), "{error}");
}
