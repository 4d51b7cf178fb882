//! What can go wrong in any service, and the one place where it becomes a gRPC status.
//!
//! Text of the storage never reaches a client: such an error is logged and answered as INTERNAL. A service with
//! refusals of its own has an enum of its own around this one.

use std::{collections::HashMap, time::Duration};

use kernel::Invalid;
use mesh_store::Retry;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// How long a caller should wait before it repeats a call that was refused for the moment.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Any error, as the cause of one of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value of the request breaks a rule.
    #[error("{0}")]
    Invalid(Invalid),
    /// The caller's key was used for another request.
    #[error("request_id: the request id was used for another request")]
    KeyReused,
    /// The same command is being carried out at this moment.
    #[error("a request with this request_id is in flight")]
    InFlight,
    /// There is no such thing.
    #[error("{kind} {id} not found")]
    NotFound {
        /// What it would be: `product`.
        kind: &'static str,
        /// Its id as asked for.
        id: String,
    },
    /// The storage cannot take this at the moment, or went away meanwhile. The same call again is safe.
    #[error("the storage is busy")]
    StorageBusy(#[source] BoxError),
    /// The storage failed.
    #[error("the storage failed")]
    Storage(#[source] BoxError),
}

impl Error {
    /// A value of a field that breaks a rule.
    pub fn invalid(field: &str, reason: impl ToString) -> Self {
        Self::Invalid(Invalid::new(field, reason.to_string()))
    }

    /// The reason in `google.rpc.ErrorInfo`: stable, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::KeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::InFlight => "REQUEST_IN_FLIGHT",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::StorageBusy(_) => "STORAGE_BUSY",
            Self::Storage(_) => "STORAGE_FAILED",
        }
    }

    /// As a status, for a call of the service whose errors have this `domain`: `product.commerce`.
    pub fn status(&self, domain: &str) -> Status {
        let mut details = ErrorDetails::new();
        let code = match self {
            Self::Invalid(invalid) => {
                details.add_bad_request_violation(&invalid.field, &invalid.reason);
                Code::InvalidArgument
            }
            Self::KeyReused => {
                details.add_bad_request_violation("request_id", self.to_string());
                Code::InvalidArgument
            }
            Self::InFlight => {
                details.set_retry_info(Some(RETRY_AFTER));
                Code::Aborted
            }
            Self::NotFound { kind, id } => {
                details.set_resource_info(*kind, id, "", "not found");
                Code::NotFound
            }
            Self::StorageBusy(cause) => {
                tracing::warn!(%cause, "storage");
                details.set_retry_info(Some(RETRY_AFTER));
                Code::Unavailable
            }
            Self::Storage(cause) => {
                tracing::error!(%cause, "storage");
                Code::Internal
            }
        };
        details.set_error_info(self.reason(), domain, HashMap::new());
        Status::with_error_details(code, self.to_string(), details)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match mesh_store::retry(&error) {
            Retry::Always | Retry::IfIdempotent => Self::StorageBusy(error.into()),
            Retry::Never => Self::Storage(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_names_reason_domain_and_field() {
        let status = Error::invalid("name", "must not be empty").status("order.commerce");
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (&*info.reason, &*info.domain),
            ("INVALID_REQUEST", "order.commerce")
        );
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "name"
        );
    }

    #[test]
    fn storage_text_stays_inside() {
        let status = Error::Storage("secret table is gone".into()).status("order.commerce");
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("secret"));
    }

    #[test]
    fn a_storage_that_went_away_is_unavailable_and_says_when_to_come_back() {
        let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let status = Error::from(sqlx::Error::Io(gone)).status("order.commerce");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_error_details().retry_info().is_some());
    }
}
