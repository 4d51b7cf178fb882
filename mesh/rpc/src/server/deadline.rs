//! Layer: a call, with its whole response stream, ends with the caller's deadline (capped by the
//! contract's) as DEADLINE_EXCEEDED, and with the server's drain as UNAVAILABLE. The handler is dropped
//! at that moment, and its context cancelled.

use std::{
    future::pending,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::sleep_until;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::accept::Drain;
use crate::{
    bounded::{Ending, bound},
    stack::{Answer, Call, Side, Stack},
    status::Origin,
};

/// Ends each call with its deadline or with the server.
pub(crate) fn layer<S>(drain: Drain) -> impl Layer<S, Service = Deadline<S>> + Clone {
    tower::layer::layer_fn(move |inner| Deadline {
        inner,
        drain: drain.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Deadline<S> {
    inner: S,
    drain: Drain,
}

impl<S: Stack> Service<Request<Body>> for Deadline<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let call = Call::of(&request).clone();
        bound(
            self.inner.call(request),
            ending(call, self.drain.clone()),
            Side::Server,
        )
    }
}

fn ending(call: Call, drain: Drain) -> Ending {
    let deadline = call.context.deadline();
    Box::pin(async move {
        let expired = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        // A stream that never ends by itself would hold up every shutdown to its bound.
        let closing = if deadline.is_none() {
            &drain.begun
        } else {
            &drain.cut
        };
        let status = tokio::select! {
            biased;
            () = expired => {
                Origin::of("deadline", call.deadline_by, &call.progress).deadline_exceeded()
            }
            () = closing.cancelled() => {
                let policy = if deadline.is_none() {
                    "shutdown"
                } else {
                    "mesh.server.drain_timeout_ms"
                };
                Origin::of("deadline", policy, &call.progress).shutting_down()
            }
        };
        if let Some(token) = call.context.cancellation() {
            token.cancel();
        }
        status
    })
}
