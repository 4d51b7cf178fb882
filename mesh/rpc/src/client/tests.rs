//! The client stack over transports that fail on purpose, in paused time. What belongs to one layer alone is tested
//! beside it; here are those together.

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
use mesh_identity::PeerGuard;
use prometheus::Registry;
use tokio::{
    io::{AsyncReadExt as _, DuplexStream},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

mod partings;
mod retries;
mod silence;
mod streams;

use super::*;
use super::{
    attempt::Attempts,
    balance::Tried,
    connect::{Connect, Connecting, Network, Opened},
    discovery::Target,
    failure::{Cause, Failure, Reach},
};
use crate::{
    CallContext, Config, Mesh, Principal, RetryConfig,
    identities::Identities,
    live::Live,
    metrics::Metrics,
    stack::{Call, FUTURE_BYTES_MAX, handler},
    testing::descriptor_set,
    traffic::Traffic,
    wire::header,
};

const READ: &str = "/mesh.test.v1.TestService/Read";
const PUT: &str = "/mesh.test.v1.TestService/Put";
const POST: &str = "/mesh.test.v1.TestService/Post";
const WATCH: &str = "/mesh.test.v1.TestService/Watch";

fn request(path: &str) -> Request<Body> {
    let body = Body::new(Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 10, 0])));
    let uri: Uri = format!("http://test{path}").parse().unwrap();
    Request::post(uri).body(body).unwrap()
}

pub(crate) fn contract() -> Contract {
    Contract::new(descriptor_set()).unwrap()
}

/// Makes connections as a test wants it, and counts them.
struct Made<C> {
    connect: C,
    count: Arc<AtomicU32>,
}

impl<C, F> Connect for Made<C>
where
    C: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = io::Result<DuplexStream>> + Send + 'static,
{
    fn connect<'a>(&'a self, _: &'a Target) -> Connecting<'a> {
        self.count.fetch_add(1, Ordering::SeqCst);
        let connecting = (self.connect)();
        Box::pin(async {
            Ok(Opened {
                stream: Box::new(connecting.await?),
                guard: PeerGuard::default(),
            })
        })
    }

    fn scheme(&self, _: &Target) -> http::uri::Scheme {
        http::uri::Scheme::HTTP
    }
}

/// Connects to an endpoint as the test says for its address.
struct By<F>(F);

impl<F> Connect for By<F>
where
    F: Fn(&str) -> io::Result<DuplexStream> + Send + Sync + 'static,
{
    fn connect<'a>(&'a self, target: &'a Target) -> Connecting<'a> {
        let connected = (self.0)(&target.address);
        Box::pin(async {
            Ok(Opened {
                stream: Box::new(connected?),
                guard: PeerGuard::default(),
            })
        })
    }

    fn scheme(&self, _: &Target) -> http::uri::Scheme {
        http::uri::Scheme::HTTP
    }
}

/// Over TCP.
pub(crate) fn network() -> Arc<dyn Connect> {
    let live = Live::new(Config::default());
    Arc::new(Network::new(Arc::new(Identities::off()), live))
}

fn destination_over(
    connector: Arc<dyn Connect>,
    endpoints: &str,
    config: &Config,
) -> Arc<Destination> {
    let source = parse_destination(endpoints).unwrap();
    let discover = discovery::of(source, &config.client.discovery);
    let metrics = ClientMetrics::register(&Registry::new()).unwrap();
    Destination::open(
        "test",
        Some(discover),
        connector,
        &Live::new(config.clone()),
        &contract(),
        &metrics,
    )
}

fn client_of(destination: Arc<Destination>, config: &Config) -> Client {
    let metrics = Metrics::register(Side::Client, &contract(), &Registry::new()).unwrap();
    let live = Live::new(config.clone());
    Client::new(
        destination,
        Versions::default(),
        &live,
        &contract(),
        metrics.of("test"),
        Traffic::default(),
    )
}

/// Lets what was begun come to its end.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A client whose connector never comes to a result.
fn hung() -> Client {
    let mut config = Config::default();
    config.client.connect_timeout_ms = 3_600_000;
    let connector = Made {
        connect: std::future::pending,
        count: Arc::default(),
    };
    let destination = destination_over(Arc::new(connector), "http://test:1", &config);
    client_of(destination, &config)
}

#[tokio::test]
async fn a_call_is_short_while_it_neither_waits_nor_hedges() {
    let destination = destination_over(network(), "http://127.0.0.1:1", &Config::default());
    let mut attempts = retry::Retry::new(destination.clone(), destination);
    let mut read = request(READ);
    let call = Call::tested(None, CallContext::current());
    read.extensions_mut().insert(call);
    let calling = attempts.call(read);
    let bytes = size_of_val(&*calling);
    assert!(bytes <= FUTURE_BYTES_MAX, "{bytes}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_covers_connecting() {
    let started = Instant::now();
    let mut covered = request(READ);
    covered
        .headers_mut()
        .insert("grpc-timeout", "200m".parse().unwrap());
    let status = hung().oneshot(covered).await.unwrap_err();
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
        let client = hung();
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
    let calling = crate::spawn(context.scope(hung().oneshot(request(READ))));
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
    let status = hung().oneshot(request).await.unwrap_err();
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
        .layer(context::layer(contract(), Live::new(Config::default())))
        .service(handler(move |request| {
            let seen = seen.clone();
            async move {
                seen.send((request.headers().clone(), Call::of(&request).clone()))
                    .await
                    .unwrap();
                Ok(Response::new(Body::empty()))
            }
        }));
    let caller = CallContext::root(Principal::new("shop, 상점", ["operator", "a,b"]))
        .with_request_id("req-7")
        .with_criticality(crate::Criticality::Sheddable);
    let traceparent = caller.traceparent();
    let mut forged = request(READ);
    forged
        .headers_mut()
        .insert(&header::PRINCIPAL, "root".parse().unwrap());
    caller.scope(stack.clone().oneshot(forged)).await.unwrap();
    let (sent, call) = headers.recv().await.unwrap();
    assert_eq!(sent[&header::PRINCIPAL], "shop%2C%20%EC%83%81%EC%A0%90");
    assert_eq!(sent[&header::SCOPES], "operator,a%2Cb");
    assert_eq!(
        sent[&header::CRITICALITY],
        "sheddable",
        "lower than the method's own"
    );
    assert_eq!(sent[&header::REQUEST_ID], "req-7");
    let sent = sent[&header::TRACEPARENT].to_str().unwrap();
    assert_eq!(sent[3..35], traceparent[3..35], "the same trace");
    assert_ne!(sent, traceparent, "a span of its own");
    assert_eq!(call.method.unwrap().path, READ);

    // Nobody's call forwards nobody, whatever its headers claim.
    let mut forged = request(READ);
    forged
        .headers_mut()
        .insert(&header::PRINCIPAL, "root".parse().unwrap());
    forged
        .headers_mut()
        .insert(&header::SCOPES, "operator".parse().unwrap());
    stack.oneshot(forged).await.unwrap();
    let (sent, _) = headers.recv().await.unwrap();
    assert!(!sent.contains_key(&header::PRINCIPAL) && !sent.contains_key(&header::SCOPES));
    assert_eq!(
        sent[&header::CRITICALITY],
        "sheddable_plus",
        "the method's own"
    );
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_and_says_when_to_come_back() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let config = Config::default();
    let destination = destination_over(network(), &format!("http://{gone}"), &config);
    let status = client_of(destination, &config)
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
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "DESTINATION_UNAVAILABLE");
    assert_eq!(info.metadata["layer"], "balance");
}

/// How often a client connects for one call when `connect` makes its connections.
async fn connections<F>(
    path: &str,
    connect: impl Fn() -> F + Send + Sync + 'static,
) -> (u32, Status)
where
    F: Future<Output = io::Result<DuplexStream>> + Send + 'static,
{
    let mut config = Config::default();
    config.client.pool.backoff_ms = 1; // Less than the calls' own.
    config.client.retry.backoff_ms = 100;
    let count = Arc::new(AtomicU32::new(0));
    let connector = Made {
        connect,
        count: count.clone(),
    };
    let destination = destination_over(Arc::new(connector), "http://test:1", &config);
    let status = client_of(destination, &config)
        .oneshot(request(path))
        .await
        .unwrap_err();
    (count.load(Ordering::SeqCst), status)
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_tried_again_and_one_that_breaks_with_the_request_is_not() {
    let refused = || async { Err(io::ErrorKind::ConnectionRefused.into()) };
    let (attempts, status) = connections(POST, refused).await;
    assert_eq!(status.code(), Code::Unavailable);
    assert!((2..=4).contains(&attempts), "{attempts}");

    let breaking = || async {
        let (near, far) = tokio::io::duplex(4096);
        crate::spawn(async move {
            let mut server = h2::server::handshake(far).await.unwrap();
            // Seen, and then nothing: not even GOAWAY.
            drop(server.accept().await);
        });
        Ok(near)
    };
    let (_, status) = connections(POST, breaking).await;
    assert_eq!(status.code(), Code::Unavailable, "it may have been seen");
    assert!(status.message().contains("attempt 1)"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_called_who_does_not_speak_http2() {
    let silent = || async {
        let (near, mut far) = tokio::io::duplex(4096);
        crate::spawn(async move {
            let mut seen = Vec::new();
            while far.read_buf(&mut seen).await.unwrap() > 0 {}
            let text = b"\0\0\0\0\x02\x0a\0";
            assert!(!seen.windows(text.len()).any(|window| window == text));
        });
        Ok(near)
    };
    let (attempts, status) = connections(POST, silent).await;
    // One attempt to connect takes two seconds, and the call ten.
    assert!((4..=5).contains(&attempts), "{attempts}");
    assert!(
        matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded),
        "{status}"
    );
}
