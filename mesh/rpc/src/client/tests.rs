//! The client stack over transports that fail on purpose, in paused time.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt as _, DuplexStream},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Channel};
use tonic_types::StatusExt as _;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::{
    CallContext, Mesh, Principal, RetryConfig, stack::Call, testing::descriptor_set, wire::header,
};

const READ: &str = "/mesh.test.v1.TestService/Read";
const POST: &str = "/mesh.test.v1.TestService/Post";

fn request(path: &str) -> Request<Body> {
    let body = Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 10, 0])));
    let uri: Uri = format!("http://test{path}").parse().unwrap();
    Request::post(uri).body(body).unwrap()
}

fn contract() -> Contract {
    Contract::new(descriptor_set()).unwrap()
}

/// A channel whose connector never comes to a result.
fn hung_channel() -> Channel {
    transport::endpoint(Uri::from_static("http://test:1"), &Config::default())
        .connect_timeout(Duration::from_hours(1))
        .connect_with_connector_lazy(service_fn(|_: Uri| {
            std::future::pending::<io::Result<TokioIo<DuplexStream>>>()
        }))
}

fn client_over(channel: Channel) -> Client {
    let metrics = Metrics::register(Side::Client, &Registry::new()).unwrap();
    Client::new(
        Transport::over("test", channel),
        &Config::default(),
        &contract(),
        metrics,
    )
}

#[tokio::test(start_paused = true)]
async fn a_deadline_covers_connecting_where_plain_tonic_hangs() {
    let started = Instant::now();
    let mut plain = request(READ);
    plain
        .headers_mut()
        .insert("grpc-timeout", "200m".parse().unwrap());
    let waiting = tokio::time::timeout(Duration::from_secs(3), hung_channel().oneshot(plain));
    assert!(
        waiting.await.is_err(),
        "plain tonic is expected to hang here"
    );
    assert_eq!(started.elapsed().as_secs(), 3);

    let started = Instant::now();
    let mut covered = request(READ);
    covered
        .headers_mut()
        .insert("grpc-timeout", "200m".parse().unwrap());
    let status = client_over(hung_channel())
        .oneshot(covered)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(started.elapsed().as_millis(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_soonest_of_context_request_and_contract_counts() {
    async fn waited(context: Option<u64>, asked: Option<&str>, path: &str) -> u128 {
        let started = Instant::now();
        let mut request = request(path);
        if let Some(asked) = asked {
            request
                .headers_mut()
                .insert("grpc-timeout", asked.parse().unwrap());
        }
        let deadline = context.map(|ms| started + Duration::from_millis(ms));
        let context = CallContext::root(Principal::anonymous()).with_deadline(deadline);
        let client = client_over(hung_channel());
        let status = context.scope(client.oneshot(request)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
        started.elapsed().as_millis()
    }
    assert_eq!(waited(None, None, READ).await, 5_000, "the contract's");
    assert_eq!(
        waited(None, None, POST).await,
        10_000,
        "the configured default"
    );
    assert_eq!(waited(Some(300), None, READ).await, 300, "the caller's");
    assert_eq!(
        waited(Some(300), Some("200m"), READ).await,
        200,
        "the request's"
    );
    assert_eq!(
        waited(Some(300), Some("9S"), READ).await,
        300,
        "the caller's again"
    );
    assert_eq!(
        waited(None, Some("9S"), READ).await,
        5_000,
        "the contract caps it"
    );
    assert_eq!(
        waited(Some(0), None, READ).await,
        0,
        "none left: not even begun"
    );
}

#[tokio::test]
async fn a_call_ends_with_the_call_that_it_is_made_for() {
    let token = CancellationToken::new();
    let context = CallContext::root(Principal::anonymous()).with_cancellation(token.clone());
    let calling = crate::spawn(context.scope(client_over(hung_channel()).oneshot(request(READ))));
    tokio::task::yield_now().await;
    assert!(!calling.is_finished());
    token.cancel();
    assert_eq!(calling.await.unwrap().unwrap_err().code(), Code::Cancelled);
}

#[tokio::test]
async fn a_malformed_timeout_is_refused_by_its_name() {
    let mut request = request(READ);
    request
        .headers_mut()
        .insert("grpc-timeout", "soon".parse().unwrap());
    let status = client_over(hung_channel())
        .oneshot(request)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("grpc-timeout"), "{status}");
}

#[tokio::test]
async fn an_unconfigured_destination_names_its_key() {
    let mesh = Mesh::new(Config::default(), contract(), &Registry::new()).unwrap();
    let status = mesh
        .client("product")
        .oneshot(request(READ))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("mesh.destinations.product"),
        "{status}"
    );
    let error = mesh.require(&["product"]).unwrap_err().to_string();
    assert!(error.contains("mesh.destinations.product"), "{error}");
}

#[tokio::test]
async fn the_context_goes_along_in_headers() {
    let (seen, mut headers) = tokio::sync::mpsc::channel(1);
    let stack = ServiceBuilder::new()
        .layer(context::layer(contract(), Duration::from_secs(10)))
        .service(service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                seen.send((request.headers().clone(), Call::of(&request).clone()))
                    .await
                    .unwrap();
                Ok::<_, Status>(Response::new(Body::empty()))
            }
        }));
    let caller = CallContext::root(Principal::new("shop, 상점", ["operator", "a,b"]))
        .with_request_id("req-7")
        .with_criticality(crate::Criticality::Sheddable);
    let traceparent = caller.traceparent();
    let mut forged = request(READ);
    forged
        .headers_mut()
        .insert(header::PRINCIPAL, "root".parse().unwrap());
    caller.scope(stack.clone().oneshot(forged)).await.unwrap();
    let (sent, call) = headers.recv().await.unwrap();
    assert_eq!(sent[header::PRINCIPAL], "shop%2C%20%EC%83%81%EC%A0%90");
    assert_eq!(sent[header::SCOPES], "operator,a%2Cb");
    assert_eq!(
        sent[header::CRITICALITY],
        "sheddable",
        "lower than the method's own"
    );
    assert_eq!(sent[header::REQUEST_ID], "req-7");
    let sent = sent[header::TRACEPARENT].to_str().unwrap();
    assert_eq!(sent[3..35], traceparent[3..35], "the same trace");
    assert_ne!(sent, traceparent, "a span of its own");
    assert_eq!(call.method.unwrap().path, READ);

    // Nobody's call forwards nobody, whatever its headers claim.
    let mut forged = request(READ);
    forged
        .headers_mut()
        .insert(header::PRINCIPAL, "root".parse().unwrap());
    forged
        .headers_mut()
        .insert(header::SCOPES, "operator".parse().unwrap());
    stack.oneshot(forged).await.unwrap();
    let (sent, _) = headers.recv().await.unwrap();
    assert!(!sent.contains_key(header::PRINCIPAL) && !sent.contains_key(header::SCOPES));
    assert_eq!(
        sent[header::CRITICALITY],
        "sheddable_plus",
        "the method's own"
    );
}

/// What the retry layer makes of a transport that fails `failures` times.
async fn tried(path: &str, failures: u32, sent: bool, config: RetryConfig) -> (u32, Option<Code>) {
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let stack = ServiceBuilder::new()
        .layer(context::layer(contract(), Duration::from_secs(10)))
        .layer(deadline::layer())
        .layer(retry::layer(config))
        .service(service_fn(move |request: Request<Body>| {
            let attempt = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(
                    &body[..],
                    [0, 0, 0, 0, 2, 10, 0],
                    "every attempt sends the request"
                );
                if attempt < failures {
                    return Err(Failure {
                        status: crate::status::unavailable("test"),
                        worth_repeating: !sent,
                    });
                }
                Ok(Response::new(Body::empty()))
            }
        }));
    let outcome = stack.oneshot(request(path)).await;
    (
        attempts.load(Ordering::SeqCst),
        outcome.err().map(|status| status.code()),
    )
}

#[tokio::test(start_paused = true)]
async fn only_what_was_never_sent_and_may_be_repeated_is_tried_again() {
    let config = RetryConfig::default;
    assert_eq!(tried(READ, 2, false, config()).await, (3, None));
    assert_eq!(
        tried(READ, 2, true, config()).await,
        (1, Some(Code::Unavailable))
    );
    assert_eq!(
        tried(POST, 2, false, config()).await,
        (1, Some(Code::Unavailable))
    );
    assert_eq!(
        tried(READ, 9, false, config()).await,
        (4, Some(Code::Unavailable))
    );
    let never = RetryConfig {
        attempts_max: 1,
        ..config()
    };
    assert_eq!(
        tried(READ, 2, false, never).await,
        (1, Some(Code::Unavailable))
    );
    let short = RetryConfig {
        replay_bytes_max: 3,
        ..config()
    };
    assert_eq!(
        tried(READ, 2, false, short).await,
        (1, Some(Code::Unavailable))
    );
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_waited_for_that_would_come_after_the_deadline() {
    let started = Instant::now();
    let patient = RetryConfig {
        backoff_ms: 3_600_000,
        backoff_max_ms: 3_600_000,
        ..RetryConfig::default()
    };
    let (attempts, code) = tried(READ, 9, false, patient).await;
    assert_eq!(code, Some(Code::Unavailable), "the cause, not the deadline");
    assert!(attempts < 4 && started.elapsed() < Duration::from_secs(5));
}

#[test]
fn pauses_grow_to_their_limit() {
    let config = RetryConfig {
        backoff_ms: 25,
        backoff_max_ms: 500,
        ..RetryConfig::default()
    };
    let mean_ms = |attempt| config.pause(attempt, 0.5).as_millis();
    assert_eq!([1, 2, 3, 6, 40].map(mean_ms), [25, 50, 100, 500, 500]);
    assert_eq!(config.pause(3, 0.0), Duration::ZERO);
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_and_says_when_to_come_back() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let uri: Uri = format!("http://{gone}").parse().unwrap();
    let channel = transport::endpoint(uri, &Config::default()).connect_lazy();
    let status = client_over(channel)
        .oneshot(request(READ))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        !status.message().contains("127.0.0.1"),
        "no internals: {status}"
    );
    let details = status.get_error_details();
    assert!(details.retry_info().is_some());
    assert_eq!(
        details.error_info().unwrap().reason,
        "DESTINATION_UNAVAILABLE"
    );
}

/// How often a channel connects for one call when `connect` makes its connections.
async fn connections<F>(connect: impl Fn() -> F + Send + 'static) -> (u32, Status)
where
    F: Future<Output = io::Result<TokioIo<DuplexStream>>> + Send + 'static,
{
    let connections = Arc::new(AtomicU32::new(0));
    let counted = connections.clone();
    let channel = transport::endpoint(Uri::from_static("http://test:1"), &Config::default())
        .connect_with_connector_lazy(service_fn(move |_: Uri| {
            counted.fetch_add(1, Ordering::SeqCst);
            connect()
        }));
    let status = client_over(channel)
        .oneshot(request(READ))
        .await
        .unwrap_err();
    (connections.load(Ordering::SeqCst), status)
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_tried_again_and_one_that_breaks_with_the_request_is_not() {
    let refused = || async { Err(io::ErrorKind::ConnectionRefused.into()) };
    let (attempts, status) = connections(refused).await;
    assert_eq!((attempts, status.code()), (4, Code::Unavailable));

    let breaking = || async {
        let (near, mut far) = tokio::io::duplex(4096);
        crate::spawn(async move {
            // The preface, SETTINGS and with them, in one write or the next, the request.
            let mut seen = Vec::new();
            while !seen.ends_with(&[0, 0, 0, 0, 2, 10, 0]) {
                far.read_buf(&mut seen).await.unwrap();
            }
        });
        Ok(TokioIo::new(near))
    };
    let (attempts, status) = connections(breaking).await;
    assert_eq!(
        (attempts, status.code()),
        (1, Code::Unavailable),
        "it may have been seen"
    );
}
