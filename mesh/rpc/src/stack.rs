//! What every layer of both stacks has in common.
//!
//! Each layer takes tonic's request and answers tonic's response or a `Status`, so that layers can be
//! put in any order and read one at a time. The price is a boxed future per layer.

use std::{future::Future, pin::Pin, sync::Arc};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::Service;

use crate::{context::CallContext, contract::MethodContract};

/// What a layer answers.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

/// What a layer stands on.
pub(crate) trait Stack:
    Service<Request<Body>, Response = Response<Body>, Error = Status, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S> Stack for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Status, Future: Send + 'static>
        + Clone
        + Send
        + 'static
{
}

/// The side of the call that a layer stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// What the context layer, the outermost of both stacks, tells the layers below: a request extension.
#[derive(Clone)]
pub(crate) struct Call {
    /// `None`: the contract does not know the method.
    pub(crate) method: Option<Arc<MethodContract>>,
    /// On the client, of the call being made; on the server, of the call being served.
    pub(crate) context: CallContext,
}

impl Call {
    pub(crate) fn of(request: &Request<Body>) -> &Self {
        request
            .extensions()
            .get()
            .expect("the context layer stands above every other layer")
    }
}
