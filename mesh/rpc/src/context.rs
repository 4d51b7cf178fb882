//! What travels with a call: deadline, trace, principal, criticality, request id.
//!
//! The context of the call being served lies in a task-local. Calls made through a [`crate::Client`]
//! while serving it take it along by themselves. tokio's task-locals do not cross `tokio::spawn`, so a
//! task is started with [`spawn`] (or [`carry`] for a `TaskTracker` or `JoinSet`), and a task that has to
//! outlive its caller says so with [`detach`].
//!
//! Deliberately without: arbitrary baggage. What a service needs is a field of a request.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use mesh_identity::SpiffeId;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::{Status, body::Body};
use tracing::Instrument as _;

use crate::{
    contract::{Criticality, MethodContract},
    trace::{SpanIds, Trace},
};

tokio::task_local! {
    static CURRENT: CallContext;
}

/// Who a call is made for, and what they may do. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    name: Arc<str>,
    scopes: Arc<[String]>,
}

impl Principal {
    /// The name of a caller that has shown nothing.
    pub const ANONYMOUS: &'static str = "anonymous";

    /// A caller that has shown nothing: no scopes.
    pub fn anonymous() -> Self {
        Self::new(Self::ANONYMOUS, Vec::<String>::new())
    }

    /// A known caller. The name scopes idempotency keys and ownership: it must be stable.
    pub fn new(
        name: impl Into<String>,
        scopes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            name: Arc::from(name.into()),
            scopes: scopes.into_iter().map(Into::into).collect(),
        }
    }

    /// The name, stable across calls.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the principal may do.
    pub fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Whether the principal holds a scope, such as `operator`.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }

    /// Whether nobody has shown who they are.
    pub fn is_anonymous(&self) -> bool {
        &*self.name == Self::ANONYMOUS
    }
}

/// Deadline, trace, principal, criticality and request id of a call. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CallContext(Arc<Fields>);

#[derive(Clone, Debug)]
struct Fields {
    trace: Trace,
    principal: Principal,
    criticality: Criticality,
    request_id: Option<Arc<str>>,
    // What is being served; not sent on.
    method: Option<Arc<MethodContract>>,
    // Who has called this process, as its certificate proves; not sent on.
    caller: Option<SpiffeId>,
    deadline: Option<Instant>,
    // How often somebody above has made the call being served before.
    previous_attempts: u32,
    // Cancelled when the caller of the call being served has gone, or its deadline has passed.
    cancelled: Option<CancellationToken>,
}

impl CallContext {
    /// The context of the call being served, else a fresh [`CallContext::root`] of nobody.
    pub fn current() -> Self {
        CURRENT
            .try_with(Clone::clone)
            .unwrap_or_else(|_| Self::root(Principal::anonymous()))
    }

    /// A new trace without a deadline, for work that no call has asked for.
    pub fn root(principal: Principal) -> Self {
        Self::of(Trace::root(), principal)
    }

    /// Continues the trace of a W3C `traceparent` header (of an event, or of an outer protocol) with a
    /// span of its own; a malformed header starts a new trace.
    pub fn from_traceparent(traceparent: &str, principal: Principal) -> Self {
        let trace = Trace::parse(traceparent).map_or_else(Trace::root, Trace::child);
        Self::of(trace, principal)
    }

    fn of(trace: Trace, principal: Principal) -> Self {
        Self(Arc::new(Fields {
            trace,
            principal,
            criticality: Criticality::CriticalPlus, // Lowers nothing: each callee's own counts.
            request_id: None,
            method: None,
            caller: None,
            deadline: None,
            previous_attempts: 0,
            cancelled: None,
        }))
    }

    /// The same with something else in it; copied only where somebody holds it too.
    fn with(mut self, change: impl FnOnce(&mut Fields)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }

    /// Who the call is made for.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// The workload that has made the call being served, as its certificate proves; `None`: it spoke
    /// plaintext, or no call is being served. It is who calls, where the principal is for whom. Calls
    /// made meanwhile do not pass it on: their callee sees this process.
    pub fn caller(&self) -> Option<&SpiffeId> {
        self.0.caller.as_ref()
    }

    /// When the caller stops waiting; `None`: never.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// How much it matters that the call succeeds.
    pub fn criticality(&self) -> Criticality {
        self.0.criticality
    }

    /// The outermost client's name for its request.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// This call's own span as a W3C `traceparent` header, to be stored with an event.
    pub fn traceparent(&self) -> String {
        self.0.trace.to_string()
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.0.trace.trace_id()
    }

    /// This call's own span, for whoever exports it ([`crate::span!`]).
    pub fn ids(&self) -> SpanIds {
        self.0.trace.ids()
    }

    /// The same context with another deadline.
    #[must_use]
    pub fn with_deadline(self, deadline: Option<Instant>) -> Self {
        self.with(|fields| fields.deadline = deadline)
    }

    /// The same context with a deadline as far from now as the text of a `grpc-timeout` says (`250m`: 250
    /// milliseconds), unless it has a sooner one. `None`: the text is malformed.
    pub fn with_timeout(self, text: &str) -> Option<Self> {
        let asked = Instant::now().checked_add(crate::wire::decode_timeout(text)?);
        let sooner = self.deadline().into_iter().chain(asked).min();
        Some(self.with_deadline(sooner))
    }

    /// The same context on behalf of another principal.
    #[must_use]
    pub fn with_principal(self, principal: Principal) -> Self {
        self.with(|fields| fields.principal = principal)
    }

    /// The same context with another criticality.
    #[must_use]
    pub fn with_criticality(self, criticality: Criticality) -> Self {
        self.with(|fields| fields.criticality = criticality)
    }

    /// The same context with a request id; longer than 128 bytes or not visible ASCII: without one.
    #[must_use]
    pub fn with_request_id(self, request_id: impl AsRef<str>) -> Self {
        let id = request_id.as_ref();
        let fits = !id.is_empty()
            && id.len() <= crate::wire::REQUEST_ID_BYTES_MAX
            && id.bytes().all(|b| b.is_ascii_graphic());
        self.with(|fields| fields.request_id = fits.then(|| Arc::from(id)))
    }

    /// Resolves when the caller has gone away or its deadline has passed; for work that runs in a task
    /// of its own. (The handler itself is dropped at that moment and need not ask.) A call that ends in
    /// good order cancels nothing.
    pub async fn cancelled(&self) {
        match &self.0.cancelled {
            Some(token) => token.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Runs `future` as part of the call that this context describes.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }

    /// Runs `work` as part of the call that this context describes.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// How often somebody above has made the call being served before: whoever serves a retry does not
    /// retry itself.
    pub(crate) fn previous_attempts(&self) -> u32 {
        self.0.previous_attempts
    }

    /// Takes over what the caller says of earlier attempts; a header that is no number says nothing.
    pub(crate) fn with_previous_attempts(self, headers: &http::HeaderMap) -> Self {
        let previous = crate::wire::text(headers, &crate::wire::header::PREVIOUS_ATTEMPTS);
        let previous = previous.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.with(|fields| fields.previous_attempts = previous)
    }

    pub(crate) fn with_caller(self, caller: Option<SpiffeId>) -> Self {
        self.with(|fields| fields.caller = caller)
    }

    pub(crate) fn with_method(self, method: Option<Arc<MethodContract>>) -> Self {
        self.with(|fields| fields.method = method)
    }

    pub(crate) fn with_child_span(self) -> Self {
        self.with(|fields| fields.trace = fields.trace.child())
    }

    pub(crate) fn with_cancellation(self, token: CancellationToken) -> Self {
        self.with(|fields| fields.cancelled = Some(token))
    }

    pub(crate) fn cancellation(&self) -> Option<&CancellationToken> {
        self.0.cancelled.as_ref()
    }

    /// Keeps who and why, leaves the caller's patience behind.
    fn detached(self) -> Self {
        self.with(|fields| {
            fields.deadline = None;
            fields.previous_attempts = 0;
            fields.cancelled = None;
        })
    }
}

/// What a log line says of the call for which it is written, names and values: `rpc.method`, `trace_id`, `caller`,
/// `principal`, `request_id`; nothing outside of a call. For whoever formats lines (`mesh_runtime::telemetry`): the call
/// itself pays nothing for it, where a span that holds the same would be filled for every call.
pub fn log_context(say: &mut dyn FnMut(&'static str, &dyn fmt::Display)) {
    let _ = CURRENT.try_with(|context| {
        let fields = &*context.0;
        if let Some(method) = &fields.method {
            say("rpc.method", &crate::metrics::label(&method.path));
        }
        say(
            "trace_id",
            &format_args!("{:032x}", fields.trace.ids().trace),
        );
        if let Some(caller) = &fields.caller {
            say("caller", &caller.as_str());
        }
        say("principal", &fields.principal.name());
        if let Some(id) = &fields.request_id {
            say("request_id", id);
        }
    });
}

/// `tokio::spawn` that carries the whole context along: calls made inside keep the caller's deadline and
/// end with it.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the wrapper that the ban points to"
    )]
    tokio::spawn(carry(future))
}

/// A task of the mesh's own, which belongs to no call; ends when the handle is dropped.
pub(crate) fn spawn_apart<F>(future: F) -> AbortOnDropHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(
        clippy::disallowed_methods,
        reason = "a connection must not inherit the deadline of the call that opened it"
    )]
    AbortOnDropHandle::new(tokio::spawn(future))
}

/// Wraps a future for a `TaskTracker` or `JoinSet` as [`spawn`] does for `tokio::spawn`.
pub fn carry<F: Future>(future: F) -> impl Future<Output = F::Output> {
    CallContext::current().scope(future).in_current_span()
}

/// Like [`carry`] for work that must finish although its caller goes away: trace, principal, criticality
/// and request id come along, deadline and cancellation stay behind.
pub fn detach<F: Future>(future: F) -> impl Future<Output = F::Output> {
    CallContext::current()
        .detached()
        .scope(future)
        .in_current_span()
}

/// A body that is polled inside a context: a response stream runs after its handler has returned, a
/// request stream in the task of the connection.
pub(crate) struct ScopedBody {
    pub(crate) inner: Body,
    pub(crate) context: CallContext,
}

impl http_body::Body for ScopedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let inner = &mut this.inner;
        this.context.enter(|| Pin::new(inner).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shop() -> CallContext {
        CallContext::root(Principal::new("shop", ["operator"]))
            .with_deadline(Some(Instant::now() + Duration::from_secs(1)))
            .with_request_id("req-1")
            .with_criticality(Criticality::Sheddable)
            .with_cancellation(CancellationToken::new())
    }

    #[tokio::test]
    async fn outside_a_call_the_context_is_nobodys() {
        let context = CallContext::current();
        assert!(context.principal().is_anonymous());
        assert!(!context.principal().has_scope("operator"));
        assert_eq!(context.deadline(), None);
        assert_eq!(context.request_id(), None);
    }

    #[tokio::test]
    async fn a_plain_task_forgets_and_spawn_remembers() {
        shop()
            .scope(async {
                #[expect(clippy::disallowed_methods, reason = "shows why it is banned")]
                let forgotten = tokio::spawn(async { CallContext::current() })
                    .await
                    .unwrap();
                assert!(forgotten.principal().is_anonymous());

                let here = CallContext::current();
                let there = spawn(async { CallContext::current() }).await.unwrap();
                assert_eq!(there.principal().name(), "shop");
                assert!(there.principal().has_scope("operator"));
                assert_eq!(there.traceparent(), here.traceparent());
                assert_eq!(there.deadline(), here.deadline());
                assert_eq!(there.request_id(), Some("req-1"));
                assert_eq!(there.criticality(), Criticality::Sheddable);
                assert!(there.cancellation().is_some());
            })
            .await;
    }

    #[tokio::test]
    async fn detach_keeps_who_and_leaves_the_deadline_behind() {
        shop()
            .scope(async {
                let here = CallContext::current();
                let there = detach(async { CallContext::current() }).await;
                assert_eq!(there.principal(), here.principal());
                assert_eq!(there.traceparent(), here.traceparent());
                assert_eq!(there.request_id(), here.request_id());
                assert_eq!(there.deadline(), None);
                assert!(there.cancellation().is_none());
            })
            .await;
    }

    #[tokio::test]
    async fn a_malformed_traceparent_starts_a_new_trace() {
        let parent = shop();
        let continued =
            CallContext::from_traceparent(&parent.traceparent(), Principal::anonymous());
        assert_eq!(continued.trace_id(), parent.trace_id());
        assert_ne!(continued.traceparent(), parent.traceparent());

        let fresh = CallContext::from_traceparent("nonsense", Principal::anonymous());
        assert_ne!(fresh.trace_id(), parent.trace_id());
    }

    #[tokio::test]
    async fn a_request_id_that_cannot_stand_in_a_header_is_dropped() {
        for id in [
            String::new(),
            "a b".into(),
            "é".into(),
            "x\n".into(),
            "x".repeat(129),
        ] {
            assert_eq!(shop().with_request_id(&id).request_id(), None, "{id:?}");
        }
    }
}
