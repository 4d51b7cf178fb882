//! Where the stack ends and the handlers begin: tonic's router, with the services that were added and those that the mesh
//! serves along.

use std::task::{Context, Poll};

use futures_util::TryFutureExt as _;
use http::{Request, Response};
use tonic::{Status, body::Body, service::Routes};
use tower::Service;

use crate::stack::Answer;

#[derive(Clone)]
pub(super) struct Handlers {
    routes: Routes,
}

impl Handlers {
    pub(super) fn new(routes: Routes) -> Self {
        Self {
            routes: routes.prepare(),
        }
    }
}

impl Service<Request<Body>> for Handlers {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(())) // So are all routes: each call makes a handler of its own ready.
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        Box::pin(self.routes.call(request).map_err(|never| match never {}))
    }
}
