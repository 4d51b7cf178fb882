//! Layer: the server takes no more calls than it can bear, and refuses the others while that is cheap.
//!
//! How many it can bear is learned from their latencies (`limit.rs`); who gets in, who waits and who is
//! refused is decided by criticality and caller (`admission.rs`). A refusal is RESOURCE_EXHAUSTED with
//! RetryInfo and `grpc-retry-pushback-ms`: not UNAVAILABLE, because a server that sheds is no broken one;
//! the client's balancer turns away from it for a while without ejecting it, and tries again only where
//! the pushback says so and the budget allows (gRFC A6, `client/retry.rs`).
//!
//! A call holds its place until its answer's headers are there. Then the handler of a unary call is done,
//! and what is left depends on how fast its caller reads; a server stream may go on for days. A stream of
//! requests depends on its sender as well, and holds its place for [`UPLOAD_HOLD`] at most. Only unary calls
//! that were answered OK are samples: a stream's latency, or an error's, says nothing of the load.
//!
//! A call that waits ends with its deadline like any other (the layer stands below `deadline`), and one
//! whose deadline has passed when its turn comes is not begun.
//!
//! Deliberately without a look at CPU or memory: what a server runs short of (a pool of connections, a
//! lock, a neighbour) shows in its latencies first.

mod admission;
mod config;
mod limit;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service, ServiceExt as _};

pub use config::OverloadConfig;

use self::{
    admission::{Admission, Arrival, Fate, Ticket, Verdict},
    limit::Departure,
};
use crate::{
    Contract,
    client::clock::{Clock, Nanos, nanos},
    contract::is_housekeeping,
    live::Live,
    server::metrics::ServerMetrics,
    stack::{Answer, Call, Progress, Stack},
    status::{self, Origin},
};

/// How long a call with a stream of requests may hold a place.
const UPLOAD_HOLD: Duration = Duration::from_secs(1);

/// Refuses what the server cannot bear.
pub(crate) fn layer<S>(
    live: Live,
    contract: &Contract,
    metrics: ServerMetrics,
) -> impl Layer<S, Service = Shed<S>> + Clone {
    let gate = Arc::new(Gate::new(live, contract, metrics));
    tower::layer::layer_fn(move |inner| Shed {
        inner,
        gate: gate.clone(),
    })
}

#[derive(Clone)]
pub(crate) struct Shed<S> {
    inner: S,
    gate: Arc<Gate>,
}

/// What all calls of a server pass.
struct Gate {
    live: Live,
    clock: Clock,
    /// The number of each method of the contract; all others have the next one.
    methods: HashMap<String, usize>,
    hasher: RandomState,
    admission: Mutex<Admission<oneshot::Sender<Fate>>>,
    metrics: ServerMetrics,
}

impl<S: Stack> Service<Request<Body>> for Shed<S> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        if !self.gate.live.load().server.overload.enabled || is_housekeeping(request.uri().path()) {
            return self.inner.call(request);
        }
        let visit = Visit::of(&request, &self.gate);
        match self.gate.arrive(visit) {
            Entry::Admitted(began) => {
                let place = Place::new(self.gate.clone(), visit, began);
                Box::pin(served(self.inner.call(request), place))
            }
            Entry::Refused => {
                let progress = &Call::of(&request).progress;
                let refused = self.gate.refuse(&visit, progress, "full");
                Box::pin(std::future::ready(Err(refused)))
            }
            Entry::Waits(waiting) => {
                let inner = self.inner.clone();
                let progress = Call::of(&request).progress.clone();
                Box::pin(async move {
                    let place = waiting.wait(&progress).await?;
                    served(inner.oneshot(request), place).await
                })
            }
        }
    }
}

/// The call, as far as admission is concerned.
#[derive(Clone, Copy)]
struct Visit {
    arrival: Arrival,
    is_unary: bool,
    /// The request is a stream.
    is_upload: bool,
}

impl Visit {
    fn of(request: &Request<Body>, gate: &Gate) -> Self {
        let call = Call::of(request);
        let method = call.method.as_ref();
        let (context, now) = (&call.context, tokio::time::Instant::now());
        let left = |deadline: tokio::time::Instant| nanos(deadline.saturating_duration_since(now));
        Self {
            arrival: Arrival {
                criticality: context.criticality(),
                method: method
                    .and_then(|method| gate.methods.get(&method.path).copied())
                    .unwrap_or(gate.methods.len()),
                caller: gate.hasher.hash_one(context.principal().name()),
                deadline: context
                    .deadline()
                    .map(|deadline| gate.clock.now().saturating_add(left(deadline))),
            },
            is_unary: method.is_some_and(|method| !method.streams()),
            is_upload: method.is_none_or(|method| method.client_streaming),
        }
    }
}

/// What came of asking for a place.
enum Entry {
    Admitted(Nanos),
    Refused,
    Waits(Waiting),
}

impl Gate {
    fn new(live: Live, contract: &Contract, metrics: ServerMetrics) -> Self {
        let paths = contract.methods().map(|method| method.path.clone());
        let methods: HashMap<_, _> = paths.zip(0..).collect();
        let admission = Admission::new(methods.len() + 1, &live.load().server.overload);
        Self {
            admission: Mutex::new(admission),
            live,
            clock: Clock::start(),
            methods,
            hasher: RandomState::new(),
            metrics,
        }
    }

    /// Those whose fate is decided are told before anybody else can look for them in the queue.
    fn locked<T>(
        &self,
        decide: impl FnOnce(
            &mut Admission<oneshot::Sender<Fate>>,
            &OverloadConfig,
            &mut Vec<(oneshot::Sender<Fate>, Fate)>,
        ) -> T,
    ) -> T {
        let live = self.live.load();
        let mut told = Vec::new();
        // Each change of it is whole before anything can panic.
        let mut admission = self
            .admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let decided = decide(&mut admission, &live.server.overload, &mut told);
        self.metrics.limit.set(admission.limit() as i64);
        self.metrics.waiting.set(admission.waiting() as i64);
        for (tell, fate) in told {
            let _ = tell.send(fate); // Whoever has gone takes its ticket back itself.
        }
        decided
    }

    fn arrive(self: &Arc<Self>, visit: Visit) -> Entry {
        let now = self.clock.now();
        let (tell, told) = oneshot::channel();
        let tell = || tell;
        let verdict = self.locked(|admission, config, decided| {
            admission.arrive(now, visit.arrival, config, tell, decided)
        });
        match verdict {
            Verdict::Admitted => Entry::Admitted(now),
            Verdict::Refused => Entry::Refused,
            Verdict::Waits(ticket, until) => Entry::Waits(Waiting {
                gate: self.clone(),
                visit,
                settled: false,
                ticket,
                told,
                patience: Duration::from_nanos(until.saturating_sub(now)),
            }),
        }
    }

    fn leave(&self, visit: &Visit, began: Nanos, departure: Departure) {
        let now = self.clock.now();
        self.locked(|admission, config, told| {
            admission.leave(now, &visit.arrival, began, departure, config, told);
        });
    }

    fn refuse(&self, visit: &Visit, progress: &Progress, reason: &'static str) -> Status {
        let criticality = visit.arrival.criticality;
        self.metrics.shed(criticality, reason);
        let pause = self.locked(|admission, _, _| admission.pause(criticality, rand::random()));
        status::refused(status::Refusal {
            progress,
            layer: "overload",
            policy: reason,
            reason: "OVERLOADED",
            message: "the server is overloaded".to_owned(),
            pause: Duration::from_nanos(pause),
        })
    }
}

/// A call in the queue. Dropped, it gives up its ticket, or the place that it has brought.
struct Waiting {
    gate: Arc<Gate>,
    visit: Visit,
    ticket: Ticket,
    told: oneshot::Receiver<Fate>,
    patience: Duration,
    /// Its fate is known here, so that there is nothing to give up.
    settled: bool,
}

impl Waiting {
    async fn wait(mut self, progress: &Progress) -> Result<Place, Status> {
        let fate = timeout(self.patience, &mut self.told).await;
        self.settled = fate.is_ok();
        match fate {
            Ok(Ok(Fate::Admitted(began))) => Ok(Place::new(self.gate.clone(), self.visit, began)),
            Ok(Ok(Fate::Expired)) => {
                Err(Origin::of("overload", "expired in the queue", progress).deadline_exceeded())
            }
            Ok(Ok(Fate::Displaced) | Err(_)) => {
                Err(self.gate.refuse(&self.visit, progress, "displaced"))
            }
            Err(_) => Err(self.gate.refuse(&self.visit, progress, "waited")),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let ticket = self.ticket;
        let cancelled = self.gate.locked(|admission, _, _| admission.cancel(ticket));
        if !cancelled && let Ok(Fate::Admitted(began)) = self.told.try_recv() {
            self.gate.leave(&self.visit, began, Departure::Unmeasured);
        }
    }
}

/// A place below the limit, for as long as it lives.
struct Place {
    gate: Arc<Gate>,
    visit: Visit,
    began: Nanos,
    departure: Departure,
}

impl Place {
    fn new(gate: Arc<Gate>, visit: Visit, began: Nanos) -> Self {
        // So it is if the call goes away before it is answered.
        let departure = if visit.is_unary {
            Departure::Abandoned
        } else {
            Departure::Unmeasured
        };
        Self {
            gate,
            visit,
            began,
            departure,
        }
    }

    fn end(mut self, answered: &Result<Response<Body>, Status>) {
        self.departure = match code_of(answered) {
            Code::Ok if self.visit.is_unary => Departure::Served,
            Code::DeadlineExceeded | Code::Cancelled if self.visit.is_unary => Departure::Abandoned,
            _ => Departure::Unmeasured,
        };
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.leave(&self.visit, self.began, self.departure);
    }
}

fn code_of(answered: &Result<Response<Body>, Status>) -> Code {
    match answered {
        Ok(response) => response
            .headers()
            .get(Status::GRPC_STATUS)
            .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes())),
        Err(status) => status.code(),
    }
}

/// The call, which holds its place until it is answered.
async fn served(
    calling: impl Future<Output = Result<Response<Body>, Status>>,
    place: Place,
) -> Result<Response<Body>, Status> {
    if !place.visit.is_upload {
        let answered = calling.await;
        place.end(&answered);
        return answered;
    }
    let mut calling = std::pin::pin!(calling);
    tokio::select! {
        biased;
        answered = &mut calling => {
            place.end(&answered);
            return answered;
        }
        () = sleep(UPLOAD_HOLD) => drop(place),
    }
    calling.await
}
