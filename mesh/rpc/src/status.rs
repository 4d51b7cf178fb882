//! The errors that the mesh itself answers with: each has a code, a reason, and says no internals.

use std::{collections::HashMap, time::Duration};

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of every error made by the mesh. Its metadata says what is nobody's business outside: addresses,
/// layers, attempts.
pub const ERROR_DOMAIN: &str = "mesh";

/// When a caller should try again after UNAVAILABLE, for want of better knowledge.
const RETRY_DELAY: Duration = Duration::from_secs(1);

fn status(code: Code, message: impl Into<String>, reason: &str, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    if retry.is_some() {
        details.set_retry_info(retry);
    }
    Status::with_error_details(code, message, details)
}

pub(crate) fn deadline_exceeded() -> Status {
    status(
        Code::DeadlineExceeded,
        "the call's deadline has passed",
        "DEADLINE_EXCEEDED",
        None,
    )
}

pub(crate) fn cancelled() -> Status {
    status(
        Code::Cancelled,
        "the call that this one was made for has ended",
        "CANCELLED",
        None,
    )
}

/// Where in the client a call ended without an answer: goes into the details of the error, and, except
/// for the address, into its message.
pub(crate) struct Origin<'a> {
    pub(crate) destination: &'a str,
    /// The layer, by the name of its file.
    pub(crate) layer: &'static str,
    /// How many attempts were made.
    pub(crate) attempt: u32,
    pub(crate) endpoint: Option<&'a str>,
}

impl Origin<'_> {
    pub(crate) fn unavailable(&self, what: &str, cause: Option<String>) -> Status {
        let message = format!("is unavailable: {what}");
        let reason = "DESTINATION_UNAVAILABLE";
        self.status(
            Code::Unavailable,
            &message,
            reason,
            Some(RETRY_DELAY),
            cause,
        )
    }

    /// What a failure of the connection means to a caller.
    pub(crate) fn transport(&self, code: Code, cause: String) -> Status {
        match code {
            Code::Internal => {
                let reason = "DESTINATION_BROKE_PROTOCOL";
                self.status(code, "broke the protocol", reason, None, Some(cause))
            }
            Code::ResourceExhausted => {
                let (message, reason) = ("asks for fewer calls", "DESTINATION_OVERLOADED");
                self.status(code, message, reason, Some(RETRY_DELAY), Some(cause))
            }
            _ => self.unavailable("the connection broke", Some(cause)),
        }
    }

    pub(crate) fn circuit_open(&self, max: usize) -> Status {
        let message = format!("has {max} attempts in flight, which is mesh.client.concurrent_max");
        let reason = "CIRCUIT_OPEN";
        self.status(Code::Unavailable, &message, reason, Some(RETRY_DELAY), None)
    }

    pub(crate) fn queue_full(&self, max: usize) -> Status {
        let message = format!("has {max} calls waiting, which is mesh.client.waiting_max");
        let reason = "QUEUE_FULL";
        self.status(Code::Unavailable, &message, reason, Some(RETRY_DELAY), None)
    }

    fn status(
        &self,
        code: Code,
        message: &str,
        reason: &str,
        retry: Option<Duration>,
        cause: Option<String>,
    ) -> Status {
        let Self {
            destination,
            layer,
            attempt,
            endpoint,
        } = self;
        let message =
            format!("destination \"{destination}\" {message} ({layer}, attempt {attempt})");
        let known = [
            ("destination", Some((*destination).to_owned())),
            ("layer", Some((*layer).to_owned())),
            ("attempt", Some(attempt.to_string())),
            ("endpoint", endpoint.map(str::to_owned)),
            ("cause", cause),
        ];
        let metadata: HashMap<String, String> = known
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect();
        let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, metadata);
        if retry.is_some() {
            details.set_retry_info(retry);
        }
        Status::with_error_details(code, message, details)
    }
}

pub(crate) fn unconfigured(destination: &str) -> Status {
    let message = format!(
        "destination \"{destination}\" is not configured: set mesh.destinations.{destination}"
    );
    status(
        Code::Unavailable,
        message,
        "DESTINATION_NOT_CONFIGURED",
        None,
    )
}

pub(crate) fn shutting_down() -> Status {
    status(
        Code::Unavailable,
        "the server is shutting down",
        "SHUTTING_DOWN",
        Some(RETRY_DELAY),
    )
}

/// Of a call that was left on a connection after its grace.
pub(crate) fn connection_ended() -> Status {
    status(
        Code::Unavailable,
        "the connection has reached its end, and the grace for calls on it too",
        "CONNECTION_ENDED",
        Some(RETRY_DELAY),
    )
}

/// Of a call that was in flight when its caller stopped being trusted.
pub(crate) fn distrusted() -> Status {
    status(
        Code::Unauthenticated,
        "the caller's certificate is not trusted any more",
        "CALLER_NOT_TRUSTED",
        None,
    )
}

pub(crate) fn unauthenticated() -> Status {
    status(
        Code::Unauthenticated,
        "the caller has shown no identity, and the method asks for one",
        "UNAUTHENTICATED",
        None,
    )
}

/// `denial` says no more than that the caller may not call the method.
pub(crate) fn permission_denied(denial: &str) -> Status {
    status(Code::PermissionDenied, denial, "PERMISSION_DENIED", None)
}

/// What the handler sees of a request that its caller did not finish. Not CANCELLED, which tonic's
/// decoder takes for the end of the request.
pub(crate) fn request_cut_off(error: &h2::Error) -> Status {
    let message = format!("the request was cut off: {error}");
    status(Code::Aborted, message, "REQUEST_CUT_OFF", None)
}

pub(crate) fn message_too_large(bytes: u64, max: usize) -> Status {
    let message = format!("a message of {bytes} bytes is over the limit of {max} bytes");
    status(Code::ResourceExhausted, message, "MESSAGE_TOO_LARGE", None)
}

pub(crate) fn malformed_header(name: &str) -> Status {
    status(
        Code::InvalidArgument,
        format!("header \"{name}\" is malformed"),
        "MALFORMED_HEADER",
        None,
    )
}

pub(crate) fn internal() -> Status {
    status(Code::Internal, "internal error", "INTERNAL", None)
}

/// A status as the trailers that end a response.
pub(crate) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    status
        .add_header(&mut trailers)
        .expect("the mesh's own messages and details fit into headers");
    trailers
}
