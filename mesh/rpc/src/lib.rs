//! The gRPC service mesh in the process: client stack, server stack, one file per layer.
//!
//! A service author writes two lines; every default is safe:
//! ```ignore
//! let products = ProductServiceClient::new(mesh.client("product"));
//! mesh.server().add(PaymentServiceServer::new(api)).serve(listener, shutdown).await?;
//! ```
//! The author states meaning in the contract (`idempotency_level` and the `mesh.v1` options); the mesh
//! reads it from the descriptors ([`Contract`]) and owns the mechanism behind it: deadlines that cover
//! connecting and whole streams, trace and principal that travel along ([`CallContext`]), discovery,
//! balancing, retries within a budget, hedging, ejection of endpoints that fail, overload control, rate
//! limits, size limits, metrics, health, reflection, graceful shutdown.
//!
//! Deliberately without: SQL, a broker, anything that knows commerce; global state; and, until the
//! issues that bring them, identity (the server believes the `mesh-principal` header of whoever can
//! reach it: keep its port inside) and authorisation (the audience of a method is enforced by the edge).

mod bounded;
mod client;
mod config;
mod context;
mod contract;
mod error;
mod frames;
mod live;
mod metrics;
mod observe;
mod reload;
mod server;
mod stack;
mod status;
#[cfg(test)]
#[path = "../tests/support/contract.rs"]
mod testing;
mod trace;
mod wire;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use client::{
    BalanceConfig, Client, ClientConfig, DestinationSnapshot, DiscoveryConfig, EndpointSnapshot,
    EndpointState, HedgeConfig, OutlierConfig, PoolConfig, RetryConfig,
};
pub use config::{Config, ServerConfig};
pub use context::{CallContext, Principal, carry, detach, spawn};
pub use contract::{
    Audience, Contract, ContractError, Criticality, Idempotency, MethodContract, MethodDeadline,
    destination_of,
};
pub use error::Error;
pub use reload::Reloaded;
pub use server::{
    FaultRule, FaultsConfig, Health, OverloadConfig, RateLimitRule, RateLimitsConfig, Server,
};
pub use status::ERROR_DOMAIN;
pub use wire::header;

use crate::{
    client::{ClientMetrics, Destination, Versions},
    live::Live,
    metrics::Metrics,
    server::metrics::ServerMetrics,
    stack::Side,
};

/// What a process needs to call and to serve: configuration, contract, connections, metrics.
/// Cheap to clone; one per process and registry.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    live: Live,
    contract: Contract,
    client_metrics: Metrics,
    server_metrics: Metrics,
    layer_metrics: ServerMetrics,
    attempt_metrics: ClientMetrics,
    clients: Mutex<Clients>,
}

/// The destinations that were ever called, and their clients.
#[derive(Default)]
struct Clients {
    opened: HashMap<String, Opened>,
    /// Those that the process cannot do without.
    required: BTreeSet<String>,
}

/// A destination and its client, made at its first use.
#[derive(Clone)]
struct Opened {
    client: Client,
    destination: Arc<Destination>,
    versions: Versions,
}

impl Inner {
    fn clients(&self) -> MutexGuard<'_, Clients> {
        // A map of finished clients is whole even if a thread panicked while it held the lock.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    fn open(&mut self, name: &str, mesh: &Inner) -> Opened {
        if let Some(opened) = self.opened.get(name) {
            return opened.clone();
        }
        let (live, contract) = (&mesh.live, &mesh.contract);
        let versions = Versions::default();
        let destination = Destination::configured(name, live, contract, &mesh.attempt_metrics);
        let metrics = mesh.client_metrics.clone();
        let client = Client::new(
            destination.clone(),
            versions.clone(),
            live,
            contract,
            metrics,
        );
        let opened = Opened {
            client,
            destination,
            versions,
        };
        self.opened.insert(name.to_owned(), opened.clone());
        opened
    }

    /// Shares the calls of the destinations between their versions as the configuration has it now.
    fn split(&mut self, mesh: &Inner) {
        let config = mesh.live.whole();
        let mut names: Vec<_> = self.opened.keys().cloned().collect();
        while let Some(name) = names.pop() {
            let mut versions = Vec::new();
            for (version, weight) in config.splits.get(&name).into_iter().flatten() {
                if !self.opened.contains_key(version) {
                    names.push(version.clone());
                }
                versions.push((*weight, self.open(version, mesh).destination));
            }
            self.open(&name, mesh).versions.replace(versions);
        }
    }
}

impl Mesh {
    /// Checks the configuration and registers the metrics. Connects nothing yet.
    pub fn new(
        config: Config,
        contract: Contract,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        config.validate()?;
        let client_metrics = Metrics::register(Side::Client, registry)?;
        let server_metrics = Metrics::register(Side::Server, registry)?;
        let layer_metrics = ServerMetrics::register(registry)?;
        let attempt_metrics = ClientMetrics::register(registry)?;
        let clients = Mutex::default();
        let inner = Inner {
            live: Live::new(config),
            contract,
            client_metrics,
            server_metrics,
            layer_metrics,
            attempt_metrics,
            clients,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// A client of the destination, to be put into a generated tonic client. Clients of one destination
    /// share its connections, which are made when calls need them. Needs a tokio runtime.
    ///
    /// A destination that is not configured answers UNAVAILABLE to every call and names the missing key.
    pub fn client(&self, destination: &str) -> Client {
        let mut clients = self.inner.clients();
        if let Some(opened) = clients.opened.get(destination) {
            return opened.client.clone();
        }
        let opened = clients.open(destination, &self.inner);
        clients.split(&self.inner);
        opened.client
    }

    /// What is known at the moment of every destination that was ever called, and of its endpoints.
    pub fn endpoints(&self) -> Vec<DestinationSnapshot> {
        let clients = self.inner.clients();
        let mut snapshots: Vec<_> = clients
            .opened
            .values()
            .map(|opened| opened.destination.snapshot())
            .collect();
        snapshots.sort_unstable_by(|a, b| a.destination.cmp(&b.destination));
        snapshots
    }

    /// Refuses to start without an address for each destination that the process cannot do without, and
    /// from then on every configuration that has none.
    pub fn require(&self, destinations: &[&str]) -> Result<(), Error> {
        let config = self.config();
        if let Some(missing) = destinations.iter().find(|name| !config.knows(name)) {
            return Err(Error::Unconfigured((*missing).to_owned()));
        }
        let required = destinations.iter().map(|name| (*name).to_owned());
        self.inner.clients().required.extend(required);
        Ok(())
    }

    /// A server without services yet.
    pub fn server(&self) -> Server {
        Server::new(self.clone())
    }

    /// What the mesh knows of the methods.
    pub fn contract(&self) -> &Contract {
        &self.inner.contract
    }

    /// What the mesh is configured with at the moment.
    pub fn config(&self) -> Arc<Config> {
        self.inner.live.whole()
    }

    pub(crate) fn live(&self) -> &Live {
        &self.inner.live
    }

    pub(crate) fn server_metrics(&self) -> &ServerMetrics {
        &self.inner.layer_metrics
    }

    pub(crate) fn metrics(&self, side: Side) -> Metrics {
        match side {
            Side::Client => self.inner.client_metrics.clone(),
            Side::Server => self.inner.server_metrics.clone(),
        }
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("config", &self.config())
            .finish_non_exhaustive()
    }
}
