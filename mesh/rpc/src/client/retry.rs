//! Layer: a unary call that provably was never sent (connection refused, or closed before the request
//! was written) is tried again, within its deadline.
//!
//! Deliberately narrow: only methods whose contract says that they may be repeated, only requests small
//! enough to keep, and never after a byte of the request has left. Retries of calls that failed, with
//! budgets, come with load balancing.

use std::{
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use tokio::time::{Instant, sleep};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::transport::Failure;
use crate::{
    RetryConfig,
    stack::{Answer, Call},
};

/// Tries again what was never sent.
pub(crate) fn layer<S>(config: RetryConfig) -> impl Layer<S, Service = Retry<S>> + Clone {
    tower::layer::layer_fn(move |inner| Retry {
        inner,
        config: config.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Retry<S> {
    inner: S,
    config: RetryConfig,
}

impl<S> Service<Request<Body>> for Retry<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Failure, Future: Send + 'static>
        + Clone
        + Send
        + 'static,
{
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx).map_err(|failure| failure.status)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let mut inner = self.inner.clone();
        let config = self.config.clone();
        let call = Call::of(&request);
        let deadline = call.context.deadline();
        let repeatable = config.attempts_max > 1
            && call.method.as_ref().is_some_and(|method| {
                method.idempotency.is_repeatable() && !method.client_streaming
            });
        Box::pin(async move {
            if !repeatable {
                return inner.call(request).await.map_err(|failure| failure.status);
            }
            let (parts, body) = request.into_parts();
            let message = match keep(body, config.replay_bytes_max).await? {
                Kept::Whole(message) => message,
                Kept::TooLong(body) => {
                    let request = Request::from_parts(parts, body);
                    return inner.call(request).await.map_err(|failure| failure.status);
                }
            };
            for attempt in 1.. {
                let failure = match inner.call(replay(&parts, message.clone())).await {
                    Ok(response) => return Ok(response),
                    Err(failure) => failure,
                };
                let pause = config.pause(attempt, rand::random());
                let in_time = deadline.is_none_or(|deadline| Instant::now() + pause < deadline);
                if !failure.worth_repeating || attempt >= config.attempts_max || !in_time {
                    return Err(failure.status);
                }
                tracing::debug!(attempt, ?pause, "not sent, trying again");
                sleep(pause).await;
            }
            unreachable!("the last attempt returns")
        })
    }
}

fn replay(parts: &Parts, message: Bytes) -> Request<Body> {
    Request::from_parts(parts.clone(), Body::new(Full::new(message)))
}

impl RetryConfig {
    /// Exponential, with "full jitter": between nothing and twice the mean.
    pub(super) fn pause(&self, attempt: u32, random: f64) -> Duration {
        let doubled = self.backoff_ms.saturating_mul(1 << (attempt - 1).min(20));
        let mean = Duration::from_millis(doubled.min(self.backoff_max_ms));
        mean.mul_f64(2.0 * random)
    }
}

enum Kept {
    Whole(Bytes),
    TooLong(Body),
}

/// Reads a request into memory as long as it is short. tonic writes a unary one as a single frame that
/// is ready at once, so this neither waits nor copies.
async fn keep(mut body: Body, bytes_max: usize) -> Result<Kept, Status> {
    let mut chunks: Vec<Bytes> = Vec::new();
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let Ok(chunk) = frame?.into_data() else {
            continue;
        }; // Requests have no trailers in gRPC.
        bytes += chunk.len();
        chunks.push(chunk);
        if bytes > bytes_max {
            let read = stream::iter(chunks).map(|chunk| Ok(Frame::data(chunk)));
            return Ok(Kept::TooLong(Body::new(StreamBody::new(
                read.chain(BodyStream::new(body)),
            ))));
        }
    }
    Ok(Kept::Whole(match chunks.len() {
        1 => chunks.remove(0),
        _ => chunks
            .iter()
            .fold(BytesMut::with_capacity(bytes), |mut all, chunk| {
                all.extend_from_slice(chunk);
                all
            })
            .freeze(),
    }))
}
