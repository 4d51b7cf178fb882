//! The errors that the mesh itself answers with: each has a code, a reason, and says no internals.

use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of every error made by the mesh.
const DOMAIN: &str = "mesh";

/// When a caller should try again after UNAVAILABLE, for want of better knowledge.
const RETRY_DELAY: Duration = Duration::from_secs(1);

fn status(code: Code, message: impl Into<String>, reason: &str, retry: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, []);
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

pub(crate) fn unavailable(destination: &str) -> Status {
    let message = format!("destination \"{destination}\" is unavailable");
    status(
        Code::Unavailable,
        message,
        "DESTINATION_UNAVAILABLE",
        Some(RETRY_DELAY),
    )
}

/// What a failure of the connection means to a caller, given what tonic makes of it. tonic says UNKNOWN
/// or CANCELLED where the connection broke: neither tells a caller that it may try again.
pub(crate) fn transport(code: Code, destination: &str) -> Status {
    match code {
        Code::Internal => {
            let message = format!("destination \"{destination}\" broke the protocol");
            status(code, message, "DESTINATION_BROKE_PROTOCOL", None)
        }
        Code::ResourceExhausted => {
            let message = format!("destination \"{destination}\" asks for fewer calls");
            status(code, message, "DESTINATION_OVERLOADED", Some(RETRY_DELAY))
        }
        _ => unavailable(destination),
    }
}

pub(crate) fn cut_off(destination: &str) -> Status {
    let message = format!("destination \"{destination}\" cut the answer off");
    status(
        Code::Unavailable,
        message,
        "DESTINATION_UNAVAILABLE",
        Some(RETRY_DELAY),
    )
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
