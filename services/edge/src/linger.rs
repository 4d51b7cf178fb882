//! Reads what nobody wanted of a request's body.
//!
//! Most clients send first and read afterwards. A server that answers early and closes takes the answer away from
//! them: they see a broken pipe or a reset in its place (RFC 9112, section 9.6). So the rest of a body that was
//! dropped is read and thrown away beside the answer, up to limits in bytes and time.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, time::timeout};

use crate::config::LimitsConfig;

/// The same body; dropped before its end, the rest of it is read all the same.
pub(crate) fn lingering(body: Body, limits: &LimitsConfig) -> Body {
    Body::new(Lingering {
        body,
        bytes_max: limits.discard_bytes_max,
        timeout: Duration::from_millis(limits.body_timeout_ms),
    })
}

struct Lingering {
    body: Body,
    bytes_max: u64,
    timeout: Duration,
}

impl http_body::Body for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let unread = !http_body::Body::is_end_stream(&self.body);
        if unread && Handle::try_current().is_ok() {
            let body = std::mem::take(&mut self.body);
            mesh::spawn(timeout(self.timeout, discard(body, self.bytes_max)));
        }
    }
}

async fn discard(mut body: Body, bytes_max: u64) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > bytes_max {
            return;
        }
    }
}
