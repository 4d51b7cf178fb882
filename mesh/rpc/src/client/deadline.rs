//! Layer: a call ends with its deadline, wherever it is by then: connecting, waiting for the answer's
//! headers, in the middle of a stream. (tonic's own timeout covers only the second, and calls it
//! CANCELLED.) It also ends when the call that it is made for has ended.

use std::{
    future::pending,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
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
        bound(calling, Made(call), Side::Client)
    }
}

fn late(call: &Call) -> Status {
    Origin::of("deadline", call.deadline_by, &call.progress).deadline_exceeded()
}

#[derive(Clone)]
struct Made(Call);

impl Made {
    fn is_late(&self) -> bool {
        let deadline = self.0.context.deadline();
        deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// A caller whose time is up ends as well; what matters here is the time.
    fn abandoned(&self) -> Status {
        if self.is_late() {
            return late(&self.0);
        }
        Origin::of("deadline", "the caller has ended", &self.0.progress).cancelled()
    }
}

impl Ending for Made {
    fn come(&self) -> Option<Status> {
        if self.is_late() {
            return Some(late(&self.0));
        }
        let caller = self.0.context.cancellation();
        caller
            .is_some_and(CancellationToken::is_cancelled)
            .then(|| self.abandoned())
    }

    async fn wait(self) -> Status {
        let deadline = self.0.context.deadline();
        let expired = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = expired => late(&self.0),
            () = self.0.context.cancelled() => self.abandoned(),
        }
    }
}
