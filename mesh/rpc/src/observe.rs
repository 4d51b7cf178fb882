//! Layer: every call is counted, timed, traced and, on the server, logged where it ends badly; it stands in the table of
//! calls while it lasts, and whoever taps sees it end. What a log line says of its call comes from the call's context
//! ([`crate::log_context`]).
//!
//! A call ends with its last frame, not with its headers. One whose caller goes away before counts as CANCELLED. The span
//! for collectors (OpenTelemetry's conventions for gRPC) has the ids that travel in `traceparent`, and is not even opened
//! where nobody exports it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body, transport::server::TcpConnectInfo};
use tower::{Layer, Service};
use tracing::{Instrument as _, Span, field::Empty};

use crate::{
    metrics::{self, Calls, name},
    stack::{Answer, Call, Side, Stack},
    traffic::{InFlight, Listed, Traffic},
    wire::{code_in, code_of},
};

/// Observes every call.
pub(crate) fn layer<S>(
    side: Side,
    metrics: Arc<Calls>,
    traffic: Traffic,
) -> impl Layer<S, Service = Observe<S>> + Clone {
    tower::layer::layer_fn(move |inner| Observe {
        inner,
        side,
        metrics: metrics.clone(),
        traffic: traffic.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Observe<S> {
    inner: S,
    side: Side,
    metrics: Arc<Calls>,
    traffic: Traffic,
}

impl<S: Stack> Service<Request<Body>> for Observe<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let peer = request.extensions().get::<TcpConnectInfo>();
        let call = InFlight {
            side: self.side,
            call: Call::of(&request).clone(),
            peer: peer.and_then(TcpConnectInfo::remote_addr),
            started: Instant::now(),
        };
        let exported = exported(&call);
        // What a handler opens belongs to it.
        let span = exported.clone();
        self.metrics.begin(call.path());
        let mut record = Record {
            metrics: self.metrics.clone(),
            listed: self.traffic.list(call),
            exported,
            code: None,
        };
        let calling = span.in_scope(|| self.inner.call(request));
        let observed = async move {
            match calling.await {
                Ok(response) => {
                    record.code = code_of(&response);
                    if http_body::Body::is_end_stream(response.body()) {
                        // It says nothing of its end, as one that breaks off.
                        record.code = record.code.or(Some(Code::Unknown));
                        drop(record);
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

/// The span for collectors.
fn exported(shown: &InFlight) -> Span {
    let Call { context, .. } = &shown.call;
    let full = metrics::label(shown.path());
    let (service, method) = full.rsplit_once('/').unwrap_or(("", full));
    match shown.side {
        Side::Client => crate::span!(
            context,
            "client",
            otel.name = full,
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = Empty,
            server.address = Empty,
            server.port = Empty,
            mesh.attempts = Empty,
        ),
        Side::Server => crate::span!(
            context,
            "server",
            otel.name = full,
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = method,
            rpc.grpc.status_code = Empty,
            client.address = shown.peer.map(|peer| tracing::field::display(peer.ip())),
            mesh.principal = context.principal().name(),
        ),
    }
}

/// Written when it is dropped: however the call ends, it is recorded once.
struct Record {
    metrics: Arc<Calls>,
    listed: Listed,
    exported: Span,
    // `None`: it has not ended yet.
    code: Option<Code>,
}

impl Drop for Record {
    fn drop(&mut self) {
        let shown = &*self.listed.call;
        let Call {
            context, progress, ..
        } = &shown.call;
        let (latency, code) = (
            shown.started.elapsed(),
            self.code.unwrap_or(Code::Cancelled),
        );
        let (seconds, trace) = (latency.as_secs_f64(), context.ids().trace);
        self.metrics
            .end(shown.path(), code, seconds, trace, progress);
        let latency_us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.listed.finished(code, latency_us);
        if !self.exported.is_disabled() {
            self.export(code);
        }
        if shown.side == Side::Server {
            context.enter(|| log(code, latency_us));
        }
    }
}

/// A line about a call that was served.
fn log(code: Code, latency_us: u64) {
    let name = name(code);
    match code {
        Code::Ok => tracing::debug!(code = name, latency_us, "served"),
        Code::Internal | Code::Unknown | Code::DataLoss => {
            tracing::warn!(code = name, latency_us, "failed");
        }
        // In an overload there are too many of them for a line each; they are counted by reason.
        Code::ResourceExhausted => tracing::debug!(code = name, latency_us, "refused"),
        _ => tracing::info!(code = name, latency_us, "refused"),
    }
}

impl Record {
    fn export(&self, code: Code) {
        let InFlight { side, call, .. } = &*self.listed.call;
        self.exported
            .record("rpc.grpc.status_code", i64::from(i32::from(code)));
        if is_error(*side, code) {
            self.exported.record("otel.status_code", "ERROR");
        }
        if *side == Side::Client {
            self.exported
                .record("mesh.attempts", call.progress.attempts());
            let endpoint = call.progress.endpoint();
            if let Some((host, port)) = endpoint.as_deref().and_then(|at| at.rsplit_once(':')) {
                self.exported.record("server.address", host);
                if let Ok(port) = port.parse::<u16>() {
                    self.exported.record("server.port", port);
                }
            }
        }
    }
}

/// As the conventions have it: everything else than OK is an error for who calls, and for who serves what is its fault.
fn is_error(side: Side, code: Code) -> bool {
    match side {
        Side::Client => code != Code::Ok,
        Side::Server => matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ),
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
        let polled = record.exported.in_scope(|| Pin::new(inner).poll_frame(cx));
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    record.code = code_in(trailers).or(record.code).or(Some(Code::Unknown));
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
