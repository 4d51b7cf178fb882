//! Ends a call early: its future while there is no response yet, its body from then on.
//!
//! What tonic's own timeouts do not do: they end at the response's headers, and a stream runs on.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use tonic::{Status, body::Body};

use crate::{
    stack::{Answer, Side},
    status,
};

/// Resolves when the call has to end, with the reason.
pub(crate) type Ending = Pin<Box<dyn Future<Output = Status> + Send>>;

/// Runs `calling`, and then the body of its answer, until they end or `ending` does.
pub(crate) fn bound(
    calling: impl Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    mut ending: Ending,
    side: Side,
) -> Answer {
    Box::pin(async move {
        let response = tokio::select! {
            biased; // A call without time left is not even begun.
            status = &mut ending => return Err(status),
            answered = calling => answered?,
        };
        let over = http_body::Body::is_end_stream(response.body());
        Ok(if over {
            response
        } else {
            response.map(|inner| {
                Body::new(BoundedBody {
                    inner,
                    ending: Some(ending),
                    side,
                })
            })
        })
    })
}

struct BoundedBody {
    inner: Body,
    // `None`: it has resolved.
    ending: Option<Ending>,
    side: Side,
}

impl http_body::Body for BoundedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(ending) = &mut this.ending else {
            return Poll::Ready(None);
        };
        // The ending first: a stream that is always ready must not outrun it.
        let Poll::Ready(status) = ending.as_mut().poll(cx) else {
            return Pin::new(&mut this.inner).poll_frame(cx);
        };
        this.ending = None;
        this.inner = Body::empty(); // Drops the handler's stream, or resets the callee's.
        Poll::Ready(Some(match this.side {
            Side::Client => Err(status),
            Side::Server => Ok(Frame::trailers(status::trailers(&status))),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ending.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        // The end may come early, so the inner body's promise of a length does not hold.
        http_body::SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::{stack::Progress, status::Origin};

    fn late() -> Status {
        Origin::of("deadline", "a test", &Progress::default()).deadline_exceeded()
    }

    fn within(limit: Duration) -> Ending {
        Box::pin(async move {
            sleep(limit).await;
            late()
        })
    }

    async fn endless(
        side: Side,
        pause: Duration,
    ) -> Result<http_body_util::Collected<Bytes>, Status> {
        let frames = stream::unfold((), move |()| async move {
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                sleep(pause).await;
            }
            Some((
                Ok::<_, Status>(Frame::data(Bytes::from_static(b"tick"))),
                (),
            ))
        });
        // Not endless after all, so that a bound that does not hold fails the test and not its patience.
        let frames = StreamBody::new(Box::pin(frames.take(1_000_000)));
        let answer = async move { Ok(Response::new(Body::new(frames))) };
        // Under a paused clock the first counts, under a real one the second.
        let limit = Duration::from_millis(if pause.is_zero() { 5 } else { 200 });
        let answer = bound(answer, within(limit), side).await?;
        answer.into_body().collect().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_never_answers_ends() {
        let started = Instant::now();
        let error = bound(
            std::future::pending(),
            within(Duration::from_millis(200)),
            Side::Client,
        )
        .await
        .unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(started.elapsed().as_millis(), 200);
    }

    #[tokio::test]
    async fn a_call_without_time_left_is_not_begun() {
        let ready = std::future::ready(Ok(Response::new(Body::empty())));
        let ending = Box::pin(std::future::ready(late()));
        let error = bound(ready, ending, Side::Server).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_an_error_at_the_client() {
        let started = Instant::now();
        let error = endless(Side::Client, Duration::from_millis(30))
            .await
            .unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(started.elapsed().as_millis(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_trailers_at_the_server() {
        let collected = endless(Side::Server, Duration::from_millis(30))
            .await
            .unwrap();
        assert_eq!(
            collected.trailers().unwrap().get("grpc-status").unwrap(),
            "4"
        );
        assert_eq!(collected.to_bytes().len(), 6 * b"tick".len());
    }

    #[tokio::test]
    async fn a_stream_that_is_always_ready_does_not_outrun_its_ending() {
        let error = endless(Side::Client, Duration::ZERO).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    }
}
