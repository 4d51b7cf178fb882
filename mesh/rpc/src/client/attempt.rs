//! One attempt of a call: a permit, an endpoint, a place on a connection, an answer; and at the end of
//! its stream what the balancer and the outlier detection learn from it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header::USER_AGENT, uri};
use http_body::Frame;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

use super::{
    balance::Tried,
    circuit::Permit,
    clock::{Nanos, float, millis},
    connection::{Broken, Lease, Received, is_own_reset},
    destination::{Destination, Method},
    endpoint::Endpoint,
    failure::{Cause, Failure, Reach},
    outlier::Outcome,
};
use crate::{
    stack::{Call, Progress},
    wire::{self, code_in, code_of},
};

const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("commerce-mesh/", env!("CARGO_PKG_VERSION")));

/// What the retry layer stands on: something that makes attempts.
pub(crate) trait Attempts: Clone + Send + Sync + 'static {
    /// Makes the `number`th attempt of a call, at an endpoint that was not tried before if there is one. Takes the
    /// request when it is sent: if it is left, nothing of it was.
    fn attempt<'a>(
        &'a self,
        request: &'a mut Option<Request<Body>>,
        number: u32,
        tried: &'a Tried,
    ) -> impl Future<Output = Result<Response<Body>, Failure>> + Send + 'a;

    /// Whether another endpoint than those tried could take one.
    fn has_other(&self, tried: &Tried) -> bool;
}

impl Attempts for Arc<Destination> {
    async fn attempt(
        &self,
        request: &mut Option<Request<Body>>,
        number: u32,
        tried: &Tried,
    ) -> Result<Response<Body>, Failure> {
        let sending = request.as_mut().expect("an attempt has its request");
        let progress = Call::of(sending).progress.clone();
        progress.attempt();
        let Some(permit) = self.circuit.enter() else {
            self.shared.metrics.refused("circuit");
            let cause = Cause::CircuitOpen(self.circuit.max());
            return Err(Failure::unplaced(cause));
        };
        let (endpoint, lease) = match self.place(tried).await {
            Ok(place) => place,
            Err(cause) => {
                if let Cause::QueueFull(_) = cause {
                    self.shared.metrics.refused("queue");
                }
                return Err(Failure::unplaced(cause));
            }
        };
        tried.add(endpoint.id);
        progress.at(endpoint.address());
        let flight = Flight::begin(self.clone(), endpoint, lease, permit, sending);
        flight.address(sending);
        let answered = flight.lease.call(request).await;
        flight.answered(answered, number)
    }

    fn has_other(&self, tried: &Tried) -> bool {
        Destination::has_other(self, tried)
    }
}

/// An attempt at an endpoint, from its choice to the end of the answer's stream. Dropped before, it was
/// abandoned.
struct Flight {
    destination: Arc<Destination>,
    endpoint: Arc<Endpoint>,
    lease: Lease,
    method: Arc<Method>,
    progress: Arc<Progress>,
    deadline: Option<Instant>,
    /// The answer is one message, whose time counts to its end.
    is_unary: bool,
    began: Nanos,
    ended: bool,
    _permit: Permit,
}

impl Flight {
    fn begin(
        destination: Arc<Destination>,
        endpoint: Arc<Endpoint>,
        lease: Lease,
        permit: Permit,
        request: &Request<Body>,
    ) -> Self {
        let call = Call::of(request);
        let method = destination.method(request.uri().path()).clone();
        method.metrics.begin();
        endpoint.load.begin();
        Self {
            progress: call.progress.clone(),
            deadline: call.context.deadline(),
            is_unary: call.method.as_ref().is_some_and(|method| !method.streams()),
            began: destination.shared.clock.now(),
            destination,
            endpoint,
            lease,
            method,
            ended: false,
            _permit: permit,
        }
    }

    /// What the answer's headers make of the attempt. (No future: what one needs after its last wait, it has all along.)
    fn answered(
        mut self,
        answered: Result<(Response<()>, Received), Broken>,
        number: u32,
    ) -> Result<Response<Body>, Failure> {
        let (head, received) = match answered {
            Ok(answered) => answered,
            Err(broken) => {
                let blames_nobody = broken.error.is_own() || broken.error.is_goaway();
                let failure = Failure::broken(broken, self.endpoint.address().clone());
                if blames_nobody || failure.reach == Reach::NoHandler {
                    self.take_back(failure.code());
                } else {
                    self.end(failure.code());
                }
                return Err(failure);
            }
        };
        let code = code_of(&head);
        if received.is_end_stream() && code.is_none() {
            self.end(Code::Unavailable);
            return Err(Failure::cut_off(self.endpoint.address().clone()));
        }
        if let Some(code) = code {
            if head.status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE {
                self.take_back(code); // It is the request's fault.
            } else {
                self.end(code);
            }
            let body = AnswerBody {
                received,
                flight: None,
                number,
            };
            return Ok(head.map(|()| Body::new(body)));
        }
        if !self.is_unary {
            let now = self.destination.shared.clock.now();
            let latency = now.saturating_sub(self.began);
            self.endpoint.load.answered(latency, now, self.decay());
        }
        let body = AnswerBody {
            received,
            flight: Some(self),
            number,
        };
        Ok(head.map(|()| Body::new(body)))
    }

    /// Says where the request goes, and how much time is left: now, not when the call began, because
    /// earlier attempts have used some of it.
    fn address(&self, request: &mut Request<Body>) {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        let target = self.endpoint.pool.target();
        parts.scheme = Some(self.destination.shared.connector.scheme(target));
        parts.authority = Some(target.authority.clone());
        if parts.path_and_query.is_none() {
            parts.path_and_query = Some(uri::PathAndQuery::from_static("/"));
        }
        *request.uri_mut() = Uri::from_parts(parts).expect("all three parts are there");
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        wire::set_timeout(headers, self.deadline);
    }

    /// The connection went away before the request, which the pool knows, for whatever reason the peer may have had (one call
    /// can end it for all others), or this end gave the call up, or asked for what nobody would take: that says nothing of the endpoint. (A server that restarts in good order under many calls would be
    /// ejected for it.)
    fn take_back(&mut self, code: Code) {
        self.ended = true;
        let now = self.destination.shared.clock.now();
        self.record(code, now.saturating_sub(self.began));
    }

    /// The attempt has come to a status.
    fn end(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let now = self.destination.shared.clock.now();
        let latency = now.saturating_sub(self.began);
        let outcome = match code {
            Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss => Outcome::Failure,
            Code::DeadlineExceeded => Outcome::Late,
            _ => Outcome::Success,
        };
        let load = &self.endpoint.load;
        if outcome == Outcome::Failure || code == Code::ResourceExhausted {
            load.failed(latency, now, self.decay());
        } else if outcome == Outcome::Late {
            load.abandoned(latency, now, self.decay());
        } else if self.is_unary {
            load.answered(latency, now, self.decay());
        }
        self.conclude(outcome, code, latency, now);
    }

    fn conclude(&self, outcome: Outcome, code: Code, latency: Nanos, now: Nanos) {
        self.destination.conclude(&self.endpoint, outcome, now);
        self.record(code, latency);
    }

    fn record(&self, code: Code, latency: Nanos) {
        let seconds = float(latency) / 1e9;
        self.method.metrics.end(code, seconds, &self.progress);
    }

    fn decay(&self) -> Nanos {
        millis(self.destination.shared.live.load().client.balance.decay_ms)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.endpoint.load.end();
        if self.ended {
            return;
        }
        let now = self.destination.shared.clock.now();
        let latency = now.saturating_sub(self.began);
        if self.is_unary {
            self.endpoint.load.abandoned(latency, now, self.decay());
        }
        let is_late = self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline);
        if is_late && self.is_unary {
            self.conclude(Outcome::Late, Code::DeadlineExceeded, latency, now);
        } else {
            self.record(Code::Cancelled, latency);
        }
    }
}

/// An answer that ends with trailers or with an error, never in silence: a callee that dies in the
/// middle of a stream, or a proxy that cuts it off, is UNAVAILABLE and not an end.
struct AnswerBody {
    received: Received,
    /// `None`: it has ended.
    flight: Option<Flight>,
    number: u32,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let Some(flight) = &mut this.flight else {
            return Poll::Ready(None);
        };
        let mut is_own = false;
        let failure = match ready!(this.received.poll_frame(cx)) {
            Some(Ok(frame)) => {
                flight.lease.hear();
                if let Some(trailers) = frame.trailers_ref() {
                    flight.end(code_in(trailers).unwrap_or(Code::Unknown));
                    this.flight = None;
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Some(Err(error)) => {
                is_own = is_own_reset(&error);
                Failure {
                    cause: Cause::Http2(error),
                    ..Failure::cut_off(flight.endpoint.address().clone())
                }
            }
            None => Failure::cut_off(flight.endpoint.address().clone()),
        };
        if is_own {
            flight.take_back(failure.code());
        } else {
            flight.end(failure.code());
        }
        let status = failure.into_status(&flight.destination.name, this.number);
        tracing::debug!(destination = &*flight.destination.name, %status, "answer broke off");
        this.flight = None;
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.flight.is_none()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::default()
    }
}
