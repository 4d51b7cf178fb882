//! Layer: who may call what. Once a policy is configured, a call that no rule allows ends with
//! PERMISSION_DENIED, or with UNAUTHENTICATED where the caller has shown no identity.
//!
//! Health (`grpc.health.v1`) needs no rule: whoever gets through the handshake may ask, and learns
//! nothing but who serves. (In mode `strict` a kubelet does not get through it; let it probe the admin
//! port.) Reflection does need one: it tells the whole contract.
//!
//! The audit line, the dry run and the file that is read again are the [`Authorizer`]'s.

use std::{
    future::ready,
    task::{Context, Poll},
};

use http::{Request, Response};
use mesh_identity::Authorizer;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::peer::Peer;
use crate::{
    stack::{Answer, Call, Stack},
    status::Origin,
};

const HEALTH: &str = "/grpc.health.v1.Health/";
/// What refuses a call.
const POLICY: &str = "mesh.identity.policy.file";

/// Lets through what the policy allows; without a policy, everything.
pub(crate) fn layer<S>(
    authorizer: Option<Authorizer>,
) -> impl Layer<S, Service = Authorize<S>> + Clone {
    tower::layer::layer_fn(move |inner| Authorize {
        inner,
        authorizer: authorizer.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Authorize<S> {
    inner: S,
    authorizer: Option<Authorizer>,
}

impl<S: Stack> Service<Request<Body>> for Authorize<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        match self.authorizer.as_ref().map(|by| decide(by, &request)) {
            Some(Err(refused)) => Box::pin(ready(Err(refused))),
            Some(Ok(())) | None => self.inner.call(request),
        }
    }
}

fn decide(authorizer: &Authorizer, request: &Request<Body>) -> Result<(), Status> {
    let method = request.uri().path();
    if method.starts_with(HEALTH) {
        return Ok(());
    }
    let peer = request.extensions().get::<Peer>();
    let caller = peer.and_then(|peer| peer.id.as_ref());
    let address = peer.and_then(|peer| peer.address);
    let decided = authorizer.authorize(caller, address, method);
    decided.map_err(|denial| {
        let origin = Origin::of("authorize", POLICY, &Call::of(request).progress);
        match caller {
            Some(_) => origin.permission_denied(&denial.to_string()),
            None => origin.unauthenticated(),
        }
    })
}
