//! What the other end of an HTTP/2 stream sends: at a client the answer, at a server the request.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;

/// The frames of a stream, as they come. What has been taken out is given back to the peer's flow
/// control at once: whoever takes frames out bounds what it keeps. Dropped before its end, it lets go of
/// the stream.
pub(crate) struct Incoming {
    stream: RecvStream,
    trailing: bool,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Self {
            stream,
            trailing: false,
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// A stream that is reset, or whose connection breaks, ends with an error, whatever the reason that
    /// the peer gives.
    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.trailing {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Refused only for more than was received.
                    let _ = self.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.trailing = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|read| read.map(Frame::trailers)))
    }
}
