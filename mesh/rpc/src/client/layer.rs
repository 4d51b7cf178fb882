//! Layer: the upper part of the client stack on a service that is there already, as on a tonic `Channel`.
//!
//! What it brings: the context of the call being served, deadlines over connecting and whole streams, a limit
//! on messages, metrics, traces, the table of calls. What needs the mesh's own connections stays away:
//! discovery, balancing, retries, hedging, ejection, identity.

use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{Status, body::Body, codegen::StdError as BoxError};
use tower::{Layer, Service, ServiceExt as _};

use super::{Upper, upper};
use crate::{
    Contract, Inner,
    live::Live,
    metrics::Calls,
    stack::{Answer, Call},
    traffic::Traffic,
    wire,
};

/// Puts the upper part of the client stack on a channel ([`crate::Mesh::layer`]). Cheap to clone.
#[derive(Clone)]
pub struct ClientLayer {
    live: Live,
    contract: Contract,
    metrics: Arc<Calls>,
    traffic: Traffic,
}

impl ClientLayer {
    pub(crate) fn new(name: &str, mesh: &Inner) -> Self {
        Self {
            live: mesh.live.clone(),
            contract: mesh.contract.clone(),
            metrics: mesh.client_metrics.of(name),
            traffic: mesh.traffic.clone(),
        }
    }
}

impl<S> Layer<S> for ClientLayer
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
{
    type Service = Layered<S>;

    fn layer(&self, channel: S) -> Layered<S> {
        let (metrics, traffic) = (self.metrics.clone(), self.traffic.clone());
        let bottom = Bottom { channel };
        Layered {
            stack: upper(&self.contract, &self.live, metrics, traffic, bottom),
        }
    }
}

/// A channel under the upper part of the client stack; goes into any generated tonic client. Cheap to clone
/// if the channel is.
///
/// It is always ready: waiting for the channel is part of a call and falls under its deadline.
#[derive(Clone)]
pub struct Layered<S> {
    stack: Upper<Bottom<S>>,
}

impl<S> Service<Request<Body>> for Layered<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
{
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

/// Where the stack ends and the channel begins.
#[derive(Clone)]
struct Bottom<S> {
    channel: S,
}

impl<S> Service<Request<Body>> for Bottom<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Error: Into<BoxError> + Send,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(())) // Waiting for the channel belongs to the call, under its deadline.
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let Call {
            context, progress, ..
        } = Call::of(&request);
        progress.attempt();
        let deadline = context.deadline();
        wire::set_timeout(request.headers_mut(), deadline);
        let calling = self.channel.clone().oneshot(request);
        Box::pin(async move {
            calling
                .await
                .map_err(|error| Status::from_error(error.into()))
        })
    }
}

impl fmt::Debug for ClientLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLayer").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for Layered<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Layered").finish_non_exhaustive()
    }
}
