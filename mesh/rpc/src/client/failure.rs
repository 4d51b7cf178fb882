//! Why an attempt came to no answer, what that means for another one, and how its caller learns of it.

use std::{sync::Arc, time::Duration};

use tonic::{Code, Status};

use super::connection::{Broken, Trouble};
use crate::status::Origin;

/// An attempt without an answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) reach: Reach,
    /// The address, where the attempt had got as far as choosing one.
    pub(crate) endpoint: Option<Arc<str>>,
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
    pub(crate) fn unplaced(cause: Cause) -> Self {
        let reach = match &cause {
            Cause::Unconfigured | Cause::CircuitOpen(_) | Cause::QueueFull(_) => Reach::Refused,
            _ => Reach::Nowhere,
        };
        Self {
            cause,
            reach,
            endpoint: None,
        }
    }

    pub(crate) fn broken(broken: Broken, endpoint: Arc<str>) -> Self {
        Self {
            reach: if broken.unsent || broken.error.is_unprocessed() {
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
        }
    }

    pub(crate) fn cut_off(endpoint: Arc<str>) -> Self {
        Self {
            cause: Cause::CutOff,
            reach: Reach::Handler,
            endpoint: Some(endpoint),
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
        let to = destination;
        let key = format!("mesh.destinations.{to}");
        let (layer, policy) = self.made_by(&key);
        let origin = Origin {
            layer,
            policy,
            attempt,
            endpoint: self.endpoint,
        };
        let text = |text: &Option<Arc<str>>| text.as_deref().unwrap_or("not known").to_owned();
        match self.cause {
            Cause::Unconfigured => origin.unconfigured(to),
            Cause::Undiscovered(trouble) => {
                origin.unavailable(to, "no endpoint has been found", Some(text(&trouble)))
            }
            Cause::Unconnected(trouble, _) => {
                origin.unavailable(to, "no endpoint can be connected", Some(text(&trouble)))
            }
            Cause::CircuitOpen(max) => origin.circuit_open(to, max),
            Cause::QueueFull(max) => origin.queue_full(to, max),
            Cause::Http2(error) => origin.transport(to, code_of(&error), error.to_string()),
            Cause::CutOff => origin.unavailable(to, "the answer was cut off", None),
            Cause::Body(status) => status,
        }
    }

    /// The layer, and what decided there; `key` is the destination's own.
    fn made_by<'k>(&self, key: &'k str) -> (&'static str, &'k str) {
        match &self.cause {
            Cause::Unconfigured | Cause::Undiscovered(_) => ("discovery", key),
            Cause::Unconnected(..) => ("balance", "no endpoint is connected"),
            Cause::QueueFull(_) => ("pool", "mesh.client.waiting_max"),
            Cause::CircuitOpen(_) => ("circuit", "mesh.client.concurrent_max"),
            Cause::Http2(error) if error.is_go_away() => ("connection", "GOAWAY"),
            Cause::Http2(error) if error.is_reset() => ("connection", "RST_STREAM"),
            Cause::Http2(_) => ("connection", "the connection broke"),
            Cause::CutOff | Cause::Body(_) => ("connection", "no status was received"),
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

#[cfg(test)]
mod tests {
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::ERROR_DOMAIN;

    const ENDPOINT: &str = "10.0.0.1:1";

    fn reset(reason: h2::Reason) -> Cause {
        Cause::Http2(reason.into())
    }

    /// What the details of a failure's status say: reason, layer, policy, attempt, endpoint.
    fn explained(cause: Cause, endpoint: Option<&str>) -> (Code, [String; 5]) {
        let failure = Failure {
            cause,
            reach: Reach::Handler,
            endpoint: endpoint.map(Arc::from),
        };
        let status = failure.into_status("shop", 3);
        assert!(
            !status.message().contains(ENDPOINT),
            "an address is no message"
        );
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (&*info.domain, &*info.metadata["destination"]),
            (ERROR_DOMAIN, "shop")
        );
        let known = |key: &str| info.metadata.get(key).cloned().unwrap_or_default();
        let [layer, policy, attempt, endpoint] =
            ["layer", "policy", "attempt", "endpoint"].map(known);
        (
            status.code(),
            [info.reason.clone(), layer, policy, attempt, endpoint],
        )
    }

    #[test]
    fn each_failure_says_layer_policy_attempt_and_endpoint() {
        const KEY: &str = "mesh.destinations.shop";
        let trouble = || Some(Arc::from("refused"));
        let refused = [
            (
                Cause::Unconfigured,
                ["DESTINATION_NOT_CONFIGURED", "discovery", KEY],
            ),
            (
                Cause::Undiscovered(trouble()),
                ["DESTINATION_UNAVAILABLE", "discovery", KEY],
            ),
            (
                Cause::Unconnected(trouble(), Duration::ZERO),
                [
                    "DESTINATION_UNAVAILABLE",
                    "balance",
                    "no endpoint is connected",
                ],
            ),
            (
                Cause::CircuitOpen(1),
                ["CIRCUIT_OPEN", "circuit", "mesh.client.concurrent_max"],
            ),
            (
                Cause::QueueFull(1),
                ["QUEUE_FULL", "pool", "mesh.client.waiting_max"],
            ),
        ];
        for (cause, [reason, layer, policy]) in refused {
            let expected = [reason, layer, policy, "3", ""].map(str::to_owned);
            assert_eq!(explained(cause, None), (Code::Unavailable, expected));
        }
        let broken = [
            (
                reset(h2::Reason::CANCEL),
                Code::Unavailable,
                "DESTINATION_UNAVAILABLE",
                "the connection broke",
            ),
            (
                reset(h2::Reason::PROTOCOL_ERROR),
                Code::Internal,
                "DESTINATION_BROKE_PROTOCOL",
                "the connection broke",
            ),
            (
                reset(h2::Reason::ENHANCE_YOUR_CALM),
                Code::ResourceExhausted,
                "DESTINATION_OVERLOADED",
                "the connection broke",
            ),
            (
                Cause::CutOff,
                Code::Unavailable,
                "DESTINATION_UNAVAILABLE",
                "no status was received",
            ),
        ];
        for (cause, code, reason, policy) in broken {
            let expected = [reason, "connection", policy, "3", ENDPOINT].map(str::to_owned);
            assert_eq!(explained(cause, Some(ENDPOINT)), (code, expected));
        }
    }
}
