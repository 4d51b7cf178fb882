//! Layer: a call ends with its deadline, wherever it is by then: connecting, waiting for the answer's
//! headers, in the middle of a stream. (tonic's own timeout covers only the second, and calls it
//! CANCELLED.) It also ends when the call that it is made for has ended.

use std::{
    future::pending,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    bounded::{Ending, bound},
    stack::{Answer, Call, Side, Stack},
    status::Origin,
};

/// Ends each call with its deadline.
pub(crate) fn layer<S>() -> impl Layer<S, Service = Deadline<S>> + Clone {
    tower::layer::layer_fn(|inner| Deadline { inner })
}

#[derive(Clone)]
pub(crate) struct Deadline<S> {
    inner: S,
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
        let deadline = call.context.deadline();
        let expired = call.clone();
        let calling = self.inner.call(request);
        let calling = async move {
            // The callee, and tonic's own timer, watch the same deadline: whoever is first, its caller
            // learns that the time was up and not that somebody hung up.
            calling.await.map_err(|error| match deadline {
                Some(deadline) if Instant::now() >= deadline => late(&expired),
                _ => error,
            })
        };
        bound(calling, ending(call), Side::Client)
    }
}

fn late(call: &Call) -> Status {
    Origin::of("deadline", call.deadline_by, &call.progress).deadline_exceeded()
}

fn ending(call: Call) -> Ending {
    let deadline = call.context.deadline();
    Box::pin(async move {
        let expired = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = expired => late(&call),
            // A caller whose time is up ends as well; what matters here is the time.
            () = call.context.cancelled() => match deadline {
                Some(deadline) if Instant::now() >= deadline => late(&call),
                _ => Origin::of("deadline", "the caller has ended", &call.progress).cancelled(),
            },
        }
    })
}
