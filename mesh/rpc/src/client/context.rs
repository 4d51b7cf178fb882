//! Layer: the context of the call being served goes along with the call being made.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Request, Response};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    context::{CallContext, ScopedBody},
    contract::{Contract, MethodContract},
    live::Live,
    stack::{Answer, Call, Stack},
    wire::{self, header},
};

/// Takes the current [`CallContext`] along.
pub(crate) fn layer<S>(
    contract: Contract,
    live: Live,
) -> impl Layer<S, Service = Inject<S>> + Clone {
    tower::layer::layer_fn(move |inner| Inject {
        inner,
        contract: contract.clone(),
        live: live.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Inject<S> {
    inner: S,
    contract: Contract,
    live: Live,
}

impl<S: Stack> Service<Request<Body>> for Inject<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let path = request.uri().path();
        let method = self.contract.lookup(path);
        let longest = self
            .contract
            .deadline(path, self.live.load().deadline_default());
        let serving = CallContext::current();
        let asked = match wire::read(
            request.headers(),
            &header::GRPC_TIMEOUT,
            wire::decode_timeout,
        ) {
            Ok(asked) => asked,
            Err(refused) => return Box::pin(std::future::ready(Err(refused))),
        };
        let limits = [
            (asked, header::GRPC_TIMEOUT.as_str()),
            (longest, self.contract.deadline_by(path)),
        ];
        let (deadline, deadline_by) = soonest(&serving, limits);
        let context = serving.for_call(method.as_deref(), deadline);
        write(&context, request.headers_mut());
        // A stream of requests is read by the connection's task, which knows no context.
        if method.as_ref().is_none_or(|method| method.client_streaming) {
            request = request.map(|inner| {
                Body::new(ScopedBody {
                    inner,
                    context: serving,
                })
            });
        }
        request.extensions_mut().insert(Call {
            method,
            context,
            deadline_by,
            progress: Arc::default(),
        });
        self.inner.call(request)
    }
}

/// The deadline of the call being served, or what this call may take if that is sooner; and what it comes from.
fn soonest(
    serving: &CallContext,
    limits: [(Option<Duration>, &'static str); 2],
) -> (Option<Instant>, &'static str) {
    let now = Instant::now();
    let ends = limits
        .into_iter()
        .filter_map(|(limit, by)| Some((now.checked_add(limit?)?, by)));
    let served = serving.deadline().map(|end| (end, "the caller's deadline"));
    match served.into_iter().chain(ends).min_by_key(|(end, _)| *end) {
        Some((end, by)) => (Some(end), by),
        None => (None, "none"),
    }
}

fn write(context: &CallContext, headers: &mut HeaderMap) {
    let principal = context.principal();
    let scopes: Vec<_> = principal
        .scopes()
        .iter()
        .map(|scope| wire::encode_text(scope))
        .collect();
    wire::set_unique(headers, &header::TRACEPARENT, &context.traceparent());
    wire::set(
        headers,
        &header::CRITICALITY,
        context.criticality().as_str(),
    );
    wire::set_or_remove(headers, &header::REQUEST_ID, context.request_id());
    // Whatever the caller wrote there itself is replaced: only the context speaks for a principal.
    let name = (!principal.is_anonymous()).then(|| wire::encode_text(principal.name()));
    wire::set_or_remove(headers, &header::PRINCIPAL, name.as_deref());
    let scopes = (!scopes.is_empty()).then(|| scopes.join(","));
    wire::set_or_remove(headers, &header::SCOPES, scopes.as_deref());
}

impl CallContext {
    /// The context of a call made while this one is being served.
    fn for_call(&self, method: Option<&MethodContract>, deadline: Option<Instant>) -> Self {
        let criticality = method.map_or(self.criticality(), |method| {
            self.criticality().min(method.criticality)
        });
        self.clone()
            .with_child_span()
            .with_criticality(criticality)
            .with_deadline(deadline)
    }
}
