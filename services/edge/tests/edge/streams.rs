//! Streams in every form: lines, events, WebSockets, uploads and downloads.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Edge, PATIENCE, detail, json};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}

#[tokio::test]
async fn a_stream_is_one_json_value_a_line() {
    let edge = Edge::start().await;
    let response = edge
        .get("/v1/notes:watch?resumeRevision=4&ending=end")
        .await;
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let text = response.text().await.unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["revision"], &lines[1]["revision"]),
        (&json!("5"), &json!("6"))
    );
    assert_eq!(lines[0]["note"]["text"], "한 line\nbreak");

    // An error before the first message is an HTTP error, a later one is the last line.
    let refused = edge.get("/v1/notes:watch?resumeRevision=101").await;
    assert_eq!(refused.status(), 400);
    let text = edge
        .get("/v1/notes:watch?ending=fail")
        .await
        .text()
        .await
        .unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["status"], "NOT_FOUND");
    assert_eq!(
        detail(&last["error"], "ErrorInfo")["reason"],
        "NOTE_NOT_FOUND"
    );
    edge.stop().await;
}

#[tokio::test]
async fn a_client_says_how_long_it_waits() {
    let edge = Edge::start().await;
    let watch = |timeout| {
        edge.request("GET", "/v1/notes:watch?resumeRevision=4")
            .header("grpc-timeout", timeout)
            .send()
    };
    let text = within(async { watch("300m").await.unwrap().text().await })
        .await
        .unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["status"], "DEADLINE_EXCEEDED", "{text}");
    edge.cancelled().await;
    for malformed in ["soon", "300", "123456789m", ""] {
        let (status, error) = json(watch(malformed).await.unwrap()).await;
        assert_eq!(status, 400, "{malformed}: {error}");
        let field = &detail(&error, "BadRequest")["fieldViolations"][0]["field"];
        assert_eq!(field, "Grpc-Timeout", "{error}");
    }
    // A stream that has begun is no answer 504.
    assert!(edge.client_deadlines().abs() < 0.5);
    let asked = edge
        .request("GET", "/v1/notes/a")
        .header("grpc-timeout", "1n");
    assert_eq!(asked.send().await.unwrap().status(), 504);
    assert!((edge.client_deadlines() - 1.0).abs() < 0.5);
    edge.stop().await;
}

#[tokio::test]
async fn events_carry_their_revision_and_go_on_behind_the_last_one() {
    let edge = Edge::start().await;
    let watch = |path: &str| {
        edge.request("GET", path)
            .header("accept", "text/event-stream")
    };
    let response =
        watch("/v1/notes:watch?resumeRevision=1&ending=fail").header("last-event-id", "7");
    let response = response.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let events: Vec<_> = text.split("\n\n").collect();
    assert!(
        events[0].starts_with("id: 8\ndata: {\"revision\":\"8\""),
        "{text}"
    );
    assert!(events[1].starts_with("id: 9\n"), "{text}");
    assert!(
        events[2].starts_with("event: error\ndata: {\"code\":5,"),
        "{text}"
    );

    let bad = watch("/v1/notes:watch")
        .header("last-event-id", "x")
        .send()
        .await
        .unwrap();
    let (status, error) = json(bad).await;
    assert_eq!(status, 400);
    assert!(
        error["message"].as_str().unwrap().contains("Last-Event-ID"),
        "{error}"
    );
    edge.stop().await;
}

#[tokio::test]
async fn an_idle_event_stream_is_kept_alive_and_ends_with_its_client() {
    let edge = Edge::with(|config| config.limits.keepalive_interval_ms = 50).await;
    let request = edge
        .request("GET", "/v1/notes:watch")
        .header("accept", "text/event-stream");
    let mut body = request.send().await.unwrap().bytes_stream();
    let mut text = String::new();
    while !text.contains(": idle\n\n") {
        let piece = within(body.next()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&piece).unwrap());
    }
    drop(body);
    within(edge.cancelled()).await;
    edge.stop().await;
}

#[tokio::test]
async fn shutdown_ends_streams_in_good_order() {
    let edge = Edge::start().await;
    let mut body = edge.get("/v1/notes:watch").await.bytes_stream();
    within(body.next()).await.unwrap().unwrap();
    edge.shut_down();
    let rest: Vec<_> = within(body.collect::<Vec<_>>()).await;
    assert!(rest.iter().all(Result::is_ok), "{rest:?}");
    edge.stop().await;
}

#[tokio::test]
async fn a_watch_is_served_over_a_websocket() {
    let edge = Edge::start().await;
    let url = edge
        .url("/v1/notes:watch?resumeRevision=2&ending=end")
        .replace("http://", "ws://");
    let (mut socket, _) = within(tokio_tungstenite::connect_async(&url))
        .await
        .unwrap();
    for revision in ["3", "4"] {
        let message = within(socket.next()).await.unwrap().unwrap();
        let value: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(value["revision"], revision);
    }
    let Message::Close(Some(frame)) = within(socket.next()).await.unwrap().unwrap() else {
        panic!("the end of the stream closes the socket")
    };
    assert_eq!(u16::from(frame.code), 1000);

    let url = edge
        .url("/v1/notes:watch?ending=fail")
        .replace("http://", "ws://");
    let (socket, _) = within(tokio_tungstenite::connect_async(&url))
        .await
        .unwrap();
    let messages: Vec<_> = within(socket.collect()).await;
    let error: Value =
        serde_json::from_str(messages[2].as_ref().unwrap().to_text().unwrap()).unwrap();
    assert_eq!(error["error"]["status"], "NOT_FOUND");

    // What is refused is refused before the switch, as HTTP.
    let url = edge
        .url("/v1/notes:watch?resumeRevision=101")
        .replace("http://", "ws://");
    let refused = within(tokio_tungstenite::connect_async(&url))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("400"), "{refused}");
    edge.stop().await;
}

#[tokio::test]
async fn closing_a_websocket_cancels_the_call() {
    let edge = Edge::start().await;
    let url = edge.url("/v1/notes:watch").replace("http://", "ws://");
    let (mut socket, _) = within(tokio_tungstenite::connect_async(&url))
        .await
        .unwrap();
    within(socket.next()).await.unwrap().unwrap();
    within(socket.send(Message::Close(None))).await.unwrap();
    within(edge.cancelled()).await;
    edge.stop().await;
}

#[tokio::test]
async fn an_upload_is_passed_on_in_pieces() {
    let edge = Edge::start().await;
    let pieces = (0..64).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100_000]));
    let body = reqwest::Body::wrap_stream(stream::iter(pieces));
    let request = edge
        .request("POST", "/v1/notes:import?language=ko")
        .header("content-type", "text/csv");
    let (status, found) = json(request.body(body).send().await.unwrap()).await;
    assert_eq!(status, 200, "{found}");
    assert_eq!(found["language"], "ko");
    assert_eq!(found["contentType"], "text/csv");
    assert_eq!(found["bytes"], "6400000");
    assert!(found["pieces"].as_i64().unwrap() > 5, "{found}");

    let empty = edge
        .request("POST", "/v1/notes:import?language=ko")
        .send()
        .await
        .unwrap();
    assert_eq!(json(empty).await.1["bytes"], "0");
    let wrong = edge
        .request("POST", "/v1/notes:import?colour=red")
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 400);
    edge.stop().await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_complete() {
    let edge = Edge::start().await;
    let mut socket = tokio::net::TcpStream::connect(edge.address).await.unwrap();
    let head =
        "POST /v1/notes:import HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\nabc";
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.flush().await.unwrap();
    // The service has the first piece before the client goes away.
    within(edge.observed.event.notified()).await;
    drop(socket);
    within(edge.cancelled()).await;
    assert_eq!(edge.observed.imported.load(Ordering::SeqCst), 0);
    edge.stop().await;
}

#[tokio::test]
async fn an_upload_has_limits_in_size_and_time() {
    let edge = Edge::with(|config| {
        config.limits.upload_bytes_max = 1000;
        config.limits.body_timeout_ms = 100;
    })
    .await;
    let import = |body: reqwest::Body| edge.request("POST", "/v1/notes:import").body(body);
    assert_eq!(
        import(vec![0; 1000].into()).send().await.unwrap().status(),
        200
    );
    let pieces = stream::iter((0..3).map(|_| Ok::<_, std::io::Error>(vec![0; 500])));
    let long = import(reqwest::Body::wrap_stream(pieces))
        .send()
        .await
        .unwrap();
    assert_eq!(long.status(), 413);
    let stalled =
        stream::once(async { Ok::<_, std::io::Error>(vec![0; 5]) }).chain(stream::pending());
    let slow = import(reqwest::Body::wrap_stream(stalled))
        .send()
        .await
        .unwrap();
    assert_eq!(slow.status(), 408);
    within(edge.cancelled()).await;
    assert_eq!(edge.observed.imported.load(Ordering::SeqCst), 1);
    edge.stop().await;
}

#[tokio::test]
async fn a_download_is_the_bytes_and_a_broken_one_is_seen_to_be_broken() {
    let edge = Edge::start().await;
    let response = edge.get("/v1/notes:export").await;
    assert_eq!(response.headers()["content-type"], "text/csv");
    assert_eq!(response.text().await.unwrap(), "a,b\n1,2\n");
    let nothing = edge.get("/v1/notes:export?ending=nothing").await;
    assert_eq!(
        (
            nothing.status().as_u16(),
            nothing.text().await.unwrap().as_str()
        ),
        (200, "")
    );
    for ending in ["refused", "at%20once"] {
        let refused = edge.get(&format!("/v1/notes:export?ending={ending}")).await;
        let (status, error) = json(refused).await;
        assert_eq!(
            (status, &detail(&error, "ErrorInfo")["reason"]),
            (400, &json!("CURRENCY"))
        );
    }
    // The connection breaks, before or after the headers have left.
    let broken = match edge
        .request("GET", "/v1/notes:export?ending=fail")
        .send()
        .await
    {
        Ok(response) => response.text().await,
        Err(error) => Err(error),
    };
    assert!(broken.is_err(), "a part must not be taken for the whole");
    edge.stop().await;
}

#[tokio::test]
async fn in_the_wait_before_the_drain_requests_are_answered_and_streams_go_on() {
    let wait = Duration::from_secs(10); // Less than the client waits for an answer.
    let edge = Edge::with(|config| {
        config.limits.drain_wait_ms = wait.as_millis().try_into().unwrap();
    })
    .await;
    let before = edge.get("/v1/notes/a").await;
    assert_eq!(before.headers().get("connection"), None);
    let mut body = edge.get("/v1/notes:watch").await.bytes_stream();
    let mut text = Vec::new();
    while text.split(|byte| *byte == b'\n').count() <= 2 {
        text.extend(within(body.next()).await.unwrap().unwrap());
    }
    edge.shut_down();

    let (status, health) = json(edge.get("/healthz").await).await;
    assert_eq!((status, &health["status"]), (503, &json!("not ready")));
    let during = edge.get("/v1/notes/a").await;
    assert_eq!(during.status(), before.status());
    // HTTP/1.1's way to say that the next request should go over another connection.
    assert_eq!(during.headers()["connection"], "close");
    assert!(futures_util::poll!(body.next()).is_pending(), "it goes on");

    tokio::time::pause();
    tokio::time::advance(wait).await;
    tokio::time::resume();
    let rest: Vec<_> = within(body.collect::<Vec<_>>()).await;
    assert!(rest.iter().all(Result::is_ok), "{rest:?}");
    edge.stop().await;
}
