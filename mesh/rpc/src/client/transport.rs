//! The bottom of the client stack: one connection to one address, and what its failures mean.
//!
//! tonic's lazily connected `Channel` for now. Nothing of it shows above this file, so that hyper's
//! HTTP/2 with several connections per destination can take its place.

use std::{
    error::Error as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use tokio::time::Instant;
use tonic::{
    ConnectError, Status, TimeoutExpired,
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{Service, ServiceExt as _};

use crate::{
    Config,
    config::parse_destination,
    stack::Call,
    status,
    wire::{self, header},
};

const USER_AGENT: &str = concat!("commerce-mesh/", env!("CARGO_PKG_VERSION"));

/// A connection to a destination, or the lack of an address for it.
#[derive(Clone)]
pub(crate) struct Transport {
    destination: Arc<str>,
    channel: Option<Channel>,
}

/// A call that did not come to an answer.
pub(crate) struct Failure {
    pub(crate) status: Status,
    /// Whether another attempt may succeed and cannot do its work twice: nothing was sent.
    pub(crate) worth_repeating: bool,
}

impl Transport {
    /// Connects with the first call. An unconfigured destination answers UNAVAILABLE to every call.
    pub(crate) fn lazy(destination: &str, config: &Config) -> Self {
        let channel = config.destinations.get(destination).map(|address| {
            let uri = parse_destination(address).expect("the configuration was validated");
            endpoint(uri, config).connect_lazy()
        });
        Self {
            destination: Arc::from(destination),
            channel,
        }
    }

    #[cfg(test)]
    pub(crate) fn over(destination: &str, channel: Channel) -> Self {
        Self {
            destination: Arc::from(destination),
            channel: Some(channel),
        }
    }
}

pub(crate) fn endpoint(uri: http::Uri, config: &Config) -> Endpoint {
    Endpoint::from(uri)
        .user_agent(USER_AGENT)
        .expect("the user agent is a valid header")
        .connect_timeout(Duration::from_millis(config.client.connect_timeout_ms))
        .buffer_size(config.client.waiting_max)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(config.keepalive_interval())
        .keep_alive_timeout(config.keepalive_timeout())
        .http2_max_header_list_size(config.header_bytes_max)
        .initial_stream_window_size(config.stream_window_bytes)
        .initial_connection_window_size(config.connection_window_bytes)
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Body>;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Failure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(())) // Waiting for a connection belongs to the call, under its deadline.
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (channel, destination) = (self.channel.clone(), self.destination.clone());
        let deadline = Call::of(&request).context.deadline();
        Box::pin(async move {
            let Some(channel) = channel else {
                return Err(Failure {
                    status: status::unconfigured(&destination),
                    worth_repeating: false,
                });
            };
            // Now, not when the call began: earlier attempts have used some of the time.
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(wire::encode_timeout);
            wire::set_or_remove(request.headers_mut(), header::GRPC_TIMEOUT, left.as_deref());
            let response = match channel.oneshot(request).await {
                Ok(response) => response,
                Err(error) => return Err(Failure::of(error, &destination)),
            };
            let in_headers = response.headers().contains_key(Status::GRPC_STATUS);
            if in_headers || response.status() != StatusCode::OK {
                return Ok(response); // The outcome is known already.
            }
            if http_body::Body::is_end_stream(response.body()) {
                return Err(Failure {
                    status: status::cut_off(&destination),
                    worth_repeating: false,
                });
            }
            Ok(response.map(|inner| {
                Body::new(AnswerBody {
                    inner,
                    destination,
                    ended: false,
                })
            }))
        })
    }
}

impl Failure {
    fn of(error: tonic::transport::Error, destination: &str) -> Self {
        let mut unsent = false;
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<TimeoutExpired>() {
                let status = status::deadline_exceeded();
                return Self {
                    status,
                    worth_repeating: false,
                };
            }
            // hyper cancels only what it has not begun to write.
            let never_written = || error.downcast_ref().is_some_and(hyper::Error::is_canceled);
            unsent = unsent || error.is::<ConnectError>() || never_written();
            cause = error.source();
        }
        tracing::debug!(destination, unsent, ?error, "call failed in transport");
        let status = status::transport(Status::from_error(Box::new(error)).code(), destination);
        Self {
            status,
            worth_repeating: unsent,
        }
    }
}

/// An answer that ends with trailers or with an error, never in silence: a callee that dies in the
/// middle of a stream, or a proxy that cuts it off, is UNAVAILABLE and not an end.
struct AnswerBody {
    inner: Body,
    destination: Arc<str>,
    ended: bool,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        Poll::Ready(Some(match frame {
            Some(Ok(frame)) => {
                this.ended = frame.is_trailers();
                Ok(frame)
            }
            Some(Err(error)) => {
                this.ended = true;
                tracing::debug!(destination = &*this.destination, ?error, "answer broke off");
                Err(status::transport(error.code(), &this.destination))
            }
            None => {
                this.ended = true;
                Err(status::cut_off(&this.destination))
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
