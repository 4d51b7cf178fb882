//! A service whose behaviour each test writes itself, served for real on port 0.

pub(crate) mod by_hand;
pub(crate) mod contract;
pub(crate) mod kinds;
pub(crate) mod wire;

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use http::{Request, Response, uri::PathAndQuery};
use mesh::{Config, Contract, Mesh};
use prometheus::Registry;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, Streaming,
    body::Body,
    server::NamedService,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;
use tower::Service;

pub(crate) type Texts = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;
type Answer = Pin<Box<dyn Future<Output = Result<Texts, Status>> + Send>>;
type Handle = dyn Fn(String, Streaming<String>) -> Answer + Send + Sync;

/// `mesh.test.v1.TestService` as a function from the method's name and its requests to its answers.
/// On the wire a unary method is a stream of one. (A `string` in place of `Text` reads its first field.)
#[derive(Clone)]
pub(crate) struct TestService {
    handle: Arc<Handle>,
}

impl TestService {
    pub(crate) fn new<F>(
        handle: impl Fn(String, Streaming<String>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Texts, Status>> + Send + 'static,
    {
        Self {
            handle: Arc::new(move |method, requests| Box::pin(handle(method, requests))),
        }
    }
}

impl NamedService for TestService {
    const NAME: &'static str = "mesh.test.v1.TestService";
}

impl Service<Request<Body>> for TestService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        struct Handler(Arc<Handle>, String);
        impl tonic::server::StreamingService<String> for Handler {
            type Response = String;
            type ResponseStream = Texts;
            type Future =
                Pin<Box<dyn Future<Output = Result<tonic::Response<Texts>, Status>> + Send>>;

            fn call(&mut self, request: tonic::Request<Streaming<String>>) -> Self::Future {
                let answer = (self.0)(self.1.clone(), request.into_inner());
                Box::pin(async move { answer.await.map(tonic::Response::new) })
            }
        }
        let method = request
            .uri()
            .path()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let handler = Handler(self.handle.clone(), method);
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<String, String>::default());
            Ok(grpc.streaming(handler, request).await)
        })
    }
}

/// How long a busy machine may take for what a quiet one does at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Moves the runtime's clock, and with it every deadline, in no time. (The clock is not left paused: it
/// would then jump whenever the runtime waits for a socket.)
pub(crate) async fn elapse(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// How often a test does something: the large numbers by an environment variable, or a smaller
/// default that leaves the suite quick.
pub(crate) fn count(variable: &str, default: usize) -> usize {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test has no configuration to be an argument"
    )]
    let asked = std::env::var(variable);
    asked.map_or(default, |text| text.parse().expect("a number"))
}

/// Says how many calls a second were made of those that were wanted. A machine that others use as well pauses when it
/// likes, so only `MESH_TEST_RATES=1` makes too few of them a failure.
pub(crate) fn rate(what: &str, calls: usize, took: Duration, wanted_per_s: f64) {
    let calls = f64::from(u32::try_from(calls).expect("a test is short"));
    let per_s = calls / took.as_secs_f64();
    println!("{what}: {calls} calls, {per_s:.0} of {wanted_per_s} a second");
    assert!(
        count("MESH_TEST_RATES", 0) == 0 || per_s >= 0.95 * wanted_per_s,
        "{what}: {per_s:.0} of {wanted_per_s} calls a second"
    );
}

/// Waits until the `number`th call is due at this rate; not at all if it is late.
pub(crate) async fn due(began: std::time::Instant, number: usize, per_s: f64) {
    let number = f64::from(u32::try_from(number).expect("a test is short"));
    let at = began + Duration::from_secs_f64(number / per_s);
    let left = at.saturating_duration_since(std::time::Instant::now());
    if left.is_zero() {
        tokio::task::yield_now().await;
    } else {
        tokio::time::sleep(left).await;
    }
}

/// The value below which so many percent of them lie.
pub(crate) fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}

/// An answer of one text.
pub(crate) fn one(text: impl Into<String>) -> Texts {
    Box::pin(stream::iter([Ok(text.into())]))
}

/// Calls `mesh.test.v1.TestService` over anything that carries gRPC.
#[derive(Clone)]
pub(crate) struct TestClient<C>(pub(crate) C);

impl<C> TestClient<C>
where
    C: Service<Request<Body>, Response = Response<Body>> + Clone,
    C::Error: Into<tonic::codegen::StdError>,
{
    pub(crate) async fn unary(&self, method: &str, text: &str) -> Result<String, Status> {
        self.ask(method, tonic::Request::new(text.to_owned())).await
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        request: tonic::Request<String>,
    ) -> Result<String, Status> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready()
            .await
            .map_err(|error| Status::unknown(error.into().to_string()))?;
        let codec = ProstCodec::<String, String>::default();
        grpc.unary(request, path(method), codec)
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn open(
        &self,
        method: &str,
        requests: tonic::Request<impl Stream<Item = String> + Send + 'static>,
    ) -> Result<Streaming<String>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.0.clone());
        grpc.ready()
            .await
            .map_err(|error| Status::unknown(error.into().to_string()))?;
        let codec = ProstCodec::<String, String>::default();
        grpc.streaming(requests, path(method), codec)
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn stream(
        &self,
        method: &str,
        requests: impl Stream<Item = String> + Send + 'static,
    ) -> Result<Streaming<String>, Status> {
        self.open(method, tonic::Request::new(requests)).await
    }

    pub(crate) async fn watch(
        &self,
        method: &str,
        text: &str,
    ) -> Result<Streaming<String>, Status> {
        let text = text.to_owned();
        self.stream(method, stream::once(async move { text })).await
    }
}

fn path(method: &str) -> PathAndQuery {
    format!("/mesh.test.v1.TestService/{method}")
        .parse()
        .expect("a method's name is a path")
}

/// Everything that a stream says until it ends.
pub(crate) async fn drain(mut stream: Streaming<String>) -> (Vec<String>, Result<(), Status>) {
    let mut texts = Vec::new();
    loop {
        match stream.next().await {
            Some(Ok(text)) => texts.push(text),
            Some(Err(status)) => return (texts, Err(status)),
            None => return (texts, Ok(())),
        }
    }
}

/// A served mesh.
pub(crate) struct Served {
    pub(crate) registry: Registry,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), mesh::Error>>,
}

impl Served {
    /// A client of this server from a mesh of its own, as another process has it.
    pub(crate) fn client(&self) -> TestClient<mesh::Client> {
        TestClient(mesh_calling(self.address).client("test"))
    }
}

/// Waits until a mesh that is called through has a connection to every endpoint that it knows. A server
/// that is back is not yet one that every client has noticed: until then the next one must not go, as
/// `minReadySeconds` sees to it in a Deployment.
pub(crate) async fn all_ready(mesh: &Mesh) {
    let is_ready = || {
        let mut endpoints = mesh.endpoints().into_iter().flat_map(|one| one.endpoints);
        endpoints.all(|endpoint| endpoint.state == mesh::EndpointState::Ready)
    };
    let noticed = async {
        while !is_ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let noticed = tokio::time::timeout(PATIENCE, noticed).await;
    assert!(
        noticed.is_ok(),
        "not all are connected again: {:?}",
        mesh.endpoints()
    );
}

/// A mesh that knows one destination, `test`.
pub(crate) fn mesh_calling(address: SocketAddr) -> Mesh {
    let mut config = Config::default();
    config
        .destinations
        .insert("test".into(), format!("http://{address}"));
    mesh_with(config, &Registry::new())
}

/// A mesh that knows one destination, `test`, with several endpoints.
pub(crate) fn mesh_calling_all(addresses: impl IntoIterator<Item = SocketAddr>) -> Mesh {
    let mut config = Config::default();
    let listed: Vec<_> = addresses
        .into_iter()
        .map(|address| format!("http://{address}"))
        .collect();
    config.destinations.insert("test".into(), listed.join(","));
    mesh_with(config, &Registry::new())
}

pub(crate) fn mesh_with(config: Config, registry: &Registry) -> Mesh {
    let contract = Contract::new(contract::descriptor_set()).expect("the test's contract is valid");
    Mesh::new(config, contract, registry).expect("the test's configuration is valid")
}

pub(crate) async fn serve(config: Config, service: TestService) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    let (registry, shutdown) = (Registry::new(), CancellationToken::new());
    let mesh = mesh_with(config, &registry);
    let serving = mesh::spawn(mesh.server().add(service).serve(listener, shutdown.clone()));
    Served {
        registry,
        address,
        shutdown,
        serving,
    }
}

/// Plain tonic's client.
pub(crate) fn plain(address: SocketAddr) -> TestClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    TestClient(endpoint.expect("an address makes a URI").connect_lazy())
}

/// Connections as tonic takes them where it listens itself: without Nagle's algorithm, which with delayed acknowledgements
/// adds 40 ms to some calls.
pub(crate) fn undelayed(listener: TcpListener) -> impl Stream<Item = std::io::Result<TcpStream>> {
    tokio_stream::wrappers::TcpListenerStream::new(listener).map(|accepted| {
        let accepted = accepted?;
        accepted.set_nodelay(true)?;
        Ok(accepted)
    })
}

/// The same service under plain tonic, to show what the mesh is for.
pub(crate) async fn serve_plain(
    service: TestService,
) -> (
    SocketAddr,
    CancellationToken,
    JoinHandle<Result<(), tonic::transport::Error>>,
) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener
        .local_addr()
        .expect("a bound listener has an address");
    let shutdown = CancellationToken::new();
    let incoming = undelayed(listener);
    let stop = shutdown.clone();
    let serving = mesh::spawn(async move {
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await
    });
    (address, shutdown, serving)
}
