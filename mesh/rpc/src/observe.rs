//! Layer: every call is counted, timed and, on the server, logged in a span of its own.
//!
//! A call ends with its last frame, not with its headers. One whose caller goes away before counts as
//! CANCELLED. Methods that the contract does not know are counted together as `other`, so that nobody
//! can fill the registry with names.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use mesh_identity::SpiffeId;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    metrics::Metrics,
    stack::{Answer, Call, Side, Stack},
};

/// Observes every call.
pub(crate) fn layer<S>(
    side: Side,
    metrics: Metrics,
) -> impl Layer<S, Service = Observe<S>> + Clone {
    tower::layer::layer_fn(move |inner| Observe {
        inner,
        side,
        metrics: metrics.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Observe<S> {
    inner: S,
    side: Side,
    metrics: Metrics,
}

impl<S: Stack> Service<Request<Body>> for Observe<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let call = Call::of(&request).clone();
        let span = match self.side {
            Side::Client => Span::current(),
            Side::Server => span_of(&call),
        };
        let mut record = Record::begin(self.metrics.clone(), self.side, call, span.clone());
        let calling = span.in_scope(|| self.inner.call(request));
        let observed = async move {
            match calling.await {
                Ok(response) => {
                    record.code = code_in(response.headers());
                    if http_body::Body::is_end_stream(response.body()) {
                        return Ok(response);
                    }
                    Ok(response.map(|inner| Body::new(ObservedBody { inner, record })))
                }
                Err(status) => {
                    record.code = Some(status.code());
                    drop(record);
                    Err(status)
                }
            }
        };
        Box::pin(observed.instrument(span))
    }
}

fn span_of(call: &Call) -> Span {
    tracing::info_span!(
        "rpc",
        rpc.method = method_label(call),
        trace_id = call.context.trace_id(),
        caller = call.context.caller().map(SpiffeId::as_str),
        principal = call.context.principal().name(),
        request_id = call.context.request_id(),
        code = Empty,
        latency_us = Empty,
    )
}

fn method_label(call: &Call) -> &str {
    call.method.as_ref().map_or("other", |method| &method.path)
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers
        .get("grpc-status")
        .map(|code| Code::from_bytes(code.as_bytes()))
}

/// Written when it is dropped: however the call ends, it is recorded once.
struct Record {
    metrics: Metrics,
    side: Side,
    call: Call,
    span: Span,
    started: Instant,
    // `None`: it has not ended yet.
    code: Option<Code>,
}

impl Record {
    fn begin(metrics: Metrics, side: Side, call: Call, span: Span) -> Self {
        metrics.in_flight.inc();
        Self {
            metrics,
            side,
            call,
            span,
            started: Instant::now(),
            code: None,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let (latency, code) = (self.started.elapsed(), self.code.unwrap_or(Code::Cancelled));
        let method = method_label(&self.call);
        self.metrics.in_flight.dec();
        self.metrics
            .requests
            .with_label_values(&[method, name(code)])
            .inc();
        self.metrics
            .duration
            .with_label_values(&[method])
            .observe(latency.as_secs_f64());
        if self.side == Side::Server {
            let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            self.span
                .record("code", name(code))
                .record("latency_us", latency_us);
            self.span.in_scope(|| match code {
                Code::Ok => tracing::debug!("served"),
                Code::Internal | Code::Unknown | Code::DataLoss => tracing::warn!("failed"),
                _ => tracing::info!("refused"),
            });
        }
    }
}

/// gRPC's own spelling.
pub(crate) fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

struct ObservedBody {
    inner: Body,
    record: Record,
}

impl http_body::Body for ObservedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { inner, record } = self.get_mut();
        let polled = record.span.in_scope(|| Pin::new(inner).poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    record.code = code_in(trailers).or(record.code);
                }
            }
            Poll::Ready(Some(Err(status))) => record.code = Some(status.code()),
            Poll::Ready(None) => record.code = record.code.or(Some(Code::Unknown)),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
