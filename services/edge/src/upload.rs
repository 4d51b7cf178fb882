//! A raw body as a client stream: each piece goes on to the service as it arrives, nothing is buffered.
//!
//! A body that breaks off must not look like one that ended: the stream is then reset, which the service
//! sees as cancelled, and never half-closed. The same happens when whoever waits for the answer is gone.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use http::request::Parts;
use mesh_transcode::{Limits, Match, RequestBody};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use crate::{
    app::{App, Target},
    call,
    error::{Asked, Refusal},
    request::{self, content_type},
};

/// The longest piece that goes into one message, in bytes.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// One upload.
pub(crate) struct Upload<'a> {
    pub(crate) app: &'a App,
    pub(crate) target: &'a Target,
    pub(crate) found: &'a Match,
}

impl Upload<'_> {
    /// Sends the body and waits for the answer.
    pub(crate) async fn run(
        self,
        parts: &Parts,
        body: Body,
    ) -> Result<(Response<Bytes>, Asked), Refusal> {
        let limits = &self.app.config.limits;
        let mut pieces = Pieces {
            body: body.into_data_stream(),
            rest: Bytes::new(),
            left: limits.upload_bytes_max,
            bytes_max: limits.upload_bytes_max,
            timeout: Duration::from_millis(limits.body_timeout_ms),
        };
        let first = pieces.next().await?.unwrap_or_default();
        let body = RequestBody::Raw {
            content_type: content_type(&parts.headers),
            data: &first,
        };
        let request = self
            .found
            .request(parts.uri.query(), body, &Limits::default());
        let request = request.map_err(|error| Refusal::bad_request(&error))?;
        let prepared = request::complete(self.app, self.found, &parts.headers, request)?;
        let asked = prepared.asked;

        let (broke, broken) = oneshot::channel();
        let waiting = CancellationToken::new();
        let endpoint = Arc::clone(&self.found.endpoint);
        let rest = messages(pieces, broke, waiting.clone());
        let rest = rest.map(move |piece| piece.map(|piece| endpoint.chunk(&piece)));
        let messages = stream::iter([Ok(prepared.message)]).chain(rest);
        let _waiting = waiting.drop_guard();
        let answer = call::client_streaming(self.target, prepared.metadata, messages);
        tokio::select! {
            biased;
            Ok(refusal) = broken => Err(refusal),
            answer = answer => match answer {
                Ok(answer) => Ok((answer, asked)),
                Err(status) => Err(Refusal::from_status(&status, asked)),
            },
        }
    }
}

/// The body in pieces, as fast as the service takes them; an error where it breaks off, whose reason is
/// sent to `broke`, or when nobody is `waiting` any more.
fn messages(
    pieces: Pieces,
    broke: oneshot::Sender<Refusal>,
    waiting: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + 'static {
    stream::try_unfold(
        (pieces, broke, waiting),
        |(mut pieces, broke, waiting)| async move {
            match waiting.run_until_cancelled(pieces.next()).await {
                Some(Ok(Some(piece))) => Ok(Some((piece, (pieces, broke, waiting)))),
                Some(Ok(None)) => Ok(None),
                Some(Err(refusal)) => {
                    let _ = broke.send(refusal); // The call may have ended first; then nobody waits.
                    Err(Status::cancelled("the upload broke off"))
                }
                None => Err(Status::cancelled("nobody waits for the answer")),
            }
        },
    )
}

struct Pieces {
    body: BodyDataStream,
    rest: Bytes,
    left: u64,
    bytes_max: u64,
    timeout: Duration,
}

impl Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        while self.rest.is_empty() {
            let arrived = timeout(self.timeout, self.body.next()).await;
            match arrived.map_err(|_| Refusal::body_timeout())? {
                None => return Ok(None),
                Some(Err(_)) => return Err(Refusal::bad_field("body", "was cut off")),
                Some(Ok(bytes)) => {
                    let left = self.left.checked_sub(bytes.len() as u64);
                    self.left = left.ok_or_else(|| Refusal::too_large(self.bytes_max))?;
                    self.rest = bytes;
                }
            }
        }
        let piece = self.rest.len().min(PIECE_BYTES_MAX);
        Ok(Some(self.rest.split_to(piece)))
    }
}
