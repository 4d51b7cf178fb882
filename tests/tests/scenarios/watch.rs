//! Following changes over JSON lines, server-sent events and WebSockets, and going on where one was cut off.

use std::time::Duration;

use futures_util::{Stream, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tests::orders::{order, put_on_sale};
use tests::rest::{Rest, whole};
use tests::shop::Shop;
use tokio_tungstenite::tungstenite::Message;

/// Longer than a change takes to arrive on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The lines of a stream, one after the other.
struct Lines<S> {
    pieces: S,
    rest: String,
}

impl<S, B> Lines<S>
where
    S: Stream<Item = reqwest::Result<B>> + Unpin,
    B: AsRef<[u8]>,
{
    async fn next(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.rest.split_once('\n') {
                let (line, rest) = (line.trim_end().to_owned(), rest.to_owned());
                self.rest = rest;
                if !line.is_empty() {
                    return line;
                }
                continue;
            }
            let piece = tokio::time::timeout(PATIENCE, self.pieces.next()).await;
            let piece = piece
                .expect("a change arrives")
                .expect("the stream goes on")
                .unwrap();
            self.rest
                .push_str(std::str::from_utf8(piece.as_ref()).unwrap());
        }
    }
}

async fn lines(
    rest: &Rest,
    path: &str,
    accept: &str,
    last_event_id: Option<i64>,
) -> Lines<impl Stream<Item = reqwest::Result<impl AsRef<[u8]>>> + Unpin> {
    let mut request = rest.request(Method::GET, path).header("Accept", accept);
    if let Some(id) = last_event_id {
        request = request.header("Last-Event-ID", id.to_string());
    }
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with(accept)
    );
    Lines {
        pieces: Box::pin(response.bytes_stream()),
        rest: String::new(),
    }
}

fn change(line: &str) -> (i64, String, String) {
    let change: Value = serde_json::from_str(line).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        whole(&change["revision"]),
        text(&change["change"]),
        text(&change["product"]["title"]),
    )
}

/// Three changes of one product, and the revision before the first.
async fn three_changes(rest: &Rest) -> (i64, Vec<(i64, String, String)>) {
    let before = whole(&rest.get("/v1/products?pageSize=1").await.ok()["revision"]);
    let mug = put_on_sale(rest, "MUG-1", 1250, 10).await;
    let path = format!("/v1/products/{}", mug["id"].as_str().unwrap());
    rest.patch(&path, &json!({"title": "Cup"})).await.ok();
    rest.delete(&path).await.ok();
    let expected = [
        ("CREATED", "Thing MUG-1"),
        ("UPDATED", "Cup"),
        ("DELETED", "Cup"),
    ];
    let expected = (before + 1..).zip(expected);
    (
        before,
        expected
            .map(|(at, (change, title))| (at, change.to_owned(), title.to_owned()))
            .collect(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn json_lines_resume_after_any_revision() {
    let shop = Shop::start().await;
    let (before, expected) = three_changes(shop.rest()).await;
    for (skipped, _) in expected.iter().enumerate() {
        let after = before + i64::try_from(skipped).unwrap();
        let path = format!("/v1/products:watch?resumeRevision={after}");
        let mut lines = lines(shop.rest(), &path, "application/x-ndjson", None).await;
        for expected in &expected[skipped..] {
            assert_eq!(change(&lines.next().await), *expected);
        }
    }
    let ahead = shop
        .rest()
        .get("/v1/products:watch?resumeRevision=999999")
        .await;
    assert_eq!(ahead.status, 400, "{}", ahead.text());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_sees_what_happens_while_it_watches() {
    let shop = Shop::start().await;
    let path = "/v1/products:watch?resumeRevision=0";
    let mut lines = lines(shop.rest(), path, "application/x-ndjson", None).await;
    let (_, expected) = three_changes(shop.rest()).await;
    for expected in expected {
        assert_eq!(change(&lines.next().await), expected);
    }
    drop(lines);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_sent_events_resume_by_their_last_id() {
    let shop = Shop::start().await;
    let (before, expected) = three_changes(shop.rest()).await;
    let path = "/v1/products:watch";
    let mut lines = lines(shop.rest(), path, "text/event-stream", Some(before + 1)).await;
    for expected in &expected[1..] {
        let (mut id, mut data) = (None, None);
        while id.is_none() || data.is_none() {
            let line = lines.next().await;
            if let Some(found) = line.strip_prefix("id:") {
                id = Some(found.trim().parse::<i64>().unwrap());
            } else if let Some(found) = line.strip_prefix("data:") {
                data = Some(found.trim().to_owned());
            }
        }
        assert_eq!(id, Some(expected.0));
        assert_eq!(change(&data.unwrap()), *expected);
    }
    drop(lines);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_socket_resumes_too() {
    let shop = Shop::start().await;
    let (before, expected) = three_changes(shop.rest()).await;
    let base = shop.rest().base().replace("http://", "ws://");
    let url = format!("{base}/v1/products:watch?resumeRevision={}", before + 1);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    for expected in &expected[1..] {
        let message = tokio::time::timeout(PATIENCE, async {
            loop {
                if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
                    return text;
                }
            }
        });
        assert_eq!(change(&message.await.expect("a change arrives")), *expected);
    }
    socket.close(None).await.unwrap();
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_payment_can_be_followed() {
    let shop = Shop::start().await;
    let rest = shop.rest();
    put_on_sale(rest, "MUG-1", 1250, 10).await;
    let path = "/v1/payments:watch?resumeRevision=0";
    let mut lines = lines(rest, path, "application/x-ndjson", None).await;
    let paid = rest
        .post("/v1/payments", &order("ORDER-1", &[("MUG-1", 1)]))
        .await
        .ok();
    let mut seen = 0;
    loop {
        let change: Value = serde_json::from_str(&lines.next().await).unwrap();
        assert_eq!(change["payment"]["id"], paid["id"]);
        assert!(whole(&change["revision"]) > seen, "revisions rise");
        seen = whole(&change["revision"]);
        if change["payment"]["state"] == "SUCCEEDED" {
            break;
        }
    }
    drop(lines);
    shop.close().await;
}
