//! What can go wrong besides publishing and delivering, which `mesh_events` has errors for.

use std::io;

use mesh_events::PublishError;

/// The broker could not be reached, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RabbitMqError {
    /// A key of the configuration makes no sense.
    #[error("RabbitMQ configuration: {0}")]
    Config(String),
    /// A file named in the configuration can not be read.
    #[error("file \"{path}\" cannot be read")]
    File {
        /// As configured.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no connection. The cause tells a closed port from wrong credentials.
    #[error("cannot connect to {url}")]
    Connect {
        /// The address, without a password.
        url: String,
        /// What the client said.
        #[source]
        source: lapin::Error,
    },
    /// The broker did not let us in in time.
    #[error("cannot connect to {url}: no answer within {timeout_ms} ms")]
    ConnectTimeout {
        /// The address, without a password.
        url: String,
        /// The limit.
        timeout_ms: u64,
    },
    /// An exchange or queue exists and is not what the configuration wants.
    #[error("{object} exists with another {argument}: {difference}")]
    Mismatch {
        /// `queue "commerce.events.product"`.
        object: String,
        /// `x-delivery-limit`, `durable`, `type`.
        argument: String,
        /// What the broker has and what it was asked for, in its own words.
        difference: String,
    },
    /// The broker refused or broke off.
    #[error("{operation} failed")]
    Broker {
        /// What was asked: `declaring queue "commerce.events.product"`.
        operation: String,
        /// What it said.
        #[source]
        source: lapin::Error,
    },
    /// There is no connection now.
    #[error("RabbitMQ is unavailable: {0}")]
    Unavailable(String),
    /// A message could not be put into a queue. What was to be moved is where it was.
    #[error("a message was not published")]
    Publish(#[source] PublishError),
}

impl RabbitMqError {
    /// Wraps what the broker said; made for `map_err`.
    pub(crate) fn broker(operation: impl Into<String>) -> impl FnOnce(lapin::Error) -> Self {
        let operation = operation.into();
        move |source| RabbitMqError::Broker { operation, source }
    }

    /// Whether it stays until somebody mends the configuration or the broker's queues.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Mismatch { .. } | Self::Config(_))
    }
}

/// An error with its causes on one line, for errors of `mesh_events`, which carry text.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let causes = std::iter::successors(error.source(), |error| error.source());
    for cause in causes.map(ToString::to_string) {
        // Some errors repeat their cause in their own text.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
