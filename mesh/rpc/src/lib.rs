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
//! limits, size limits, metrics, health, reflection, graceful shutdown; and, where `mesh.identity` asks for
//! them, mutual TLS by SPIFFE identities ([`Mesh::start`]) and authorisation by caller and method.
//!
//! Deliberately without: SQL, a broker, anything that knows commerce; global state. The audience of a
//! method is enforced by the edge. Without identity, the server believes the `mesh-principal` header of
//! whoever can reach it: keep its port inside.

mod bounded;
mod client;
mod config;
mod context;
mod contract;
mod error;
mod exemplars;
mod frames;
mod identities;
mod incoming;
mod inspect;
mod live;
#[doc(hidden)]
pub mod measure;
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

use std::{sync::Arc, time::Duration};

pub use client::{
    BalanceConfig, Client, ClientConfig, ClientLayer, DestinationSnapshot, DiscoveryConfig,
    EndpointSnapshot, EndpointState, HedgeConfig, Layered, OutlierConfig, PoolConfig, RetryConfig,
};
pub use config::{Config, ServerConfig};
pub use context::{CallContext, Principal, carry, detach, log_context, spawn};
pub use contract::{
    Audience, Contract, ContractError, Criticality, Idempotency, MethodContract, MethodDeadline,
    destination_of,
};
pub use error::{ConfigError, Error};
pub use mesh_identity::{self as identity, SpiffeId};
pub use metrics::name as code_name;
pub use prometheus::Registry; // What `Mesh::new` takes, of the version that it takes.
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
    identities::Identities,
    live::Live,
    metrics::{Calls, Metrics},
    server::metrics::ServerMetrics,
    stack::Side,
    traffic::Traffic,
};

/// How long calls in flight may go on with a peer that is not trusted any more: a revocation is noticed
/// within a second, by the default of `identity.files.reload_interval_ms`, and in force within two.
pub(crate) const UNTRUSTED_GRACE: Duration = Duration::from_millis(500);

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
    identities: Arc<Identities>,
    clients: Clients,
}

impl Mesh {
    /// Checks the configuration, waits for the first identity where one is asked for
    /// (`mesh.identity.mode`), and registers the metrics. Connects nothing yet.
    ///
    /// The identity follows its files or the Workload API for as long as the mesh, a client or a server
    /// of it lives: nobody else has to run anything. That it is waited for here, and not by `client` and
    /// `server`, leaves those as they are, and finds a missing certificate at the start and not at the
    /// first call.
    pub async fn start(
        config: Config,
        contract: Contract,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        config.validate()?;
        let identities = Identities::start(&config.identity).await?;
        Self::with(config, contract, registry, identities)
    }

    /// The same without an identity: for tests, and for programs that only speak plaintext. A
    /// configuration that asks for an identity is refused.
    pub fn new(
        config: Config,
        contract: Contract,
        registry: &prometheus::Registry,
    ) -> Result<Self, Error> {
        config.validate()?;
        if config.identity.mode != mesh_identity::Mode::Off {
            let reason = "needs Mesh::start, which waits for the first identity";
            return Err(ConfigError::new("identity.mode", reason).into());
        }
        Self::with(config, contract, registry, Identities::off())
    }

    fn with(
        config: Config,
        contract: Contract,
        registry: &prometheus::Registry,
        identities: Identities,
    ) -> Result<Self, Error> {
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
            identities: Arc::new(identities),
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

    /// The first rung for a program that has a tonic `Channel` and keeps it: deadlines over connecting and
    /// whole streams, context, message limits, metrics and traces, without the mesh's own connections,
    /// balancing and retries. `name` is how metrics call the channel's far end.
    pub fn layer(&self, name: &str) -> ClientLayer {
        ClientLayer::new(name, &self.inner)
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

    /// The identity of this process; `None` where `mesh.identity.mode` is off.
    pub fn identity(&self) -> Option<&mesh_identity::Identity> {
        self.inner.identities.own.as_ref()
    }

    pub(crate) fn identities(&self) -> &Arc<Identities> {
        &self.inner.identities
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
