//! Layer: a handler that panics answers INTERNAL, without a text, and takes nothing else down.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body::Frame;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    stack::{Answer, Call, Progress, Stack},
    status::{self, Origin},
};

/// Answers INTERNAL where a handler panics.
pub(crate) fn layer<S>() -> impl Layer<S, Service = CatchPanic<S>> + Clone {
    tower::layer::layer_fn(|inner| CatchPanic { inner })
}

#[derive(Clone)]
pub(crate) struct CatchPanic<S> {
    inner: S,
}

impl<S: Stack> Service<Request<Body>> for CatchPanic<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let progress = Call::of(&request).progress.clone();
        // Unwind-safe: what the handler has left half-done is dropped with it.
        let calling = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        Box::pin(async move {
            let response = calling
                .await
                .unwrap_or_else(|panic| Err(report(&*panic, &progress)))?;
            Ok(response.map(|inner| Body::new(CatchPanicBody { inner, progress })))
        })
    }
}

struct CatchPanicBody {
    inner: Body,
    progress: Arc<Progress>,
}

impl http_body::Body for CatchPanicBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { inner, progress } = self.get_mut();
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut *inner).poll_frame(cx)));
        polled.unwrap_or_else(|panic| {
            *inner = Body::empty();
            Poll::Ready(Some(Ok(Frame::trailers(status::trailers(&report(
                &*panic, progress,
            ))))))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// The text is for the log, not for the caller.
fn report(panic: &(dyn Any + Send), progress: &Progress) -> Status {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text");
    tracing::error!(panic = text, "handler panicked");
    Origin::of("panic", "the handler panicked", progress).internal()
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_stream_that_has_panicked_is_over() {
        let broken = futures_util::stream::poll_fn(|_| -> Poll<Option<Result<_, Status>>> {
            panic!("polled")
        });
        let mut body = CatchPanicBody {
            inner: Body::new(StreamBody::new(broken)),
            progress: Arc::default(),
        };
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(
            frame.trailers_ref().unwrap().get("grpc-status").unwrap(),
            "13"
        );
        assert!(http_body::Body::is_end_stream(&body));
        assert!(body.frame().await.is_none(), "never polled again");
    }
}
