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
            closing,
        };
        let bounded = bound(
            self.inner.call(request),
            ending(call, ends.clone()),
            Side::Server,
        );
        Box::pin(async move {
            let mut answer = bounded.await?;
            answer.extensions_mut().insert(ends);
            Ok(answer)
        })
    }
}

/// When a call ends; its answer carries it, for whoever waits for the peer meanwhile.
#[derive(Clone)]
pub(super) struct Ends {
    deadline: Option<Instant>,
    closing: Closing,
}

impl Ends {
    /// `None`: the deadline is over.
    pub(super) async fn come(&self) -> Option<Why> {
        let expired = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = expired => None,
            why = self.closing.closed(self.deadline.is_some()) => Some(why),
        }
    }
}

fn ending(call: Call, ends: Ends) -> Ending {
    Box::pin(async move {
        let status = match ends.come().await {
            None => Origin::of("deadline", call.deadline_by, &call.progress).deadline_exceeded(),
            Some(why) => {
                let policy = match why {
                    Why::Drain if ends.deadline.is_none() => "shutdown",
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
