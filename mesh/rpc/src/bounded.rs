//! Ends a call early: its future while there is no response yet, its body from then on.
//!
//! What tonic's own timeouts do not do: they end at the response's headers, and a stream runs on.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
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

/// Why and when a call has to end before its time.
pub(crate) trait Ending: Clone + Send + Sync + Unpin + 'static {
    /// Whether it has to end by now, and with what.
    fn come(&self) -> Option<Status>;

    /// Waits until it has to end.
    fn wait(self) -> impl Future<Output = Status> + Send + 'static;
}

/// Runs `calling`, and then the body of its answer, until they end or `ending` comes.
pub(crate) fn bound<E: Ending>(
    calling: impl Future<Output = Result<Response<Body>, Status>> + Send + 'static,
    ending: E,
    side: Side,
) -> Answer {
    Box::pin(async move {
        let mut watch = Watch {
            ending,
            waiting: None,
        };
        let response = {
            let mut calling = pin!(calling);
            let bounded = poll_fn(|cx| watch.poll(cx, |cx| calling.as_mut().poll(cx)));
            bounded.await.unwrap_or_else(Err)?
        };
        let over = http_body::Body::is_end_stream(response.body());
        Ok(if over {
            response
        } else {
            response.map(|inner| {
                Body::new(BoundedBody {
                    inner,
                    watch: Some(watch),
                    side,
                })
            })
        })
    })
}

/// Watches for the ending while something else is polled. Most of what is polled is ready at once, so that a timer and
/// a place among those who wait for the connection's end are taken only by what is not.
struct Watch<E> {
    ending: E,
    waiting: Option<Pin<Box<dyn Future<Output = Status> + Send>>>,
}

impl<E: Ending> Watch<E> {
    /// What `inner` gives, unless the ending has come: that is looked at first, because a call without time left is not
    /// even begun, and a stream that is always ready must not outrun it.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        inner: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Status>> {
        if let Some(status) = self.ending.come() {
            return Poll::Ready(Err(status));
        }
        if let Poll::Ready(ready) = inner(cx) {
            return Poll::Ready(Ok(ready));
        }
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(self.ending.clone().wait()));
        waiting.as_mut().poll(cx).map(Err)
    }
}

struct BoundedBody<E> {
    inner: Body,
    // `None`: it has ended early.
    watch: Option<Watch<E>>,
    side: Side,
}

impl<E: Ending> http_body::Body for BoundedBody<E> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(watch) = &mut this.watch else {
            return Poll::Ready(None);
        };
        let inner = Pin::new(&mut this.inner);
        let status = match std::task::ready!(watch.poll(cx, |cx| inner.poll_frame(cx))) {
            Ok(frame) => return Poll::Ready(frame),
            Err(status) => status,
        };
        this.watch = None;
        this.inner = Body::empty(); // Drops the handler's stream, or resets the callee's.
        Poll::Ready(Some(match this.side {
            Side::Client => Err(status),
            Side::Server => Ok(Frame::trailers(status::trailers(&status))),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_none() || self.inner.is_end_stream()
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
    use tokio::time::{Instant, sleep, sleep_until};

    use super::*;
    use crate::{stack::Progress, status::Origin};

    #[derive(Clone, Copy)]
    struct At(Instant);

    impl Ending for At {
        fn come(&self) -> Option<Status> {
            let late = Origin::of("deadline", "a test", &Progress::default());
            (Instant::now() >= self.0).then(|| late.deadline_exceeded())
        }

        async fn wait(self) -> Status {
            sleep_until(self.0).await;
            self.come().unwrap()
        }
    }

    fn within(limit: Duration) -> At {
        At(Instant::now() + limit)
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
        let error = bound(ready, within(Duration::ZERO), Side::Server)
            .await
            .unwrap_err();
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
