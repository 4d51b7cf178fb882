//! Why an attempt came to no answer, what that means for another one, and how its caller learns of it.

use std::{sync::Arc, time::Duration};

use http::Request;
use tonic::{Code, Status, body::Body};

use super::connection::{Broken, Trouble};
use crate::status;

/// An attempt without an answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) reach: Reach,
    /// The address, where the attempt had got as far as choosing one.
    pub(crate) endpoint: Option<Arc<str>>,
    /// The request, where nothing of it was sent.
    pub(crate) unsent: Option<Box<Request<Body>>>,
}

/// How far the request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// There was no connection to send it on: another one needs a moment.
    Nowhere,
    /// To a connection that went away before it: provably not to a handler.
    NoHandler,
    /// To a server that refused it before a handler: another one costs that server something.
    TurnedAway,
    /// Perhaps to a handler.
    Handler,
    /// It was not to be sent at all, and will not be the next time.
    Refused,
}

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Cause {
    Unconfigured,
    /// Discovery has found nothing so far; the reason where there is one.
    Undiscovered(Option<Arc<str>>),
    /// None can be connected; the last reason, and how long until somebody tries again.
    Unconnected(Option<Arc<str>>, Duration),
    /// `concurrent_max` attempts are in flight.
    CircuitOpen(usize),
    /// `waiting_max` calls wait already.
    QueueFull(usize),
    /// The connection or the stream broke.
    Http2(h2::Error),
    /// The answer ended without a status.
    CutOff,
    /// The request's own body failed.
    Body(Status),
}

impl Failure {
    /// Of an attempt that got no place on a connection.
    pub(crate) fn unplaced(cause: Cause, request: Request<Body>) -> Self {
        let reach = match &cause {
            Cause::Unconfigured | Cause::CircuitOpen(_) | Cause::QueueFull(_) => Reach::Refused,
            _ => Reach::Nowhere,
        };
        Self {
            cause,
            reach,
            endpoint: None,
            unsent: Some(Box::new(request)),
        }
    }

    pub(crate) fn broken(broken: Broken, endpoint: Arc<str>) -> Self {
        Self {
            reach: if broken.unsent.is_some() || broken.error.is_unprocessed() {
                Reach::NoHandler
            } else if broken.error.is_refused() {
                Reach::TurnedAway
            } else {
                Reach::Handler
            },
            cause: match broken.error {
                Trouble::Http2(error) => Cause::Http2(error),
                Trouble::Body(status) => Cause::Body(status),
            },
            endpoint: Some(endpoint),
            unsent: broken.unsent,
        }
    }

    pub(crate) fn cut_off(endpoint: Arc<str>) -> Self {
        Self {
            cause: Cause::CutOff,
            reach: Reach::Handler,
            endpoint: Some(endpoint),
            unsent: None,
        }
    }

    /// How long another attempt would be in vain.
    pub(crate) fn hopeless_for(&self) -> Duration {
        match &self.cause {
            Cause::Unconnected(_, retry_in) => *retry_in,
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn code(&self) -> Code {
        match &self.cause {
            Cause::Http2(error) => code_of(error),
            Cause::Body(status) => status.code(),
            _ => Code::Unavailable,
        }
    }

    /// What the caller of the `attempt`th attempt is told.
    pub(crate) fn into_status(self, destination: &str, attempt: u32) -> Status {
        let origin = status::Origin {
            destination,
            layer: self.layer(),
            attempt,
            endpoint: self.endpoint.as_deref(),
        };
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or("not known").to_owned();
        match self.cause {
            Cause::Unconfigured => status::unconfigured(destination),
            Cause::Undiscovered(trouble) => {
                origin.unavailable("no endpoint has been found", Some(text(&trouble)))
            }
            Cause::Unconnected(trouble, _) => {
                origin.unavailable("no endpoint can be connected", Some(text(&trouble)))
            }
            Cause::CircuitOpen(max) => origin.circuit_open(max),
            Cause::QueueFull(max) => origin.queue_full(max),
            Cause::Http2(error) => origin.transport(code_of(&error), error.to_string()),
            Cause::CutOff => origin.unavailable("the answer was cut off", None),
            Cause::Body(status) => status,
        }
    }

    fn layer(&self) -> &'static str {
        match self.cause {
            Cause::Unconfigured | Cause::Undiscovered(_) => "discovery",
            Cause::Unconnected(..) => "balance",
            Cause::QueueFull(_) => "pool",
            Cause::CircuitOpen(_) => "circuit",
            Cause::Http2(_) | Cause::CutOff | Cause::Body(_) => "connection",
        }
    }
}

/// What an error of HTTP/2 means in gRPC. Where the peer has cut the stream without a reason, nothing
/// is known but that there is no answer.
fn code_of(error: &h2::Error) -> Code {
    use h2::Reason;
    if error.is_io() || error.is_go_away() {
        return Code::Unavailable;
    }
    match error.reason() {
        Some(
            Reason::PROTOCOL_ERROR
            | Reason::INTERNAL_ERROR
            | Reason::FLOW_CONTROL_ERROR
            | Reason::SETTINGS_TIMEOUT
            | Reason::FRAME_SIZE_ERROR
            | Reason::COMPRESSION_ERROR,
        ) => Code::Internal,
        Some(Reason::ENHANCE_YOUR_CALM) => Code::ResourceExhausted,
        _ => Code::Unavailable,
    }
}
