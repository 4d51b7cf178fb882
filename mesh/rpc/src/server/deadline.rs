//! Layer: a call, with its whole response stream, ends with the caller's deadline (capped by the
//! contract's) as DEADLINE_EXCEEDED, and with its connection or the server's drain as UNAVAILABLE. The
//! handler is dropped at that moment, and its context cancelled.

use std::{
    future::pending,
    task::{Context, Poll},
};

use http::{Request, Response};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{context::Malformed, drain::Closing, life::Why};
use crate::{
    bounded::{Ending, bound},
    stack::{Answer, Call, Side, Stack},
    status::Origin,
};

/// Ends each call with its deadline or with its connection.
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

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        if let Some(Malformed(refused)) = request.extensions_mut().remove() {
            return Box::pin(std::future::ready(Err(refused)));
        }
        let call = Call::of(&request).clone();
        let closing = request.extensions().get::<Closing>().cloned();
        let closing = closing.expect("the connection says how it ends");
        let ends = Ends {
            deadline: call.context.deadline(),
            closing: closing.clone(),
        };
        let bounded = bound(
            self.inner.call(request),
            ending(call, closing),
            Side::Server,
        );
        Box::pin(async move {
            let mut answer = bounded.await?;
            answer.extensions_mut().insert(ends);
            Ok(answer)
        })
    }
}

/// When a call ends that has begun to answer, for whoever waits for the peer meanwhile.
#[derive(Clone)]
pub(super) struct Ends {
    deadline: Option<Instant>,
    closing: Closing,
}

impl Ends {
    pub(super) async fn come(&self) {
        let expired = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = expired => {}
            _ = self.closing.closed(self.deadline.is_some()) => {}
        }
    }
}

fn ending(call: Call, closing: Closing) -> Ending {
    let deadline = call.context.deadline();
    Box::pin(async move {
        let expired = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        let status = tokio::select! {
            biased;
            () = expired => {
                Origin::of("deadline", call.deadline_by, &call.progress).deadline_exceeded()
            }
            why = closing.closed(deadline.is_some()) => {
                let policy = match why {
                    Why::Drain if deadline.is_none() => "shutdown",
                    why => why.policy(),
                };
                why.status(Origin::of("deadline", policy, &call.progress))
            }
        };
        if let Some(token) = call.context.cancellation() {
            token.cancel();
        }
        status
    })
}
