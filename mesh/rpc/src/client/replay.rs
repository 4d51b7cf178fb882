//! A request that can be had again: kept in memory where it is short, else sent once only.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Uri, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use tonic::{Status, body::Body};

use crate::stack::Call;

/// A request, for as many attempts as it can be had.
pub(super) struct Copy {
    /// A short message: for any number.
    pub(super) message: Option<Box<Message>>,
    /// Anything else, for one; and what was given back because nothing of it was sent.
    pub(super) request: Option<Request<Body>>,
}

/// What of a request goes to the callee, and the mesh's own word on it: other extensions are for the layers above.
pub(super) struct Message {
    method: http::Method,
    uri: Uri,
    headers: HeaderMap,
    call: Call,
    body: Bytes,
}

impl Copy {
    pub(super) async fn of(request: Request<Body>, bytes_max: usize) -> Result<Self, Status> {
        let once = |request| Self {
            message: None,
            request: Some(request),
        };
        let method = Call::of(&request).method.as_ref();
        if method.is_none_or(|method| method.client_streaming) {
            return Ok(once(request));
        }
        let (parts, body) = request.into_parts();
        Ok(match keep(body, bytes_max).await? {
            Kept::Whole(message) => Self {
                message: Some(Box::new(Message::of(parts, message))),
                request: None,
            },
            Kept::TooLong(body) => once(Request::from_parts(parts, body)),
        })
    }

    pub(super) fn is_left(&self) -> bool {
        self.message.is_some() || self.request.is_some()
    }

    pub(super) fn next(&mut self) -> Option<Request<Body>> {
        let again = || self.message.as_ref().map(|message| message.again());
        self.request.take().or_else(again)
    }
}

impl Message {
    fn of(mut parts: Parts, body: Bytes) -> Self {
        Self {
            call: parts
                .extensions
                .remove()
                .expect("the context layer stands above every other layer"),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
        }
    }

    pub(super) fn again(&self) -> Request<Body> {
        let mut request = Request::new(Body::new(Full::new(self.body.clone())));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request.extensions_mut().insert(self.call.clone());
        request
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
