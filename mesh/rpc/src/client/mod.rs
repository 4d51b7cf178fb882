//! The client stack: what a call passes through on its way out.
//!
//! The layers from `context` to `split` and `retry` see a call; below, `destination` knows the endpoints
//! (`discovery`), and an `attempt` takes one of them (`balance`, `load`, `outlier`, `circuit`) and a place
//! on a connection to it (`pool`, `connection`, `connect`).

mod attempt;
mod balance;
mod budget;
mod circuit;
mod clients;
pub(crate) mod clock;
mod config;
mod connect;
mod connection;
mod context;
mod deadline;
mod destination;
mod discovery;
mod endpoint;
mod failure;
mod gauges;
mod hedge;
mod layer;
mod load;
pub(crate) mod measure;
mod metrics;
mod outlier;
mod pool;
mod replay;
mod retry;
mod snapshot;
mod split;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, ServiceBuilder};

pub(crate) use clients::Clients;
pub use config::{
    BalanceConfig, ClientConfig, DiscoveryConfig, HedgeConfig, OutlierConfig, PoolConfig,
    RetryConfig,
};
pub(crate) use destination::Destination;
pub(crate) use discovery::{parse_destination, read_destination};
pub(crate) use gauges::register as register_gauges;
pub use layer::{ClientLayer, Layered};
pub(crate) use metrics::ClientMetrics;
pub use snapshot::{DestinationSnapshot, EndpointSnapshot, EndpointState};
pub(crate) use split::Versions;

use crate::{
    Contract, frames,
    live::Live,
    metrics::Calls,
    observe,
    stack::{Answer, Side, Stack},
    traffic::Traffic,
};

/// Calls one destination. Cheap to clone; goes into any generated tonic client.
///
/// It is always ready: waiting for a connection is part of a call and falls under its deadline.
#[derive(Clone)]
pub struct Client {
    stack: Upper<split::Split>,
}

/// The layers that stand on any service, as a type, from outside in.
type Upper<S> = context::Inject<observe::Observe<deadline::Deadline<frames::Limit<S>>>>;

/// Puts them there.
fn upper<S: Stack>(
    contract: &Contract,
    live: &Live,
    metrics: Arc<Calls>,
    traffic: Traffic,
    service: S,
) -> Upper<S> {
    ServiceBuilder::new()
        // Who, why and until when: from the call being served, into the headers.
        .layer(context::layer(contract.clone(), live.clone()))
        // Sees what the caller sees, whatever the layers below make of it.
        .layer(observe::layer(Side::Client, metrics, traffic))
        // Over everything that can take time: connecting, repeating, the whole stream.
        .layer(deadline::layer())
        // A message that nobody would accept is not worth sending, or buffering.
        .layer(frames::layer(Side::Client, live.clone()))
        .service(service)
}

impl Client {
    pub(crate) fn new(
        destination: Arc<Destination>,
        versions: Versions,
        live: &Live,
        contract: &Contract,
        metrics: Arc<Calls>,
        traffic: Traffic,
    ) -> Self {
        // One version is chosen for the whole call. What failed is then tried again where that is safe,
        // what is slow a second time elsewhere.
        let split = split::Split::new(destination, versions);
        Self {
            stack: upper(contract, live, metrics, traffic, split),
        }
    }
}

impl Service<Request<Body>> for Client {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.stack.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        self.stack.call(request)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
