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
mod exemplars;
mod frames;
mod inspect;
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
mod traffic;
mod wire;

use std::sync::Arc;

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
pub use trace::SpanIds;
#[doc(hidden)]
pub use tracing as __tracing; // What `span!` expands to.
pub use traffic::{CallSide, CallSnapshot, CallsSnapshot, FinishedCall, Tap, TapFilter};
pub use wire::header;

use crate::{
    client::{ClientMetrics, Clients},
    live::Live,
    metrics::{Calls, Metrics},
    server::metrics::ServerMetrics,
    stack::Side,
    traffic::Traffic,
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
    attempt_metrics: ClientMetrics,
    served: Arc<Calls>,
    server_metrics: ServerMetrics,
    traffic: Traffic,
    clients: Clients,
}

impl Mesh {
    /// Checks the configuration and registers the metrics. Connects nothing yet.
    pub fn new(
        config: Config,
        contract: Contract,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        config.validate()?;
        let client_metrics = Metrics::register(Side::Client, &contract, registry)?;
        let attempt_metrics = ClientMetrics::register(registry)?;
        let served = Metrics::register(Side::Server, &contract, registry)?.of("");
        let server_metrics = ServerMetrics::register(registry)?;
        let clients = Clients::default();
        client::register_gauges(&clients, registry)?;
        let inner = Inner {
            live: Live::new(config),
            contract,
            client_metrics,
            attempt_metrics,
            served,
            server_metrics,
            traffic: Traffic::default(),
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
        self.inner.clients.lock().client(destination, &self.inner)
    }

    /// What is known at the moment of every destination that was ever called, and of its endpoints.
    pub fn endpoints(&self) -> Vec<DestinationSnapshot> {
        self.inner.clients.lock().snapshots()
    }

    /// The calls in flight that are made and served here; of very many, the table shows a part.
    pub fn calls(&self) -> CallsSnapshot {
        self.inner.traffic.calls()
    }

    /// The calls that end from now on, as far as the filter takes them; `None`: too many tap already.
    pub fn tap(&self, filter: TapFilter) -> Option<Tap> {
        self.inner.traffic.tap(filter)
    }

    /// Refuses to start without an address for each destination that the process cannot do without, and
    /// from then on every configuration that has none.
    pub fn require(&self, destinations: &[&str]) -> Result<(), Error> {
        let config = self.config();
        if let Some(missing) = destinations.iter().find(|name| !config.knows(name)) {
            return Err(Error::Unconfigured((*missing).to_owned()));
        }
        self.inner.clients.lock().require(destinations);
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
        &self.inner.server_metrics
    }

    pub(crate) fn served(&self) -> Arc<Calls> {
        self.inner.served.clone()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.inner.traffic.clone()
    }
}

impl std::fmt::Debug for Mesh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mesh")
            .field("config", &self.config())
            .finish_non_exhaustive()
    }
}
