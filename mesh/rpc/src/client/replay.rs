//! A request that can be had again: kept in memory where it is short, else sent once only.

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Uri};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use tonic::{Status, body::Body};

use crate::stack::Call;

/// A request, for as many attempts as it can be had.
pub(super) struct Copy {
    /// For the next attempt, which takes it when it sends it.
    request: Option<Request<Body>>,
    /// Of a short request: for any number of attempts.
    pub(super) message: Option<Message>,
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
    /// For one attempt.
    pub(super) fn of(request: Request<Body>) -> Self {
        Self {
            request: Some(request),
            message: None,
        }
    }

    /// The request, before the first attempt.
    pub(super) fn request(&self) -> &Request<Body> {
        self.request.as_ref().expect("it is not sent yet")
    }

    /// For any number of them, if it is one message of `bytes_max` at most.
    pub(super) async fn keep(&mut self, bytes_max: usize) -> Result<(), Status> {
        let request = self.request.as_mut().expect("it is not sent yet");
        let method = Call::of(request).method.as_ref();
        if method.is_none_or(|method| method.client_streaming) {
            return Ok(());
        }
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = match read(body, bytes_max).await? {
            Read::Whole(message) => {
                self.message = Some(Message::of(request, message.clone()));
                Body::new(Full::new(message))
            }
            Read::TooLong(body) => body,
        };
        Ok(())
    }

    pub(super) fn is_left(&self) -> bool {
        self.message.is_some() || self.request.is_some()
    }

    /// The request for another attempt, or nothing; and the message for one beside it.
    pub(super) fn next(&mut self) -> (&mut Option<Request<Body>>, Option<&Message>) {
        let message = self.message.as_ref();
        if self.request.is_none() {
            self.request = message.map(Message::again);
        }
        (&mut self.request, message)
    }
}

impl Message {
    fn of(request: &Request<Body>, body: Bytes) -> Self {
        Self {
            call: Call::of(request).clone(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
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

enum Read {
    Whole(Bytes),
    TooLong(Body),
}

/// Reads a request into memory as long as it is short. tonic writes a unary one as a single frame that
/// is ready at once, so this neither waits nor copies.
async fn read(mut body: Body, bytes_max: usize) -> Result<Read, Status> {
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
            return Ok(Read::TooLong(Body::new(StreamBody::new(
                read.chain(BodyStream::new(body)),
            ))));
        }
    }
    Ok(Read::Whole(match chunks.len() {
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
