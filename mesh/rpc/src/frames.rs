//! Layer: no message, in either direction, is longer than the configured limit.
//!
//! tonic limits only what it receives, reports it as OUT_OF_RANGE, and sends messages of any size. Here
//! gRPC's five-byte message headers are followed in both directions, and a message that announces too
//! much ends the call with RESOURCE_EXHAUSTED before it is buffered.
//!
//! Deliberately without decompression: the limit holds for what crosses the wire.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    live::Live,
    stack::{Answer, Call, Progress, Side, Stack},
    status::{self, Origin},
};

const HEADER_BYTES: usize = 5;

/// Follows the message headers in a sequence of chunks.
#[derive(Default)]
struct Messages {
    header: [u8; HEADER_BYTES],
    filled: usize,
    remaining: usize,
    /// What the headers since the last look have announced.
    announced: u64,
}

impl Messages {
    /// The announced length of the first message that is too long.
    fn check(&mut self, mut chunk: &[u8], max: usize) -> Result<(), u64> {
        while !chunk.is_empty() {
            if self.remaining > 0 {
                let skipped = self.remaining.min(chunk.len());
                self.remaining -= skipped;
                chunk = &chunk[skipped..];
                continue;
            }
            self.header[self.filled] = chunk[0];
            self.filled += 1;
            chunk = &chunk[1..];
            if self.filled == HEADER_BYTES {
                let [_, a, b, c, d] = self.header;
                let length = u32::from_be_bytes([a, b, c, d]);
                self.filled = 0;
                self.announced += u64::from(length);
                self.remaining = usize::try_from(length).unwrap_or(usize::MAX);
                if self.remaining > max {
                    return Err(length.into());
                }
            }
        }
        Ok(())
    }
}

/// Why the client's request was refused. The transport only knows that the request broke off; the call
/// finds the reason here.
type Note = Arc<OnceLock<Status>>;

/// Which way a body goes, and so how it says that it ends early.
enum Way {
    /// To the far side of a call that this process makes: leaves a note for the call itself.
    Request(Note),
    /// Back from it: is an error, of the note where there is one.
    Answer(Note),
    /// From the far side of a call that this process serves: is an error for the handler.
    Served,
    /// Back to it: ends with trailers.
    Reply,
}

struct LimitedBody {
    inner: Body,
    messages: Messages,
    max: usize,
    way: Way,
    progress: Arc<Progress>,
    refused: bool,
}

impl LimitedBody {
    fn wrap(inner: Body, max: usize, way: Way, progress: Arc<Progress>) -> Body {
        Body::new(Self {
            inner,
            messages: Messages::default(),
            max,
            way,
            progress,
            refused: false,
        })
    }

    fn refuse(&mut self, bytes: u64) -> Result<Frame<Bytes>, Status> {
        self.refused = true;
        self.inner = Body::empty(); // Whoever produces the rest may stop.
        let origin = Origin::of("frames", "mesh.message_bytes_max", &self.progress);
        let status = origin.message_too_large(bytes, self.max);
        match &self.way {
            Way::Request(note) => Err(note.get_or_init(|| status).clone()),
            Way::Answer(_) | Way::Served => Err(status),
            Way::Reply => Ok(Frame::trailers(status::trailers(&status))),
        }
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.refused {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        Poll::Ready(Some(match (frame, &this.way) {
            (Ok(frame), _) => {
                let chunk = frame.data_ref().map_or(&[][..], |chunk| &chunk[..]);
                match this.messages.check(chunk, this.max) {
                    Ok(()) => {
                        let sent = matches!(this.way, Way::Request(_) | Way::Reply);
                        let bytes = std::mem::take(&mut this.messages.announced);
                        this.progress.moved(sent, bytes);
                        Ok(frame)
                    }
                    Err(bytes) => this.refuse(bytes),
                }
            }
            (Err(error), Way::Answer(note)) => Err(note.get().cloned().unwrap_or(error)),
            (Err(error), _) => Err(error),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.refused || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// Limits every message of the call, in both directions.
pub(crate) fn layer<S>(side: Side, live: Live) -> impl Layer<S, Service = Limit<S>> + Clone {
    tower::layer::layer_fn(move |inner| Limit {
        inner,
        side,
        live: live.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Limit<S> {
    inner: S,
    side: Side,
    live: Live,
}

impl<S: Stack> Service<Request<Body>> for Limit<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let max = self.live.load().message_bytes_max;
        let progress = Call::of(&request).progress.clone();
        let note = (self.side == Side::Client).then(Note::default);
        let (inwards, outwards) = match note.clone() {
            Some(note) => (Way::Request(note.clone()), Way::Answer(note)),
            None => (Way::Served, Way::Reply),
        };
        let calling = self
            .inner
            .call(request.map(|body| LimitedBody::wrap(body, max, inwards, progress.clone())));
        Box::pin(async move {
            let answered = calling.await;
            if let Some(refused) = note.as_deref().and_then(OnceLock::get) {
                return Err(refused.clone());
            }
            answered.map(|response| {
                response.map(|body| LimitedBody::wrap(body, max, outwards, progress))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend(u32::try_from(bytes).unwrap().to_be_bytes());
        message.extend(vec![7; bytes]);
        message
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let stream = [message(10), message(0), message(10), message(11)].concat();
        for size in 1..stream.len() {
            let mut messages = Messages::default();
            let refused = stream
                .chunks(size)
                .find_map(|chunk| messages.check(chunk, 10).err());
            assert_eq!(refused, Some(11), "in chunks of {size}");
            let mut messages = Messages::default();
            assert!(
                stream
                    .chunks(size)
                    .all(|chunk| messages.check(chunk, 11).is_ok())
            );
        }
    }

    #[test]
    fn a_header_that_announces_too_much_is_refused_before_its_bytes_arrive() {
        assert_eq!(
            Messages::default().check(&[0, 0xff, 0xff, 0xff, 0xff], 10),
            Err(0xffff_ffff)
        );
    }

    #[tokio::test]
    async fn the_far_side_learns_of_it_in_trailers() {
        let body = Body::new(Full::new(Bytes::from(message(11))));
        let limited = LimitedBody::wrap(body, 10, Way::Reply, Arc::default())
            .collect()
            .await
            .unwrap();
        assert_eq!(limited.trailers().unwrap().get("grpc-status").unwrap(), "8");
        assert!(limited.to_bytes().is_empty());
    }

    #[tokio::test]
    async fn the_near_side_learns_of_it_as_an_error() {
        let body = Body::new(Full::new(Bytes::from(message(11))));
        let error = LimitedBody::wrap(body, 10, Way::Served, Arc::default())
            .collect()
            .await
            .unwrap_err();
        assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    }
}
