//! One edge, one service behind it, both on port 0, both stopped at the end of a test.

use std::{collections::BTreeMap, net::SocketAddr, sync::OnceLock, time::Duration};

use mesh::{Contract, Mesh};
use prometheus::Registry;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::notes::{NoteServer, Observed};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

struct Notes;

impl FileResolver for Notes {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "notes.proto" {
            File::from_source(name, include_str!("notes.proto"))
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

fn descriptor_set() -> &'static [u8] {
    static SET: OnceLock<Vec<u8>> = OnceLock::new();
    SET.get_or_init(|| {
        let mut resolver = ChainFileResolver::new();
        resolver.add(Notes);
        resolver.add(IncludeFileResolver::new(mesh_proto::PROTO_ROOT.into()));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = protox::Compiler::with_file_resolver(resolver);
        compiler.include_imports(true).include_source_info(true);
        compiler.open_file("notes.proto").unwrap();
        compiler.encode_file_descriptor_set()
    })
}

/// A running edge and its service.
pub(crate) struct Edge {
    pub(crate) address: SocketAddr,
    pub(crate) observed: Observed,
    pub(crate) registry: Registry,
    client: Client,
    shutdown: CancellationToken,
    service_shutdown: CancellationToken,
    serving: JoinHandle<anyhow::Result<()>>,
    service: JoinHandle<Result<(), mesh::Error>>,
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut edge::Config)) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (service_listener, listener) = (listen().await.unwrap(), listen().await.unwrap());
        let destination = format!("http://{}", service_listener.local_addr().unwrap());
        let address = listener.local_addr().unwrap();
        let (shutdown, service_shutdown) = (CancellationToken::new(), CancellationToken::new());
        let contract = Contract::new(descriptor_set()).unwrap();
        let observed = Observed::default();
        let server = Mesh::new(mesh::Config::default(), contract.clone(), &Registry::new());
        let server = server.unwrap().server().add(NoteServer(observed.clone()));
        let service = mesh::spawn(server.serve(service_listener, service_shutdown.clone()));

        let mut config = edge::Config::default();
        config.mesh.destinations = BTreeMap::from([("note".to_owned(), destination)]);
        configure(&mut config);
        let registry = Registry::new();
        let calling = Mesh::new(config.mesh.clone(), contract, &registry).unwrap();
        let (metrics, stop) = (registry.clone(), shutdown.clone());
        let serving =
            mesh::spawn(async move { edge::run(config, calling, &metrics, listener, stop).await });
        let client = Client::builder().timeout(PATIENCE).build().unwrap();
        Self {
            address,
            observed,
            registry,
            client,
            shutdown,
            service_shutdown,
            serving,
            service,
        }
    }

    /// How many requests were answered 504 for their client's own deadline.
    pub(crate) fn client_deadlines(&self) -> f64 {
        let families = self.registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "edge_client_deadlines_total");
        let metric = &family.expect("it is counted from the start").get_metric()[0];
        metric.get_counter().get_value()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, verb: &str, path: &str) -> RequestBuilder {
        self.client
            .request(Method::from_bytes(verb.as_bytes()).unwrap(), self.url(path))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request("GET", path).send().await.unwrap()
    }

    pub(crate) async fn send(&self, verb: &str, path: &str, body: &str) -> Response {
        let request = self
            .request(verb, path)
            .header("content-type", "application/json");
        request.body(body.to_owned()).send().await.unwrap()
    }

    /// Asks the edge to stop, as a signal would.
    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Stops the service alone.
    pub(crate) async fn stop_service(&mut self) {
        self.service_shutdown.cancel();
        (&mut self.service).await.unwrap().unwrap();
    }

    /// Waits until a call has been cancelled at the service.
    pub(crate) async fn cancelled(&self) {
        let cancelled = async {
            while self
                .observed
                .cancelled
                .load(std::sync::atomic::Ordering::SeqCst)
                == 0
            {
                self.observed.event.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, cancelled)
            .await
            .expect("no call was cancelled");
    }

    /// Stops both and passes on what went wrong.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.serving)
            .await
            .expect("drained")
            .unwrap()
            .unwrap();
        self.service_shutdown.cancel();
        if !self.service.is_finished() {
            self.service.await.unwrap().unwrap();
        }
    }
}

/// Status and JSON body.
pub(crate) async fn json(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")),
    )
}

/// The detail of this type in an error.
pub(crate) fn detail<'a>(error: &'a Value, name: &str) -> &'a Value {
    let url = format!("type.googleapis.com/google.rpc.{name}");
    let mut details = error["details"].as_array().unwrap().iter();
    details
        .find(|detail| detail["@type"] == url.as_str())
        .unwrap_or_else(|| panic!("{name}: {error}"))
}
