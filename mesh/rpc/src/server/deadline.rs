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
        let served = Served {
            call,
            ends: ends.clone(),
        };
        let bounded = bound(self.inner.call(request), served, Side::Server);
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

/// What ends a call early.
pub(super) enum End {
    Deadline,
    Closing(Why),
}

impl Ends {
    pub(super) async fn wait(&self) -> End {
        let expired = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = expired => End::Deadline,
            why = self.closing.closed(self.deadline.is_some()) => End::Closing(why),
        }
    }

    fn come(&self) -> Option<End> {
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Some(End::Deadline);
        }
        let closed = self.closing.has_closed(self.deadline.is_some());
        closed.map(End::Closing)
    }
}

#[derive(Clone)]
struct Served {
    call: Call,
    ends: Ends,
}

impl Served {
    fn end(&self, by: End) -> Status {
        let origin = |policy| Origin::of("deadline", policy, &self.call.progress);
        let status = match by {
            End::Deadline => origin(self.call.deadline_by).deadline_exceeded(),
            End::Closing(Why::Drain) if self.ends.deadline.is_none() => {
                Why::Drain.status(origin("shutdown"))
            }
            End::Closing(why) => why.status(origin(why.policy())),
        };
        if let Some(token) = self.call.context.cancellation() {
            token.cancel();
        }
        status
    }
}

impl Ending for Served {
    fn come(&self) -> Option<Status> {
        self.ends.come().map(|by| self.end(by))
    }

    async fn wait(self) -> Status {
        let by = self.ends.wait().await;
        self.end(by)
    }
}
