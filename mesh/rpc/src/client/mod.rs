//! The client stack: what a call passes through on its way out.
//!
//! The layers from `context` to `retry` see a call; below, `destination` knows the endpoints
//! (`discovery`), and an `attempt` takes one of them (`balance`, `load`, `outlier`, `circuit`) and a place
//! on a connection to it (`pool`, `connection`, `connect`).

mod attempt;
mod balance;
mod budget;
mod circuit;
mod clock;
mod config;
mod connect;
mod connection;
mod context;
mod deadline;
mod destination;
mod discovery;
mod endpoint;
mod failure;
mod hedge;
mod load;
pub(crate) mod measure;
mod metrics;
mod outlier;
mod pool;
mod replay;
mod retry;
mod snapshot;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, ServiceBuilder};

pub use config::{
    BalanceConfig, ClientConfig, DiscoveryConfig, HedgeConfig, OutlierConfig, PoolConfig,
    RetryConfig,
};
pub(crate) use destination::Destination;
pub(crate) use discovery::parse_destination;
pub(crate) use metrics::ClientMetrics;
pub use snapshot::{DestinationSnapshot, EndpointSnapshot, EndpointState};

use crate::{
    Config, Contract, frames,
    metrics::Metrics,
    observe,
    stack::{Answer, Side},
};

/// Calls one destination. Cheap to clone; goes into any generated tonic client.
///
/// It is always ready: waiting for a connection is part of a call and falls under its deadline.
#[derive(Clone)]
pub struct Client {
    stack: Layers,
}

/// The stack as a type, from outside in.
type Layers = context::Inject<
    observe::Observe<deadline::Deadline<frames::Limit<retry::Retry<Arc<Destination>>>>>,
>;

impl Client {
    pub(crate) fn new(
        destination: Arc<Destination>,
        config: &Config,
        contract: &Contract,
        metrics: Metrics,
    ) -> Self {
        let stack = ServiceBuilder::new()
            // Who, why and until when: from the call being served, into the headers.
            .layer(context::layer(contract.clone(), config.deadline_default()))
            // Sees what the caller sees, whatever the layers below make of it.
            .layer(observe::layer(Side::Client, metrics))
            // Over everything that can take time: connecting, repeating, the whole stream.
            .layer(deadline::layer())
            // A message that nobody would accept is not worth sending, or buffering.
            .layer(frames::layer(Side::Client, config.message_bytes_max))
            // What failed is tried again where that is safe, what is slow a second time elsewhere.
            .service(retry::Retry::new(destination.clone(), destination));
        Self { stack }
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
