//! The errors that the mesh itself answers with: each has a code, a reason, and says which layer made it, by which
//! policy, at which attempt and endpoint ([`Origin`]).
//!
//! Deliberately without internals in messages: these reach clients, the details of the mesh do not leave the edge.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{stack::Progress, wire::header};

/// `ErrorInfo.domain` of every error made by the mesh. Its metadata says what is nobody's business outside: addresses,
/// layers, attempts.
pub const ERROR_DOMAIN: &str = "mesh";

/// When a caller should try again after UNAVAILABLE, for want of better knowledge.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Where in the mesh a call ended, for whoever has to find out why: goes into the details of its error and, except for
/// the address, into the message of those that a connection has brought about.
pub(crate) struct Origin<'a> {
    /// The layer, by the name of its file.
    pub(crate) layer: &'static str,
    /// What decided there: the key of a configuration, a header, an option of the contract, an event.
    pub(crate) policy: &'a str,
    /// Which attempt it was, or how many there were; 0: none was made.
    pub(crate) attempt: u32,
    /// Where the last one went; on the server, the address that it came to.
    pub(crate) endpoint: Option<Arc<str>>,
}

impl<'a> Origin<'a> {
    /// In a layer that has the call before it.
    pub(crate) fn of(layer: &'static str, policy: &'a str, progress: &Progress) -> Self {
        Self {
            layer,
            policy,
            attempt: progress.attempts(),
            endpoint: progress.endpoint(),
        }
    }

    /// In a layer that comes before any attempt.
    pub(crate) fn before(layer: &'static str, policy: &'a str) -> Self {
        Self {
            layer,
            policy,
            attempt: 0,
            endpoint: None,
        }
    }

    fn status(
        self,
        code: Code,
        message: impl Into<String>,
        reason: &str,
        retry: Option<Duration>,
        more: impl IntoIterator<Item = (&'static str, Option<String>)>,
    ) -> Status {
        let known = [
            ("layer", Some(self.layer.to_owned())),
            ("policy", Some(self.policy.to_owned())),
            ("attempt", Some(self.attempt.to_string())),
            ("endpoint", self.endpoint.as_deref().map(str::to_owned)),
        ];
        let metadata: HashMap<String, String> = known
            .into_iter()
            .chain(more)
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect();
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        Status::with_error_details(code, message, details)
    }

    pub(crate) fn deadline_exceeded(self) -> Status {
        let (code, message) = (Code::DeadlineExceeded, "the call's deadline has passed");
        self.status(code, message, "DEADLINE_EXCEEDED", None, [])
    }

    pub(crate) fn cancelled(self) -> Status {
        let message = "the call that this one was made for has ended";
        self.status(Code::Cancelled, message, "CANCELLED", None, [])
    }

    pub(crate) fn shutting_down(self) -> Status {
        let (code, message) = (Code::Unavailable, "the server is shutting down");
        self.status(code, message, "SHUTTING_DOWN", Some(RETRY_DELAY), [])
    }

    /// Of a call that was left on a connection after its grace.
    pub(crate) fn connection_ended(self) -> Status {
        let message = "the connection has reached its end, and the grace for calls on it too";
        let (code, reason) = (Code::Unavailable, "CONNECTION_ENDED");
        self.status(code, message, reason, Some(RETRY_DELAY), [])
    }

    /// Of a call that was in flight when its caller stopped being trusted.
    pub(crate) fn distrusted(self) -> Status {
        let message = "the caller's certificate is not trusted any more";
        let (code, reason) = (Code::Unauthenticated, "CALLER_NOT_TRUSTED");
        self.status(code, message, reason, None, [])
    }

    pub(crate) fn unauthenticated(self) -> Status {
        let message = "the caller has shown no identity, and the method asks for one";
        let (code, reason) = (Code::Unauthenticated, "UNAUTHENTICATED");
        self.status(code, message, reason, None, [])
    }

    /// `denial` says no more than that the caller may not call the method.
    pub(crate) fn permission_denied(self, denial: &str) -> Status {
        let (code, reason) = (Code::PermissionDenied, "PERMISSION_DENIED");
        self.status(code, denial, reason, None, [])
    }

    /// What the handler sees of a request that its caller did not finish. Not CANCELLED, which tonic's
    /// decoder takes for the end of the request.
    pub(crate) fn request_cut_off(self, error: &h2::Error) -> Status {
        let message = format!("the request was cut off: {error}");
        self.status(Code::Aborted, message, "REQUEST_CUT_OFF", None, [])
    }

    pub(crate) fn message_too_large(self, bytes: u64, max: usize) -> Status {
        let message = format!("a message of {bytes} bytes is over the limit of {max} bytes");
        let code = Code::ResourceExhausted;
        self.status(code, message, "MESSAGE_TOO_LARGE", None, [])
    }

    /// A fault on purpose.
    pub(crate) fn injected(self, code: Code) -> Status {
        let message = "a fault was injected on purpose";
        self.status(code, message, "FAULT_INJECTED", None, [])
    }

    pub(crate) fn internal(self) -> Status {
        self.status(Code::Internal, "internal error", "INTERNAL", None, [])
    }

    pub(crate) fn unconfigured(self, destination: &str) -> Status {
        let message = format!(
            "destination \"{destination}\" is not configured: set {}",
            self.policy
        );
        let reason = "DESTINATION_NOT_CONFIGURED";
        let more = [("destination", Some(destination.to_owned()))];
        self.status(Code::Unavailable, message, reason, None, more)
    }

    pub(crate) fn unavailable(self, to: &str, what: &str, cause: Option<String>) -> Status {
        let (message, reason) = (format!("is unavailable: {what}"), "DESTINATION_UNAVAILABLE");
        self.unserved(
            to,
            Code::Unavailable,
            &message,
            reason,
            Some(RETRY_DELAY),
            cause,
        )
    }

    /// What a failure of the connection means to a caller.
    pub(crate) fn transport(self, to: &str, code: Code, cause: String) -> Status {
        match code {
            Code::Internal => {
                let (message, reason) = ("broke the protocol", "DESTINATION_BROKE_PROTOCOL");
                self.unserved(to, code, message, reason, None, Some(cause))
            }
            Code::ResourceExhausted => {
                let (message, reason) = ("asks for fewer calls", "DESTINATION_OVERLOADED");
                self.unserved(to, code, message, reason, Some(RETRY_DELAY), Some(cause))
            }
            _ => self.unavailable(to, "the connection broke", Some(cause)),
        }
    }

    pub(crate) fn circuit_open(self, to: &str, max: usize) -> Status {
        let message = format!("has {max} attempts in flight, which is {}", self.policy);
        let (code, reason) = (Code::Unavailable, "CIRCUIT_OPEN");
        self.unserved(to, code, &message, reason, Some(RETRY_DELAY), None)
    }

    pub(crate) fn queue_full(self, to: &str, max: usize) -> Status {
        let message = format!("has {max} calls waiting, which is {}", self.policy);
        let (code, reason) = (Code::Unavailable, "QUEUE_FULL");
        self.unserved(to, code, &message, reason, Some(RETRY_DELAY), None)
    }

    /// By a destination; `message` says what it does.
    fn unserved(
        self,
        to: &str,
        code: Code,
        message: &str,
        reason: &str,
        retry: Option<Duration>,
        cause: Option<String>,
    ) -> Status {
        let Self { layer, attempt, .. } = self;
        let message = format!("destination \"{to}\" {message} ({layer}, attempt {attempt})");
        let more = [("destination", Some(to.to_owned())), ("cause", cause)];
        self.status(code, message, reason, retry, more)
    }
}

/// A call that is refused before its handler begins, and that may be made again later.
pub(crate) struct Refusal<'a> {
    pub(crate) progress: &'a Progress,
    /// The layer, by the name of its file.
    pub(crate) layer: &'static str,
    /// Which rule of the layer.
    pub(crate) policy: &'a str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// After which the caller may try again.
    pub(crate) pause: Duration,
}

/// RESOURCE_EXHAUSTED with RetryInfo, and with the pushback that gRPC clients obey (gRFC A6).
pub(crate) fn refused(refusal: Refusal<'_>) -> Status {
    let (code, pause) = (Code::ResourceExhausted, Some(refusal.pause));
    let origin = Origin::of(refusal.layer, refusal.policy, refusal.progress);
    let mut status = origin.status(code, refusal.message, refusal.reason, pause, []);
    let pause_ms = refusal.pause.as_nanos().div_ceil(1_000_000);
    if let Ok(pushback) = pause_ms.to_string().parse() {
        status
            .metadata_mut()
            .insert(header::RETRY_PUSHBACK.as_str(), pushback);
    }
    status
}

/// Before anything is known of the call.
pub(crate) fn malformed_header(name: &str) -> Status {
    let message = format!("header \"{name}\" is malformed");
    let (code, reason) = (Code::InvalidArgument, "MALFORMED_HEADER");
    Origin::before("context", name).status(code, message, reason, None, [])
}

/// A status as the trailers that end a response.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status
        .add_header(&mut trailers)
        .expect("the mesh's own messages and details fit into headers");
    trailers
}
