//! Answers that are streams: JSON lines, server-sent events, or the pieces of a raw body.
//!
//! A stream ends with its call, with its client (dropping it cancels the call), or with the edge.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use mesh_transcode::{Endpoint, Payload};
use serde_json::json;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tonic::{Status, Streaming};

use crate::{
    app::App,
    error::{Asked, Refusal},
    negotiate::{self, EVENTS, NDJSON},
};

/// The field of a message that says where it stands in its stream.
const REVISION_FIELD: &str = "revision";

/// How a stream is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON value a line.
    Lines,
    /// Server-sent events.
    Events,
    /// As it is.
    Raw,
}

impl Format {
    /// What the client asks for, of what there is.
    pub(crate) fn of(
        endpoint: &Endpoint,
        headers: &HeaderMap,
        socket: bool,
    ) -> Result<Self, Refusal> {
        if endpoint.response_payload() == Payload::Raw {
            return Ok(Self::Raw);
        }
        if socket {
            return Ok(Self::Lines);
        }
        if negotiate::wants_events(headers) {
            Ok(Self::Events)
        } else if negotiate::accepts(headers, NDJSON) {
            Ok(Self::Lines)
        } else {
            Err(negotiate::not_acceptable(
                "application/x-ndjson and text/event-stream",
            ))
        }
    }

    fn content_type(self) -> HeaderValue {
        match self {
            Self::Lines => HeaderValue::from_static(NDJSON),
            Self::Events => HeaderValue::from_static(EVENTS),
            Self::Raw => media_type(""),
        }
    }

    /// The answer to HEAD: nothing is called for it.
    pub(crate) fn headers_only(self) -> Response {
        with_type(self.content_type(), Body::empty())
    }
}

/// The media type that a service states for a raw body. What a browser would run is not shown as such.
pub(crate) fn media_type(stated: &str) -> HeaderValue {
    let value = if stated.is_empty() {
        "application/octet-stream"
    } else {
        stated
    };
    HeaderValue::from_str(value)
        .unwrap_or_else(|_| HeaderValue::from_static("application/octet-stream"))
}

fn with_type(content_type: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, content_type);
    response
}

/// What comes next in a stream.
pub(crate) enum Next {
    /// A message as JSON, with its revision.
    Message {
        json: String,
        revision: Option<String>,
    },
    /// Nothing for a while; the connection should be kept alive.
    Idle,
    /// It failed, as told to the client.
    Failed(serde_json::Value),
    /// It is over: by itself, or because the edge shuts down.
    End,
}

/// The messages of a call, the room it takes, and what ends it.
pub(crate) struct Stream {
    app: Arc<App>,
    endpoint: Arc<Endpoint>,
    messages: Streaming<Bytes>,
    request_id: String,
    keepalive: Interval,
    over: bool,
    _room: OwnedSemaphorePermit,
}

impl Stream {
    pub(crate) fn new(
        app: Arc<App>,
        endpoint: Arc<Endpoint>,
        messages: Streaming<Bytes>,
        room: OwnedSemaphorePermit,
        request_id: String,
    ) -> Self {
        app.metrics.streams.inc();
        let period = Duration::from_millis(app.config.limits.keepalive_interval_ms);
        let mut keepalive = interval_at(Instant::now() + period, period);
        keepalive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            app,
            endpoint,
            messages,
            request_id,
            keepalive,
            over: false,
            _room: room,
        }
    }

    pub(crate) fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The next message of a stream of JSON.
    pub(crate) async fn next(&mut self) -> Next {
        if self.over {
            return Next::End;
        }
        let draining = self.app.draining.clone();
        tokio::select! {
            biased;
            () = draining.cancelled() => {
                self.over = true;
                Next::End
            }
            message = self.messages.message() => self.shown(message),
            _ = self.keepalive.tick() => Next::Idle,
        }
    }

    fn shown(&mut self, message: Result<Option<Bytes>, Status>) -> Next {
        self.keepalive.reset();
        let refusal = match message {
            Ok(None) => {
                self.over = true;
                return Next::End;
            }
            Ok(Some(bytes)) => {
                let shown = self.endpoint.response(bytes).and_then(|response| {
                    Ok(Next::Message {
                        json: response.json()?,
                        revision: response.text(REVISION_FIELD),
                    })
                });
                match shown {
                    Ok(next) => return next,
                    Err(error) => Refusal::internal(&error),
                }
            }
            Err(status) => Refusal::from_status(&status, Asked::default()),
        };
        self.over = true;
        Next::Failed(refusal.json(&self.request_id))
    }

    /// The HTTP answer. Its headers leave at once for messages; a raw body's wait for the first piece,
    /// which says what it is.
    pub(crate) async fn respond(self, format: Format) -> Result<Response, Refusal> {
        match format {
            Format::Raw => self.raw().await,
            Format::Lines | Format::Events => {
                let body = stream::unfold(self, move |mut stream| async move {
                    let text = stream.text(format).await?;
                    Some((Ok::<_, Infallible>(text), stream))
                });
                Ok(with_type(format.content_type(), Body::from_stream(body)))
            }
        }
    }

    /// The next piece of a body of lines or events.
    async fn text(&mut self, format: Format) -> Option<String> {
        loop {
            let next = self.next().await;
            return Some(match (format, next) {
                (_, Next::End) => return None,
                (Format::Events, Next::Message { json, revision }) => {
                    let id = revision.map_or_else(String::new, |id| format!("id: {id}\n"));
                    format!("{id}data: {json}\n\n")
                }
                (Format::Events, Next::Idle) => ": idle\n\n".to_owned(),
                (Format::Events, Next::Failed(status)) => {
                    format!("event: error\ndata: {status}\n\n")
                }
                (_, Next::Message { json, .. }) => json + "\n",
                // A line for nothing would have to be a value.
                (_, Next::Idle) => continue,
                (_, Next::Failed(status)) => json!({"error": status}).to_string() + "\n",
            });
        }
    }

    /// A failure after the first piece breaks the connection, so that nobody takes a part for the whole.
    async fn raw(mut self) -> Result<Response, Refusal> {
        let failed = |status: &Status| Refusal::from_status(status, Asked::default());
        let first = self
            .messages
            .message()
            .await
            .map_err(|status| failed(&status))?;
        let endpoint = Arc::clone(&self.endpoint);
        let piece = move |bytes: Bytes| endpoint.response(bytes).map(|response| response.raw());
        let first = first
            .map(&piece)
            .transpose()
            .map_err(|error| Refusal::internal(&error))?;
        let content_type = media_type(first.as_ref().map_or("", |first| &first.content_type));
        let first = first.map(|first| first.data);
        let body = stream::try_unfold(
            (self, first, piece),
            |(mut this, first, piece)| async move {
                if let Some(first) = first {
                    return Ok(Some((first, (this, None, piece))));
                }
                let draining = this.app.draining.clone();
                let message = tokio::select! {
                    biased;
                    () = draining.cancelled() => return Err("the edge is shutting down".to_owned()),
                    message = this.messages.message() => message.map_err(|status| {
                        tracing::warn!(%status, request.id = this.request_id, "download broke off");
                        status.message().to_owned()
                    })?,
                };
                let Some(bytes) = message else {
                    return Ok(None);
                };
                let raw = piece(bytes).map_err(|error| error.to_string())?;
                Ok(Some((raw.data, (this, None, piece))))
            },
        );
        Ok(with_type(content_type, Body::from_stream(body)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.app.metrics.streams.dec();
    }
}
