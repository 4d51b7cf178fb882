//! Layer: reads the context of the call being served from its headers and puts it into scope, for the
//! handler and for the stream that it answers with.
//!
//! Whose word counts: a caller of the own trust domain passes on for whom it calls, and its header is
//! believed; so it is in plaintext, where nobody can prove anything (keep the port inside). A caller of
//! a federated trust domain speaks for itself: its header is ignored, and the principal is its own
//! SPIFFE ID, without scopes.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::peer::Peer;
use crate::{
    context::{CallContext, Principal, ScopedBody},
    contract::{Contract, Criticality},
    live::Live,
    stack::{Answer, Call, Progress, Stack},
    wire::{self, header},
};

/// Why a call is refused whose headers cannot be read: below the layers that see and count calls.
#[derive(Clone)]
pub(super) struct Malformed(pub(super) Status);

/// Puts the context of each call into scope.
pub(crate) fn layer<S>(
    contract: Contract,
    live: Live,
) -> impl Layer<S, Service = Extract<S>> + Clone {
    tower::layer::layer_fn(move |inner| Extract {
        inner,
        contract: contract.clone(),
        live: live.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Extract<S> {
    inner: S,
    contract: Contract,
    live: Live,
}

impl<S: Stack> Service<Request<Body>> for Extract<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let path = request.uri().path();
        let method = self.contract.lookup(path);
        let cap = self
            .contract
            .deadline(path, self.live.load().deadline_default());
        let criticality = method
            .as_ref()
            .map_or(Criticality::Critical, |m| m.criticality);
        let token = CancellationToken::new();
        let peer = request.extensions().get::<Peer>();
        let mut malformed = None;
        let (context, asked) = match read(request.headers(), peer, criticality, cap) {
            Ok((context, asked)) => {
                let context = context.with_cancellation(token.clone());
                (context.with_method(method.clone()), asked)
            }
            Err(refused) => {
                malformed = Some(Malformed(refused));
                let context = CallContext::root(Principal::anonymous())
                    .with_criticality(criticality)
                    .with_cancellation(token.clone());
                (context.with_method(method.clone()), None)
            }
        };
        let deadline_by = match (asked, cap) {
            (Some(asked), cap) if cap.is_none_or(|cap| asked <= cap) => {
                header::GRPC_TIMEOUT.as_str()
            }
            _ => self.contract.deadline_by(path),
        };
        let here = peer.and_then(|peer| peer.here.clone());
        let progress = Progress::served(context.previous_attempts(), here);
        if let Some(malformed) = malformed {
            request.extensions_mut().insert(malformed);
        }
        request.extensions_mut().insert(Call {
            method,
            context: context.clone(),
            deadline_by,
            progress,
        });
        let gone = token.drop_guard();
        let calling = context.clone().scope(self.inner.call(request));
        Box::pin(async move {
            let answered = calling.await;
            match answered {
                Ok(response) if !http_body::Body::is_end_stream(response.body()) => Ok(response
                    .map(|inner| {
                        let scoped = ScopedBody { inner, context };
                        Body::new(ServedBody {
                            scoped,
                            gone: Some(gone),
                        })
                    })),
                ended => {
                    gone.disarm();
                    ended
                }
            }
        })
    }
}

/// The context, and the timeout that the caller asked for.
pub(super) fn read(
    headers: &HeaderMap,
    peer: Option<&Peer>,
    criticality: Criticality,
    cap: Option<Duration>,
) -> Result<(CallContext, Option<Duration>), Status> {
    let caller = peer.and_then(|peer| peer.id.clone());
    let principal = match &caller {
        Some(id) if peer.is_some_and(|peer| peer.is_foreign) => {
            Principal::new(id.as_str(), Vec::<String>::new())
        }
        _ => principal(headers)?,
    };
    let context = match wire::text(headers, &header::TRACEPARENT) {
        Some(traceparent) => CallContext::from_traceparent(traceparent, principal),
        None => CallContext::root(principal),
    };
    let asked = wire::read(headers, &header::GRPC_TIMEOUT, wire::decode_timeout)?;
    let stated = wire::read(headers, &header::CRITICALITY, |text| {
        text.parse::<Criticality>().ok()
    })?;
    let now = Instant::now();
    // A timeout beyond what the clock can express is no deadline.
    let deadline = asked
        .into_iter()
        .chain(cap)
        .min()
        .and_then(|left| now.checked_add(left));
    let context = context
        .with_caller(caller)
        .with_previous_attempts(headers)
        .with_deadline(deadline)
        .with_criticality(stated.map_or(criticality, |stated| stated.min(criticality)));
    let context = match wire::text(headers, &header::REQUEST_ID) {
        Some(id) => context.with_request_id(id),
        None => context,
    };
    Ok((context, asked))
}

fn principal(headers: &HeaderMap) -> Result<Principal, Status> {
    let name = wire::read(headers, &header::PRINCIPAL, wire::decode_text)?;
    let scopes = wire::read(headers, &header::SCOPES, |text| {
        text.split(',')
            .map(wire::decode_text)
            .collect::<Option<Vec<_>>>()
    })?;
    Ok(match (name, scopes) {
        (None, None) => Principal::anonymous(),
        (name, scopes) => Principal::new(
            name.unwrap_or_else(|| Principal::ANONYMOUS.to_owned()),
            scopes.unwrap_or_default(),
        ),
    })
}

/// A response stream in the context of its call. Dropped before its end, the caller has gone.
struct ServedBody {
    scoped: ScopedBody,
    gone: Option<DropGuard>,
}

impl http_body::Body for ServedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.scoped).poll_frame(cx);
        let ended = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            Poll::Ready(_) => true,
            Poll::Pending => false,
        };
        if ended && let Some(gone) = this.gone.take() {
            gone.disarm();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.scoped.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.scoped.size_hint()
    }
}
