//! What is not a simulator: servers that happen to listen where one should, and the receiver of webhooks.

use crate::far::{Far, KEY, VISA, authorize, client, config, is_unavailable, is_unknown};
use payment::provider::Provider as _;
use payment::provider::simulator::Post;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const CAPABILITIES: &str = "{\"manual_capture\":true,\"partial_capture\":true,\"void\":true,\
    \"authorization_ttl_us\":604800000000,\"idempotency_window_us\":9223372036854775807}";

/// A server that says the same to everybody who does not ask for capabilities, and keeps what it heard.
pub(crate) struct Stranger {
    pub(crate) address: SocketAddr,
    pub(crate) heard: UnboundedReceiver<String>,
}

impl Stranger {
    pub(crate) async fn new(status: &'static str, body: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, heard) = unbounded_channel();
        mesh::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                mesh::spawn(answer(stream, status, body, sender.clone()));
            }
        });
        Self { address, heard }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// One request, one answer; without a status the connection ends instead.
async fn answer(
    mut stream: TcpStream,
    status: &'static str,
    body: &'static str,
    heard: UnboundedSender<String>,
) {
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    while !is_whole(&request) {
        match stream.read(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&piece[..read]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let (status, body) = if request.starts_with("GET /v1/capabilities") {
        ("200 OK", CAPABILITIES)
    } else {
        (status, body)
    };
    heard.send(request).ok();
    if !status.is_empty() {
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).await.ok();
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let mut lengths = head
        .lines()
        .filter_map(|line| line.strip_prefix("content-length: "));
    let length: usize = lengths
        .next_back()
        .map_or(0, |length| length.parse().unwrap());
    body.len() >= length
}

#[tokio::test]
async fn what_somebody_else_says_is_no_answer() {
    let html = "<html>not here</html>";
    let named = "{\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"later\"}}";
    for (status, body) in [
        ("", ""),
        ("200 OK", ""),
        ("200 OK", "{}"),
        ("200 OK", html),
        ("200 OK", "{\"charge\":null,\"settlement\":null}"),
        ("204 No Content", ""),
        ("302 Found", ""),
        ("400 Bad Request", html),
        ("403 Forbidden", html),
        ("404 Not Found", html),
        ("500 Internal Server Error", named),
        ("502 Bad Gateway", html),
        ("503 Service Unavailable", html),
    ] {
        let stranger = Stranger::new(status, body).await;
        let remote = client(&stranger.url(), KEY, &config());
        let answer = remote.authorize(&authorize("att_1", VISA)).await;
        assert!(is_unknown(&answer), "{status} {body}: {answer:?}");
        if !body.contains("null") {
            let answer = remote.look_up_charge("att_1").await;
            assert!(is_unavailable(&answer), "{status} {body}: {answer:?}");
            let answer = remote.look_up_settlement("cap_1").await;
            assert!(is_unavailable(&answer), "{status} {body}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_503_counts_as_without_effect_only_with_the_code() {
    let named = "{\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"later\"}}";
    let stranger = Stranger::new("503 Service Unavailable", named).await;
    let remote = client(&stranger.url(), KEY, &config());
    let answer = remote.authorize(&authorize("att_1", VISA)).await;
    assert!(is_unavailable(&answer), "{answer:?}");
}

#[tokio::test]
async fn webhooks_are_posted_as_they_were_signed() {
    let far = Far::new().await;
    let remote = far.client();
    let mut receiver = Stranger::new("200 OK", "{}").await;
    let url = format!("{}/v1/webhooks/simulator", receiver.url());
    let post = Post::to(&url).unwrap();
    let late = authorize("att_1", "pm_card_webhook_late");
    remote.authorize(&late).await.unwrap();
    far.clock.advance(3_000_000);
    assert_eq!(far.simulator.deliver_webhooks(&post).await, Ok(1));
    let request = receiver.heard.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/webhooks/simulator HTTP/1.1\r\n"));
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    let event = remote
        .verify_webhook(&headers.collect(), body.as_bytes(), far.clock.now_us())
        .unwrap();
    assert_eq!(event.reference, "att_1");
}

#[tokio::test]
async fn a_webhook_that_is_not_taken_waits() {
    let far = Far::new().await;
    let refusing = Stranger::new("503 Service Unavailable", "").await;
    let late = authorize("att_1", "pm_card_webhook_late");
    far.simulator.authorize(&late).await.unwrap();
    far.clock.advance(3_000_000);
    let post = Post::to(&refusing.url()).unwrap();
    assert_eq!(far.simulator.deliver_webhooks(&post).await, Ok(0));
    far.clock.advance(1_000_000);
    let taking = Stranger::new("200 OK", "").await;
    let post = Post::to(&taking.url()).unwrap();
    assert_eq!(far.simulator.deliver_webhooks(&post).await, Ok(1));
}
