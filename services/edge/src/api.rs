//! One HTTP request from route to answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, Version, header, request::Parts};
use mesh::{CallContext, Principal};
use mesh_transcode::{Endpoint, Match, NoRoute, Payload};
use tracing::{Instrument as _, Span, field::Empty};
use uuid::Uuid;

use crate::{
    app::{App, Target},
    call, download,
    error::{Asked, Refusal},
    guard, negotiate,
    request::{self, IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED},
    socket, upload,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest request id that is taken over from a client.
const REQUEST_ID_CHARS_MAX: usize = 128;

/// The name of a request in logs, errors and answers.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

impl RequestId {
    /// The client's own, where it can stand in a header and a log line; else a new one. A number that could be a card's
    /// can not: the id is in every line about the request.
    fn of(headers: &http::HeaderMap) -> Self {
        let own = headers
            .get(REQUEST_ID)
            .and_then(|value| value.to_str().ok())
            .filter(|id| {
                (1..=REQUEST_ID_CHARS_MAX).contains(&id.len())
                    && id.bytes().all(|b| b.is_ascii_graphic())
                    && !could_hold_a_card_number(id)
            });
        Self(own.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
    }
}

/// Whether 13 to 19 digits with the check digit of cards (ISO/IEC 7812-1, Luhn) stand in an id, with or without dashes in
/// between. UUIDs, whose groups of digits may look so, are none.
fn could_hold_a_card_number(id: &str) -> bool {
    let luhn = |digits: &[u8]| {
        let place = |(place, digit): (usize, &u8)| match (place % 2, u32::from(digit - b'0')) {
            (0, digit) => digit,
            (_, digit) => digit * 2 / 10 + digit * 2 % 10,
        };
        digits.iter().rev().enumerate().map(place).sum::<u32>() % 10 == 0
    };
    let runs = id.split(|character: char| !character.is_ascii_digit() && character != '-');
    let mut runs = runs.map(|run| run.bytes().filter(u8::is_ascii_digit).collect::<Vec<u8>>());
    Uuid::try_parse(id).is_err()
        && runs.any(|digits| (13..=19).contains(&digits.len()) && luhn(&digits))
}

/// Around everything: the request's id in and out, the guard of an edge without keys, security headers.
pub(crate) async fn envelope(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::of(request.headers());
    request.extensions_mut().insert(id.clone());
    let one_by_one = request.version() < Version::HTTP_2;
    let open_here = app.keys.is_open() && !app.config.insecure;
    let allowed = if open_here {
        guard::check_origin(request.uri(), request.headers())
    } else {
        Ok(())
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.response(&id.0),
    };
    let headers = response.headers_mut();
    headers.extend(HeaderValue::from_str(&id.0).map(|value| (REQUEST_ID, value)));
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ] {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if one_by_one && app.stopping.is_cancelled() {
        // HTTP/1.1 has no GOAWAY: a request that is sent into a closing connection is lost.
        let close = HeaderValue::from_static("close");
        headers.entry(header::CONNECTION).or_insert(close);
    }
    response
}

/// Every request that is not for a page.
pub(crate) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    let started = Instant::now();
    let (mut parts, body) = request.into_parts();
    let id = parts
        .extensions
        .remove::<RequestId>()
        .expect("the envelope names every request");
    let mut known = Known {
        rpc: "-".to_owned(),
        deadline: None,
    };
    let outcome = serve(&app, &mut parts, body, &id, &mut known).await;
    let response = outcome.unwrap_or_else(|refusal| refusal.response(&id.0));
    let status = response.status();
    let elapsed = started.elapsed();
    let rpc = known.rpc.as_str();
    let is_late_for_client = known.is_late(status);
    if is_late_for_client {
        app.metrics.client_deadlines.inc();
    }
    app.metrics
        .answered(rpc, status.as_u16(), elapsed.as_secs_f64());
    let duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let verb = parts.method.as_str();
    if status.is_server_error() && !is_late_for_client {
        tracing::warn!(
            verb,
            rpc,
            status = status.as_u16(),
            duration_us,
            request.id = id.0,
            "answered"
        );
    } else {
        tracing::debug!(
            verb,
            rpc,
            status = status.as_u16(),
            duration_us,
            request.id = id.0,
            "answered"
        );
    }
    response
}

/// What is known of a request while it is served.
struct Known {
    /// The method's path; `-`: none is known.
    rpc: String,
    /// The client's own deadline.
    deadline: Option<Instant>,
}

impl Known {
    /// Whether that is the answer because the client had no more time: no fault of anybody here.
    fn is_late(&self, status: StatusCode) -> bool {
        // A service that is told how much is left counts from another moment and rounds down.
        let soon = Instant::now() + Duration::from_millis(10);
        status == StatusCode::GATEWAY_TIMEOUT && self.deadline.is_some_and(|until| until <= soon)
    }
}

async fn serve(
    app: &Arc<App>,
    parts: &mut Parts,
    body: Body,
    id: &RequestId,
    known: &mut Known,
) -> Result<Response, Refusal> {
    let path = parts.uri.path();
    if parts.method == Method::OPTIONS {
        return options(app, path);
    }
    // HEAD is GET whose body nobody sends.
    let verb = if parts.method == Method::HEAD {
        "GET"
    } else {
        parts.method.as_str()
    };
    let found = app.router.find(verb, path).map_err(|why| match why {
        NoRoute::Path => Refusal::not_found(),
        NoRoute::Verb { allow } => Refusal::method_not_allowed(&allow_header(allow)),
        NoRoute::Malformed(why) => Refusal::bad_request(&why),
    })?;
    found.endpoint.rpc().path().clone_into(&mut known.rpc);
    let target = app.target(&known.rpc);
    let principal = app.keys.authenticate(target.audience, &parts.headers)?;
    let call = Call {
        app,
        target,
        found: &found,
        id,
    };
    let context = call.context(parts, principal)?;
    known.deadline = context.deadline().map(tokio::time::Instant::into_std);
    let span = call.span(&context, verb);
    let answering = context.scope(call.answer(parts, body));
    let outcome = answering.instrument(span.clone()).await;
    let status = match &outcome {
        Ok(response) => response.status(),
        Err(refusal) => refusal.status(),
    };
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() && !known.is_late(status) {
        span.record("otel.status_code", "ERROR");
    }
    outcome
}

fn options(app: &App, path: &str) -> Result<Response, Refusal> {
    let allow = app.router.allowed(path);
    if allow.is_empty() {
        return Err(Refusal::not_found());
    }
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let value = HeaderValue::from_str(&allow_header(allow)).expect("verbs are ASCII");
    response.headers_mut().insert(header::ALLOW, value);
    Ok(response)
}

fn allow_header(mut verbs: Vec<String>) -> String {
    if verbs.iter().any(|verb| verb == "GET") {
        verbs.push("HEAD".to_owned());
    }
    verbs.push("OPTIONS".to_owned());
    verbs.sort();
    verbs.dedup();
    verbs.join(", ")
}

/// One request on its way to one RPC.
struct Call<'a> {
    app: &'a Arc<App>,
    target: &'a Target,
    found: &'a Match,
    id: &'a RequestId,
}

impl Call<'_> {
    /// The client's trace goes on; its deadline is the contract's, which the mesh knows, or a sooner one that it asks
    /// for in gRPC's words, as grpc-gateway's clients do.
    fn context(&self, parts: &Parts, principal: Principal) -> Result<CallContext, Refusal> {
        let traceparent = parts
            .headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok());
        let context = match traceparent {
            Some(traceparent) => CallContext::from_traceparent(traceparent, principal),
            None => CallContext::root(principal),
        };
        let context = context.with_request_id(&self.id.0);
        let Some(timeout) = request::one(&parts.headers, &mesh::header::GRPC_TIMEOUT)? else {
            return Ok(context);
        };
        context.with_timeout(timeout).ok_or_else(|| {
            let why = "expected 1 to 8 digits and a unit, one of H, M, S, m, u, n";
            Refusal::bad_field("Grpc-Timeout", why)
        })
    }

    /// For collectors, by OpenTelemetry's conventions for HTTP servers.
    fn span(&self, context: &CallContext, verb: &str) -> Span {
        let route = self.found.endpoint.path_template();
        mesh::span!(
            context,
            "server",
            otel.name = %format_args!("{verb} {route}"),
            otel.status_code = Empty,
            http.request.method = verb,
            http.route = route,
            http.response.status_code = Empty,
            url.scheme = "http",
            request.id = &*self.id.0,
        )
    }

    async fn answer(&self, parts: &mut Parts, body: Body) -> Result<Response, Refusal> {
        let rpc = self.found.endpoint.rpc();
        let _room = self.app.admit()?;
        if rpc.server_streaming() {
            return self.stream(parts, body).await;
        }
        if self.found.endpoint.response_payload() == Payload::Json
            && !negotiate::accepts(&parts.headers, negotiate::JSON)
        {
            return Err(negotiate::not_acceptable(negotiate::JSON));
        }
        if rpc.client_streaming() {
            let upload = upload::Upload {
                app: self.app,
                target: self.target,
                found: self.found,
            };
            let (answer, asked) = upload.run(parts, body).await?;
            return self.whole(&answer, asked);
        }
        let prepared =
            request::read(self.app, self.target.audience, self.found, parts, body).await?;
        let (key, asked) = (prepared.key.clone(), prepared.asked);
        let outcome = match call::unary(self.target, prepared).await {
            Ok(answer) => self.whole(&answer, asked),
            Err(status) => Err(Refusal::from_status(&status, asked)),
        };
        // The key comes back even when it was made up here, so that the client can repeat the command.
        let Some(key) = key else { return outcome };
        match outcome {
            Ok(mut response) => {
                let value = HeaderValue::from_str(&key);
                response
                    .headers_mut()
                    .extend(value.map(|value| (IDEMPOTENCY_KEY, value)));
                Ok(response)
            }
            Err(refusal) => Err(refusal.with_header(IDEMPOTENCY_KEY, &key)),
        }
    }

    /// The answer of a method that answers once.
    fn whole(&self, answer: &tonic::Response<Bytes>, _asked: Asked) -> Result<Response, Refusal> {
        let endpoint: &Endpoint = &self.found.endpoint;
        let broken = |error: &mesh_transcode::ResponseError| Refusal::internal(error);
        let decoded = endpoint
            .response(answer.get_ref().clone())
            .map_err(|e| broken(&e))?;
        let (content_type, body) = match endpoint.response_payload() {
            Payload::Raw => {
                let raw = decoded.raw();
                (download::media_type(&raw.content_type), raw.data)
            }
            Payload::Json | Payload::None => {
                let json = decoded.json().map_err(|e| broken(&e))?;
                (HeaderValue::from_static(negotiate::JSON), json.into())
            }
        };
        let mut response = Response::new(Body::from(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        if let Some(etag) = decoded.etag() {
            let value = HeaderValue::from_str(&format!("\"{etag}\""));
            headers.extend(value.map(|value| (header::ETAG, value)));
        }
        if answer
            .metadata()
            .get(IDEMPOTENCY_REPLAYED.as_str())
            .is_some_and(|value| value == "true")
        {
            headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        Ok(response)
    }

    /// The answers of a method that answers with a stream.
    async fn stream(&self, parts: &mut Parts, body: Body) -> Result<Response, Refusal> {
        let socket = socket::requested(parts).await?;
        let format = download::Format::of(&self.found.endpoint, &parts.headers, socket.is_some())?;
        let prepared =
            request::read(self.app, self.target.audience, self.found, parts, body).await?;
        if parts.method == Method::HEAD {
            return Ok(format.headers_only());
        }
        let room = self.app.admit_stream()?;
        let asked = prepared.asked;
        let answer = call::server_streaming(self.target, prepared).await;
        let messages = answer
            .map_err(|status| Refusal::from_status(&status, asked))?
            .into_inner();
        let stream = download::Stream::new(
            Arc::clone(self.app),
            Arc::clone(&self.found.endpoint),
            messages,
            room,
            self.id.0.clone(),
        );
        match socket {
            Some(upgrade) => Ok(socket::answer(upgrade, stream)),
            None => stream.respond(format).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_the_clients_own_unless_it_could_be_a_card_number() {
        let id_of = |value: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_str(value).unwrap());
            RequestId::of(&headers).0
        };
        for own in [
            "req-1",
            "01934567-8901-7123-8456-789012345678",
            "4242424242424241",
            "1700000000000000123456",
        ] {
            assert_eq!(id_of(own), own);
        }
        for card in [
            "4242424242424242",
            "card=4242-4242-4242-4242;",
            "378734493671000",
            "4222222222222",
        ] {
            assert!(Uuid::try_parse(&id_of(card)).is_ok(), "{card}");
        }
    }
}
