//! What every layer of both stacks has in common.
//!
//! Each layer takes tonic's request and answers tonic's response or a `Status` in a boxed future, so that layers can be
//! put in any order and read one at a time. The price is a box per layer that has something to wait for; one that only
//! decides hands on the box of the layer below.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use http::{Request, Response};
use tonic::{Status, body::Body};
use tower::Service;

use crate::{context::CallContext, contract::MethodContract};

/// What a layer answers.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Status>> + Send>>;

/// How much a future that every call has may need: what glibc's allocator keeps at hand for a thread ends there
/// (`glibc.malloc.tcache_max`), and what is longer is searched for, and copied into its place.
#[cfg(test)]
pub(crate) const FUTURE_BYTES_MAX: usize = 1032;

/// What a layer stands on.
pub(crate) trait Stack:
    Service<Request<Body>, Response = Response<Body>, Error = Status, Future = Answer>
    + Clone
    + Send
    + 'static
{
}

impl<S> Stack for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Status, Future = Answer>
        + Clone
        + Send
        + 'static
{
}

/// A function that a layer stands on in its test.
#[cfg(test)]
pub(crate) fn handler<F>(answer: impl Fn(Request<Body>) -> F + Clone + Send + 'static) -> impl Stack
where
    F: Future<Output = Result<Response<Body>, Status>> + Send + 'static,
{
    tower::service_fn(move |request| Box::pin(answer(request)) as Answer)
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
    /// What the deadline comes from: a header, an option of the contract, a key of the configuration.
    pub(crate) deadline_by: &'static str,
    pub(crate) progress: Arc<Progress>,
}

/// How far a call has come, for whoever has to explain it from outside: an error, a span, the table of calls.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    attempts: AtomicU32,
    endpoint: Mutex<Option<Arc<str>>>,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Progress {
    /// Of a call that is served: which of its caller's attempts it is, and the address that it came to.
    pub(crate) fn served(previous_attempts: u32, endpoint: Option<Arc<str>>) -> Arc<Self> {
        Arc::new(Self {
            attempts: AtomicU32::new(previous_attempts.saturating_add(1)),
            endpoint: Mutex::new(endpoint),
            ..Self::default()
        })
    }

    /// One more attempt is made.
    pub(crate) fn attempt(&self) {
        self.attempts.fetch_add(1, Relaxed);
    }

    /// The attempt goes to this address.
    pub(crate) fn at(&self, endpoint: &Arc<str>) {
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(endpoint.clone());
    }

    /// Bytes of messages went to the other side, or came from there.
    pub(crate) fn moved(&self, sent: bool, bytes: u64) {
        let count = if sent { &self.sent } else { &self.received };
        count.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    pub(crate) fn attempts(&self) -> u32 {
        self.attempts.load(Relaxed)
    }

    pub(crate) fn endpoint(&self) -> Option<Arc<str>> {
        let endpoint = self.endpoint.lock();
        endpoint.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Call {
    /// As the context layer makes it, for the test of a single layer.
    #[cfg(test)]
    pub(crate) fn tested(method: Option<Arc<MethodContract>>, context: CallContext) -> Self {
        Self {
            method,
            context,
            deadline_by: "a test",
            progress: Arc::default(),
        }
    }

    pub(crate) fn of(request: &Request<Body>) -> &Self {
        request
            .extensions()
            .get()
            .expect("the context layer stands above every other layer")
    }
}
