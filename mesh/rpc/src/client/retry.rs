//! Layer: a call that failed is tried again where that is safe, worth it and affordable.
//!
//! Safe: the contract says NO_SIDE_EFFECTS or IDEMPOTENT, or the request provably reached no handler
//! ("transparent", gRFC A6). Worth it: the failure is UNAVAILABLE, the callee has not said otherwise
//! (`grpc-retry-pushback-ms`), there is time left, and the call is not itself a retry of somebody above.
//! Affordable: the destination's budget pays for it (`budget.rs`). Whoever gives up says so to those
//! above in the same words, so that they do not begin all over again.
//!
//! Deliberately never after an answer has begun: its caller may have read it.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status, body::Body};
use tower::Service;

use super::{
    attempt::Attempts,
    balance::Tried,
    config::RetryConfig,
    destination::{Destination, Method},
    failure::{Failure, Reach},
    replay::{Copy, Message},
};
use crate::{
    contract::Idempotency,
    stack::{Answer, Call},
    wire::{code_of, header},
};

/// The longest pause that a callee may ask for.
const PUSHBACK_MAX: Duration = Duration::from_mins(1);
/// How often a request that provably reached no handler is sent again.
const TRANSPARENT_MAX: u32 = 16;
/// How many of these wait for nothing.
const TRANSPARENT_AT_ONCE: u32 = 3;

/// Retries and hedges, at the bottom of the client stack. `A` makes the attempts; the destination holds
/// what is remembered between calls.
#[derive(Clone)]
pub(crate) struct Retry<A> {
    attempts: A,
    destination: Arc<Destination>,
}

impl<A> Retry<A> {
    pub(crate) fn new(attempts: A, destination: Arc<Destination>) -> Self {
        Self {
            attempts,
            destination,
        }
    }
}

impl<A: Attempts> Service<Request<Body>> for Retry<A> {
    type Response = Response<Body>;
    type Error = Status;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(())) // Waiting for a connection belongs to the call, under its deadline.
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let (this, mut copy) = (self.clone(), Box::new(Copy::of(request)));
        Box::pin(async move { this.run(&mut copy).await })
    }
}

/// What an attempt came to, if not to an answer for the caller.
enum Setback {
    /// The callee's own refusal.
    Answered(Response<Body>, Code),
    Failed(Failure),
}

/// What is known of a call while its attempts go on.
struct Trial {
    method: Arc<Method>,
    deadline: Option<Instant>,
    /// May do its work twice, and was kept.
    repeatable: bool,
    hedgeable: bool,
    /// Attempts that somebody above has made before this call.
    above: u32,
    /// Attempts that may have reached a handler.
    sent: u32,
    /// Attempts that have not.
    unsent: u32,
    /// A server has refused one: the first is free, no further one.
    turned_away: bool,
    /// Second attempts that were begun beside the first, which is counted above.
    hedged: AtomicU32,
    tried: Tried,
}

/// What to do after a setback.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Retry(Duration),
    Transparent(Duration),
    /// Nobody should try again who is further up: it was tried here.
    GiveUp(&'static str),
    /// Nothing to be done here.
    Stop,
}

impl<A: Attempts> Retry<A> {
    async fn run(&self, copy: &mut Copy) -> Result<Response<Body>, Status> {
        let destination = &*self.destination;
        let config = &destination.shared.live.load().client.retry.clone();
        destination.budget.earn(destination.shared.clock.now());
        let mut trial = Trial::of(copy.request(), destination);
        copy.keep(config.replay_bytes_max).await?;
        trial.repeatable &= copy.message.is_some();
        loop {
            let (request, message) = copy.next();
            if let Some(request) = request {
                trial.mark(request.headers_mut());
            }
            let setback = match self.once(request, message, &trial).await {
                Ok(response) => match code_of(&response) {
                    None | Some(Code::Ok) => return Ok(response),
                    Some(code) => Setback::Answered(response, code),
                },
                Err(failure) => Setback::Failed(failure),
            };
            let next = trial.next(&setback, config, rand::random());
            let metrics = &destination.shared.metrics;
            let pause = match next {
                Next::Transparent(pause) if copy.is_left() => {
                    metrics.again("transparent");
                    pause
                }
                Next::Retry(pause) => {
                    if !destination.budget.spend(destination.shared.clock.now()) {
                        metrics.given_up("budget");
                        return setback.end(&trial, &destination.name, true);
                    }
                    metrics.again("retry");
                    pause
                }
                Next::GiveUp(reason) => {
                    metrics.given_up(reason);
                    return setback.end(&trial, &destination.name, true);
                }
                Next::Transparent(_) | Next::Stop => {
                    return setback.end(&trial, &destination.name, false);
                }
            };
            tracing::debug!(
                destination = &*destination.name,
                attempts = trial.attempts(),
                ?pause,
                "trying again"
            );
            if !pause.is_zero() {
                sleep(pause).await;
            }
        }
    }

    /// One attempt; or two at a time, when the first is slow and may be hedged.
    async fn once(
        &self,
        request: &mut Option<Request<Body>>,
        message: Option<&Message>,
        trial: &Trial,
    ) -> Result<Response<Body>, Failure> {
        let number = trial.attempts() + 1;
        let mut attempt = pin!(self.attempts.attempt(request, number, &trial.tried));
        let Some(message) = message.filter(|_| trial.hedgeable && number == 1) else {
            return attempt.await;
        };
        let hedging = self.destination.hedging();
        let latencies = &trial.method.latencies;
        let began = Instant::now();
        let answer = match latencies.percentile() {
            None => attempt.await,
            Some(percentile) => {
                let delay = percentile.max(Duration::from_millis(hedging.delay_min_ms));
                match timeout(delay, attempt.as_mut()).await {
                    Ok(answer) => answer,
                    // What few calls need is not part of every call's future.
                    Err(_) => Box::pin(self.hedged(attempt, message, trial)).await,
                }
            }
        };
        if answer.is_ok() {
            latencies.record(began.elapsed(), hedging.percentile, hedging.calls_min);
        }
        answer
    }

    /// The first answer of two attempts that the other could not better; the other one is dropped, which resets its stream.
    async fn hedged(
        &self,
        first: Pin<&mut impl Future<Output = Result<Response<Body>, Failure>>>,
        message: &Message,
        trial: &Trial,
    ) -> Result<Response<Body>, Failure> {
        let destination = &*self.destination;
        let metrics = &destination.shared.metrics;
        if !self.attempts.has_other(&trial.tried) {
            return first.await;
        }
        if !destination.budget.spend(destination.shared.clock.now()) {
            metrics.given_up("budget");
            return first.await;
        }
        metrics.again("hedge");
        trial.hedged.store(1, Relaxed);
        let mut request = message.again();
        mark(request.headers_mut(), trial.above + 1);
        let mut request = Some(request);
        let second = pin!(self.attempts.attempt(&mut request, 2, &trial.tried));
        match select(first, second).await {
            Either::Left((answer, _)) | Either::Right((answer, _)) if is_final(&answer) => answer,
            Either::Left((_, second)) => second.await,
            Either::Right((_, first)) => first.await,
        }
    }
}

/// Whether an answer is one that would not be tried again: it ends the call (gRFC A6).
fn is_final(answer: &Result<Response<Body>, Failure>) -> bool {
    answer.as_ref().is_ok_and(|response| {
        !matches!(
            code_of(response),
            Some(Code::Unavailable | Code::ResourceExhausted)
        )
    })
}

impl Trial {
    fn of(request: &Request<Body>, destination: &Destination) -> Self {
        let call = Call::of(request);
        let live = destination.shared.live.load();
        let config = &live.client;
        let above = call.context.previous_attempts();
        let unary = call
            .method
            .as_ref()
            .filter(|method| !method.client_streaming);
        let level = unary.map_or(Idempotency::Unknown, |method| method.idempotency);
        Self {
            method: destination.method(request.uri().path()).clone(),
            deadline: call.context.deadline(),
            repeatable: level.is_repeatable(),
            hedgeable: config.hedge.enabled
                && above == 0
                && level == Idempotency::NoSideEffects
                && unary.is_some_and(|method| !method.server_streaming),
            above,
            sent: 0,
            unsent: 0,
            hedged: AtomicU32::new(0),
            turned_away: false,
            tried: Tried::default(),
        }
    }

    fn attempts(&self) -> u32 {
        self.sent + self.unsent + self.hedged.load(Relaxed)
    }

    fn mark(&self, headers: &mut HeaderMap) {
        mark(
            headers,
            self.above
                .saturating_add(self.sent + self.hedged.load(Relaxed)),
        );
    }

    /// Counts the setback and decides.
    fn next(&mut self, setback: &Setback, config: &RetryConfig, random: f64) -> Next {
        let pause = |attempt| jitter(attempt, config.backoff_ms, config.backoff_max_ms, random);
        let (code, reach, pushback, hopeless_for) = match setback {
            Setback::Answered(response, code) => {
                let pushback = Pushback::of(response.headers());
                (*code, Reach::Handler, pushback, Duration::ZERO)
            }
            Setback::Failed(failure) => (
                failure.code(),
                failure.reach,
                Pushback::None,
                failure.hopeless_for(),
            ),
        };
        let next = match reach {
            Reach::Refused => {
                self.unsent += 1;
                return Next::Stop;
            }
            Reach::Nowhere => {
                self.unsent += 1;
                // Who has been gone for long is not waited for.
                let longest = Duration::from_millis(config.backoff_max_ms);
                if self.attempts() >= config.attempts_max || hopeless_for > longest {
                    return Next::Stop;
                }
                Next::Transparent(pause(self.unsent).max(hopeless_for))
            }
            Reach::NoHandler => {
                self.unsent += 1;
                if self.unsent > TRANSPARENT_MAX {
                    return Next::Stop;
                }
                match self.unsent.saturating_sub(TRANSPARENT_AT_ONCE) {
                    0 => Next::Transparent(Duration::ZERO),
                    late => Next::Transparent(pause(late)),
                }
            }
            Reach::TurnedAway if !self.turned_away => {
                self.unsent += 1;
                self.turned_away = true;
                Next::Transparent(Duration::ZERO)
            }
            Reach::TurnedAway => {
                self.unsent += 1;
                self.affordable(pause(self.unsent), config)
            }
            Reach::Handler => {
                self.sent += 1;
                let is_retryable = code == Code::Unavailable
                    || (code == Code::ResourceExhausted && matches!(pushback, Pushback::After(_)));
                if !self.repeatable || !is_retryable {
                    return Next::Stop;
                }
                match pushback {
                    Pushback::Never => return Next::GiveUp("pushback"),
                    Pushback::After(delay) if delay > PUSHBACK_MAX => {
                        return Next::GiveUp("pushback");
                    }
                    Pushback::After(delay) => self.affordable(delay, config),
                    Pushback::None => self.affordable(pause(self.sent), config),
                }
            }
        };
        let (Next::Retry(pause) | Next::Transparent(pause)) = next else {
            return next;
        };
        let in_time = |deadline| Instant::now() + pause < deadline;
        if self.deadline.is_none_or(in_time) {
            next
        } else {
            Next::Stop
        }
    }
}

impl Trial {
    /// An attempt that the budget has to pay for, if it may be made at all.
    fn affordable(&self, pause: Duration, config: &RetryConfig) -> Next {
        if self.above > 0 {
            Next::GiveUp("retried_above")
        } else if self.attempts() >= config.attempts_max {
            Next::GiveUp("attempts")
        } else {
            Next::Retry(pause)
        }
    }
}

impl Setback {
    /// What the caller gets. `exhausted`: tells those above that trying again was tried.
    fn end(
        self,
        trial: &Trial,
        destination: &str,
        exhausted: bool,
    ) -> Result<Response<Body>, Status> {
        const NEVER: &str = "-1";
        match self {
            Self::Answered(mut response, _) => {
                if exhausted {
                    let never = HeaderValue::from_static(NEVER);
                    response
                        .headers_mut()
                        .insert(&header::RETRY_PUSHBACK, never);
                }
                Ok(response)
            }
            Self::Failed(failure) => {
                tracing::debug!(destination, ?failure, "call failed");
                let mut status = failure.into_status(destination, trial.attempts());
                if exhausted && let Ok(never) = NEVER.parse() {
                    status
                        .metadata_mut()
                        .insert(header::RETRY_PUSHBACK.as_str(), never);
                }
                Err(status)
            }
        }
    }
}

/// What the callee says of another attempt (gRFC A6).
#[derive(Debug, PartialEq, Eq)]
enum Pushback {
    None,
    After(Duration),
    Never,
}

impl Pushback {
    /// Negative or not a number: no retry.
    fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(&header::RETRY_PUSHBACK) else {
            return Self::None;
        };
        let ms = value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        ms.map_or(Self::Never, |ms| {
            Self::After(Duration::from_millis(ms.into()))
        })
    }
}

/// Says how often the call was made before; 0 says nothing.
fn mark(headers: &mut HeaderMap, previous: u32) {
    if previous == 0 {
        headers.remove(&header::PREVIOUS_ATTEMPTS);
    } else {
        headers.insert(&header::PREVIOUS_ATTEMPTS, HeaderValue::from(previous));
    }
}

/// Exponential, with "full jitter": between nothing and twice the mean ("Exponential Backoff And
/// Jitter", Brooker 2015). `attempt` counts from 1, `random` is below 1.
pub(crate) fn jitter(attempt: u32, mean_ms: u64, mean_max_ms: u64, random: f64) -> Duration {
    let doubled = mean_ms.saturating_mul(1 << (attempt - 1).min(20));
    let mean = Duration::from_millis(doubled.min(mean_max_ms));
    mean.mul_f64(2.0 * random)
}
