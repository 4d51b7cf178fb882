//! The client stack: what a call passes through on its way out.
//!
//! Deliberately without discovery, balancing and hedging: one address per destination for now, behind
//! [`Client`], which does not show what carries it.

mod context;
mod deadline;
mod retry;
#[cfg(test)]
mod tests;
mod transport;

use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::{Service, ServiceBuilder, util::BoxCloneSyncService};

#[cfg(test)]
use transport::Failure;
pub(crate) use transport::Transport;

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
    stack: BoxCloneSyncService<Request<Body>, Response<Body>, Status>,
}

impl Client {
    pub(crate) fn new(
        transport: Transport,
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
            // What was never sent may be sent again.
            .layer(retry::layer(config.client.retry.clone()))
            .service(transport);
        Self {
            stack: BoxCloneSyncService::new(stack),
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
