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
//! balancing, retries within a budget, hedging, ejection of endpoints that fail, size limits, metrics,
//! health, reflection, graceful shutdown.
//!
//! Deliberately without: SQL, a broker, anything that knows commerce; global state; and, until the
//! issues that bring them, identity (the server believes the `mesh-principal` header of whoever can
//! reach it: keep its port inside), authorisation (the audience of a method is enforced by the edge) and
//! overload control.

mod bounded;
mod client;
mod config;
mod context;
mod contract;
mod error;
mod frames;
#[doc(hidden)]
pub mod measure;
mod metrics;
mod observe;
mod server;
mod stack;
mod status;
#[cfg(test)]
#[path = "../tests/support/contract.rs"]
mod testing;
mod trace;
mod wire;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
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
pub use server::{Health, Server};
pub use status::ERROR_DOMAIN;
pub use wire::header;

use crate::{
    client::{ClientMetrics, Destination},
    metrics::Metrics,
    stack::Side,
};

/// What a process needs to call and to serve: configuration, contract, connections, metrics.
/// Cheap to clone; one per process and registry.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    contract: Contract,
    client_metrics: Metrics,
    server_metrics: Metrics,
    attempt_metrics: ClientMetrics,
    // One per destination, made at its first use.
    clients: Mutex<HashMap<String, (Client, Arc<Destination>)>>,
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
        let attempt_metrics = ClientMetrics::register(registry)?;
        let clients = Mutex::default();
        let inner = Inner {
            config,
            contract,
            client_metrics,
            server_metrics,
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
        let Inner {
            config,
            contract,
            client_metrics,
            attempt_metrics,
            clients,
            ..
        } = &*self.inner;
        // A map of finished clients is whole even if a thread panicked while it held the lock.
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((client, _)) = clients.get(destination) {
            return client.clone();
        }
        let opened = Destination::configured(destination, config, contract, attempt_metrics);
        let client = Client::new(opened.clone(), config, contract, client_metrics.clone());
        clients.insert(destination.to_owned(), (client.clone(), opened));
        client
    }

    /// What is known at the moment of every destination that was ever called, and of its endpoints.
    pub fn endpoints(&self) -> Vec<DestinationSnapshot> {
        let clients = &self.inner.clients;
        let clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut snapshots: Vec<_> = clients
            .values()
            .map(|(_, opened)| opened.snapshot())
            .collect();
        snapshots.sort_unstable_by(|a, b| a.destination.cmp(&b.destination));
        snapshots
    }

    /// Refuses to start without an address for each destination that the process cannot do without.
    pub fn require(&self, destinations: &[&str]) -> Result<(), Error> {
        let configured = &self.inner.config.destinations;
        match destinations
            .iter()
            .find(|name| !configured.contains_key(**name))
        {
            Some(missing) => Err(Error::Unconfigured((*missing).to_owned())),
            None => Ok(()),
        }
    }

    /// A server without services yet.
    pub fn server(&self) -> Server {
        Server::new(self.clone())
    }

    /// What the mesh knows of the methods.
    pub fn contract(&self) -> &Contract {
        &self.inner.contract
    }

    /// What the mesh was configured with.
    pub fn config(&self) -> &Config {
        &self.inner.config
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
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}
