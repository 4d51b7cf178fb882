//! One call of a connection: the request in, the response out, on the stream itself.
//!
//! What hyper and tonic together do otherwise: a request that its caller cuts off with CANCEL is an error
//! for whoever reads it. tonic's decoder takes every CANCELLED for the end of the request, so that half
//! an upload would look like a whole one; here the error has another code.

use std::{
    future::{pending, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};
use tonic::{Status, body::Body};
use tower::Service as _;

use super::{ServerStack, deadline::Ends, life::InFlight};
use crate::{context::spawn_apart, incoming::Incoming, status::Origin};

/// How long, and how much, of a request is taken in that nobody reads any more.
const UNREAD_FOR: Duration = Duration::from_secs(1);
const UNREAD_BYTES_MAX: usize = 1 << 20;

/// Serves one call to the end of its response. The handler is dropped as soon as the caller resets the
/// stream or the connection is gone, and `in_flight` with it.
pub(crate) fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    stack: Arc<ServerStack>,
    in_flight: InFlight,
) -> impl Future<Output = ()> {
    let request = request.map(|stream| Body::new(RequestBody(Some(Incoming::new(stream)))));
    async move {
        let answering = ServerStack::clone(&stack).call(request);
        drop(stack); // A stream that goes on for long needs none.
        let answered = tokio::select! {
            biased;
            answered = answering => answered,
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        };
        let (mut head, body) = answered.unwrap_or_else(Status::into_http).into_parts();
        let ends = head.extensions.remove::<Ends>();
        let over = body.is_end_stream();
        let sent = match respond.send_response(Response::from_parts(head, ()), over) {
            Ok(_) if over => Ok(()),
            Ok(stream) => send(body, stream, ends).await,
            Err(error) => {
                respond.send_reset(Reason::INTERNAL_ERROR);
                Err(error)
            }
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "response broke off");
        }
        drop(in_flight);
    }
}

/// The request's messages. Ends in silence only if the caller has said that they are over.
struct RequestBody(Option<Incoming>);

impl RequestBody {
    const THERE: &str = "it is there until the body is dropped";
}

/// A call that is answered before its request has ended, as one that is refused, leaves the rest on its way. h2 would reset
/// the stream and soon forget it, take what comes then for an error of the peer, and end a connection with more than 1,024 of
/// them: so the rest is taken in, as far as that is worth it.
impl Drop for RequestBody {
    fn drop(&mut self) {
        let rest = self.0.take().filter(|rest| !rest.is_end_stream());
        let Some(mut rest) = rest.map(|rest| Box::pin(swallow(rest))) else {
            return;
        };
        if rest.as_mut().now_or_never().is_none() && Handle::try_current().is_ok() {
            spawn_apart(timeout(UNREAD_FOR, rest)).detach();
        }
    }
}

/// To the end, unless it breaks off or is longer than [`UNREAD_BYTES_MAX`]: then the peer is told to stop.
async fn swallow(mut rest: Incoming) {
    let mut left = UNREAD_BYTES_MAX;
    while let Some(Ok(frame)) = poll_fn(|cx| rest.poll_frame(cx)).await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(bytes) {
            Some(fewer) => left = fewer,
            None => return,
        }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = ready!(self.get_mut().0.as_mut().expect(Self::THERE).poll_frame(cx));
        Poll::Ready(polled.map(|read| read.map_err(|error| cut_off(&error))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().expect(Self::THERE).is_end_stream()
    }
}

fn cut_off(error: &h2::Error) -> Status {
    Origin::before("call", "the request's stream").request_cut_off(error)
}

/// Sends the response's body, one frame ahead of the peer's flow control: whoever produces it waits for
/// whoever reads it. Ends early when the peer resets the stream, and when the call ends while the peer reads nothing:
/// nobody polls the body meanwhile, which would say so.
async fn send(
    mut body: Body,
    mut stream: SendStream<Bytes>,
    ends: Option<Ends>,
) -> Result<(), h2::Error> {
    loop {
        let next = tokio::select! {
            biased;
            next = body.frame() => next,
            reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(reset?.into()),
        };
        let Some(frame) = next else {
            return stream.send_data(Bytes::new(), true);
        };
        let trailers = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                let last = body.is_end_stream();
                // What few calls need is not part of every call's future.
                if !has_room(&mut stream, &data)
                    && !Box::pin(comes_room(&mut stream, ends.as_ref())).await?
                {
                    drop(body.frame().now_or_never()); // The layers learn of it.
                    stream.send_reset(Reason::CANCEL); // Trailers would wait behind what nobody reads.
                    return Ok(());
                }
                stream.send_data(data, last)?;
                if last {
                    return Ok(());
                }
                continue;
            }
            Ok(Err(frame)) => frame.into_trailers().ok(),
            Err(status) => trailers_of(&status),
        };
        let Some(trailers) = trailers else {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Err(Reason::INTERNAL_ERROR.into());
        };
        return stream.send_trailers(trailers);
    }
}

/// Whether a byte may be sent. Asks for no more than that: a stream that waits must not hold the connection's window
/// back from others (hyper's issue 4003), and h2 asks for the rest when it has it.
fn has_room(stream: &mut SendStream<Bytes>, data: &Bytes) -> bool {
    if data.is_empty() {
        return true;
    }
    stream.reserve_capacity(1);
    stream.capacity() > 0
}

/// Waits until a byte that was asked for may be sent; `false`: the call ends before.
async fn comes_room(
    stream: &mut SendStream<Bytes>,
    ends: Option<&Ends>,
) -> Result<bool, h2::Error> {
    let room = async {
        while stream.capacity() == 0 {
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(granted) => granted?,
                None => return Err(Reason::CANCEL.into()), // It was reset.
            };
        }
        Ok(true)
    };
    let ended = async {
        match ends {
            Some(ends) => {
                ends.wait().await;
            }
            None => pending().await,
        }
    };
    tokio::select! {
        biased;
        room = room => room,
        () = ended => Ok(false),
    }
}

/// `None`: it does not fit into headers.
fn trailers_of(status: &Status) -> Option<HeaderMap> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).ok()?;
    Some(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::FUTURE_BYTES_MAX;

    #[test]
    fn a_call_is_short_while_it_waits_for_nothing() {
        fn bytes<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
            size_of::<F>()
        }
        let bytes = bytes(serve);
        assert!(bytes <= FUTURE_BYTES_MAX, "{bytes}");
    }
}
