//! Everything that can go wrong, and the one place that says what a client hears of it.

use crate::rejection::Rejection;
use crate::state::Command;
use kernel::{Currency, Invalid, Money};
use mesh_store::group::Refused;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// `ErrorInfo.domain` of every error of this service.
pub const DOMAIN: &str = "payment.commerce";
/// When a call that found another one under way, or the service busy, is worth repeating.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Values of the request break rules.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<Invalid>),
    /// The rules of the domain forbid it.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// There is no such payment, or it is another caller's.
    #[error("payment {0:?} not found")]
    PaymentNotFound(String),
    /// There is no such refund.
    #[error("refund {0:?} not found")]
    RefundNotFound(String),
    /// There is no such dispute, or it is another caller's.
    #[error("dispute {0:?} not found")]
    DisputeNotFound(String),
    /// There is no such provider.
    #[error("provider {0:?} not found")]
    ProviderNotFound(String),
    /// There is no such webhook, or it names nothing of ours.
    #[error("webhook {0:?} not found, or it is about no payment")]
    WebhookNotFound(String),
    /// There is no such reconciliation.
    #[error("reconciliation {0:?} not found")]
    ReconciliationNotFound(String),
    /// There is no such discrepancy.
    #[error("discrepancy {0:?} not found")]
    DiscrepancyNotFound(String),
    /// What was to be recorded is dated in a period that is closed.
    #[error("the period is closed: nothing is recorded in it any more")]
    PeriodClosed,
    /// A day that is not over cannot be closed.
    #[error("the day {0} is not over")]
    DayNotOver(String),
    /// An item cannot be bought: no such SKU, not sold, or without a price in the currency.
    #[error("{field}: {reason}")]
    NotSold {
        /// The field that names it.
        field: String,
        /// The SKU.
        sku: String,
        /// Why, for people.
        reason: String,
    },
    /// The request id belongs to another request.
    #[error("the request id was used for another request")]
    KeyReused,
    /// The same request is under way.
    #[error("the same request is under way")]
    InFlight,
    /// The product service cannot be reached; nothing was stored.
    #[error("the product service is unavailable; nothing was stored")]
    ProductUnavailable,
    /// The provider had to be asked and did not answer; nothing was stored.
    #[error("the provider cannot be asked now; nothing was stored")]
    ProviderUnavailable(String),
    /// Changes since this revision are no longer kept, or it has not been given out.
    #[error("revision {revision} is not kept: resume from {oldest} to {newest}")]
    RevisionNotKept {
        /// The revision asked for.
        revision: i64,
        /// The earliest revision that can be resumed from.
        oldest: i64,
        /// The latest.
        newest: i64,
    },
    /// A webhook's signature is missing or wrong.
    #[error("webhook signature: {0}")]
    Signature(&'static str),
    /// The service is being stopped, or another replica took over.
    #[error("the service is handing over; try again")]
    Interrupted,
    /// The database did not do what it was asked.
    #[error("the database failed")]
    Database(#[source] Arc<sqlx::Error>),
    /// Too many new payments wait already, or the storage is closing.
    #[error(transparent)]
    Busy(#[from] Refused),
    /// The database holds what this program never wrote.
    #[error("the database holds an unreadable {0}")]
    Corrupt(&'static str),
}

/// What the triggers of both databases say of an entry that is dated in a closed period.
const PERIOD_CLOSED: &str = "the period is closed";

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let database = error.as_database_error();
        if database.is_some_and(|error| error.message().contains(PERIOD_CLOSED)) {
            return Self::PeriodClosed;
        }
        Self::Database(Arc::new(error))
    }
}

impl From<Arc<sqlx::Error>> for Error {
    fn from(error: Arc<sqlx::Error>) -> Self {
        Self::Database(error)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(vec![invalid])
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(fields) => invalid(&fields, "INVALID_REQUEST"),
            Error::Rejected(rejection) => rejected(rejection, message),
            Error::PaymentNotFound(id) => not_found(
                "PAYMENT_NOT_FOUND",
                "commerce.payment.v1.Payment",
                id,
                message,
            ),
            Error::RefundNotFound(id) => not_found(
                "REFUND_NOT_FOUND",
                "commerce.payment.v1.Refund",
                id,
                message,
            ),
            Error::DisputeNotFound(id) => not_found(
                "DISPUTE_NOT_FOUND",
                "commerce.payment.v1.Dispute",
                id,
                message,
            ),
            Error::ProviderNotFound(name) => {
                not_found("PROVIDER_NOT_FOUND", "provider", name, message)
            }
            Error::WebhookNotFound(id) => not_found(
                "WEBHOOK_NOT_FOUND",
                "commerce.payment.v1.Webhook",
                id,
                message,
            ),
            Error::ReconciliationNotFound(id) => not_found(
                "RECONCILIATION_NOT_FOUND",
                "commerce.payment.v1.Reconciliation",
                id,
                message,
            ),
            Error::DiscrepancyNotFound(id) => not_found(
                "DISCREPANCY_NOT_FOUND",
                "commerce.payment.v1.Discrepancy",
                id,
                message,
            ),
            Error::PeriodClosed => precondition("PERIOD_CLOSED", "ledger", message),
            Error::DayNotOver(_) => precondition("DAY_NOT_OVER", "day", message),
            Error::NotSold { field, sku, reason } => {
                let mut details = info("SKU_NOT_FOUND", [("sku", sku.as_str())]);
                details.set_resource_info("commerce.product.v1.Variant", &sku, "", &reason);
                details.add_bad_request_violation(field, reason);
                Status::with_error_details(Code::NotFound, message, details)
            }
            Error::KeyReused => {
                let field = Invalid::new("request_id", message);
                invalid(&[field], "IDEMPOTENCY_KEY_REUSED")
            }
            Error::InFlight => retry_later(Code::Aborted, "REQUEST_IN_FLIGHT", message),
            Error::ProductUnavailable => {
                retry_later(Code::Unavailable, "PRODUCT_UNAVAILABLE", message)
            }
            Error::ProviderUnavailable(reason) => {
                tracing::warn!(reason, "a provider could not be asked");
                retry_later(Code::Unavailable, "PROVIDER_UNAVAILABLE", message)
            }
            Error::RevisionNotKept { oldest, newest, .. } => {
                let (oldest, newest) = (oldest.to_string(), newest.to_string());
                let details = info(
                    "REVISION_OUT_OF_RANGE",
                    [("oldest", oldest.as_str()), ("newest", newest.as_str())],
                );
                Status::with_error_details(Code::OutOfRange, message, details)
            }
            Error::Signature(_) => {
                let details = info("WEBHOOK_SIGNATURE", []);
                Status::with_error_details(Code::Unauthenticated, message, details)
            }
            Error::Interrupted => retry_later(Code::Unavailable, "INTERRUPTED", message),
            Error::Database(source) => match mesh_store::retry(&source) {
                mesh_store::Retry::Always | mesh_store::Retry::IfIdempotent => {
                    tracing::warn!(error = %source, "database busy");
                    retry_later(Code::Unavailable, "STORAGE_BUSY", message)
                }
                mesh_store::Retry::Never => {
                    tracing::error!(error = %source, "database failed");
                    internal()
                }
            },
            Error::Busy(_) => retry_later(Code::Unavailable, "STORAGE_BUSY", message),
            Error::Corrupt(what) => {
                tracing::error!(what, "unreadable row");
                internal()
            }
        }
    }
}

fn rejected(rejection: Rejection, message: String) -> Status {
    let failed = |reason: &str, subject: &str, details: &[(&str, &str)]| {
        let mut status = info(reason, details.iter().copied());
        status.add_precondition_failure_violation(reason, subject, message.clone());
        Status::with_error_details(Code::FailedPrecondition, message.clone(), status)
    };
    match rejection {
        Rejection::Invalid(field) => invalid(&[field], "INVALID_REQUEST"),
        Rejection::State {
            id, command, state, ..
        } => {
            let command = match command {
                Command::Confirm => "confirm",
                Command::Capture => "capture",
                Command::Cancel => "cancel",
                Command::Refund => "refund",
            };
            let details = [("state", state.name()), ("command", command)];
            failed("INVALID_STATE", &id.to_string(), &details)
        }
        Rejection::QuantityExceeded { sku, left, .. } => failed(
            "QUANTITY_EXCEEDED",
            &sku,
            &[("sku", &sku), ("left", &left.to_string())],
        ),
        Rejection::AmountExceeded { left, .. } => {
            let left = left.amount_minor().to_string();
            failed("AMOUNT_EXCEEDED", "amount", &[("left_minor", &left)])
        }
        Rejection::NothingCaptured(id) => failed("NOTHING_CAPTURED", &id.to_string(), &[]),
        Rejection::Disputed {
            id,
            disputed_minor,
            left,
        } => {
            let (disputed, left) = (disputed_minor.to_string(), left.amount_minor().to_string());
            let details = [
                ("disputed_minor", disputed.as_str()),
                ("left_minor", left.as_str()),
            ];
            failed("DISPUTED", &id.to_string(), &details)
        }
        Rejection::DisputeState { id, state, .. } => {
            failed("DISPUTE_STATE", &id.to_string(), &[("state", state.name())])
        }
        Rejection::NoSuchDispute(id) => not_found(
            "DISPUTE_NOT_FOUND",
            "commerce.payment.v1.Dispute",
            id.to_string(),
            message,
        ),
        Rejection::DisputesUnsupported { provider } => failed(
            "DISPUTES_UNSUPPORTED",
            &provider,
            &[("provider", &provider)],
        ),
        Rejection::NothingLeft(id) => failed("AMOUNT_EXCEEDED", &id.to_string(), &[]),
        Rejection::NothingToPay => failed("NOTHING_TO_PAY", "items", &[]),
        Rejection::PriceChanged { expected, actual } => {
            let (expected, actual) = (
                expected.amount_minor().to_string(),
                actual.amount_minor().to_string(),
            );
            let details = [
                ("expected_minor", expected.as_str()),
                ("amount_minor", &actual),
            ];
            failed("PRICE_CHANGED", "expected_amount", &details)
        }
        Rejection::OrderRefTaken { id, .. } => {
            let id = id.to_string();
            let mut details = info("ORDER_REF_TAKEN", [("payment_id", id.as_str())]);
            details.set_resource_info("commerce.payment.v1.Payment", &id, "", &message);
            Status::with_error_details(Code::AlreadyExists, message, details)
        }
        Rejection::LimitReached {
            currency,
            window_s,
            left,
            retry_us,
        } => limited(currency, window_s, left, retry_us, message),
    }
}

fn precondition(reason: &str, subject: &str, message: String) -> Status {
    let mut details = info(reason, []);
    details.add_precondition_failure_violation(reason, subject, message.clone());
    Status::with_error_details(Code::FailedPrecondition, message, details)
}

/// RESOURCE_EXHAUSTED with the time until it is worth repeating, if it ever is.
fn limited(
    currency: Currency,
    window_s: i64,
    left: Option<Money>,
    retry_us: Option<i64>,
    message: String,
) -> Status {
    let window_s = window_s.to_string();
    let left_minor = left.map(|left| left.amount_minor().to_string());
    let reason = match left {
        Some(_) => "SPENDING_LIMIT",
        None => "VELOCITY_LIMIT",
    };
    let metadata = [("currency_code", currency.code()), ("window_s", &window_s)];
    let left_minor = left_minor.as_deref().map(|left| ("left_minor", left));
    let mut details = info(reason, metadata.into_iter().chain(left_minor));
    if let Some(retry_us) = retry_us {
        details.set_retry_info(Some(Duration::from_micros(retry_us.unsigned_abs())));
    }
    Status::with_error_details(Code::ResourceExhausted, message, details)
}

fn info<'a>(reason: &str, metadata: impl IntoIterator<Item = (&'a str, &'a str)>) -> ErrorDetails {
    let metadata: HashMap<String, String> = metadata
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    ErrorDetails::with_error_info(reason, DOMAIN, metadata)
}

fn invalid(fields: &[Invalid], reason: &str) -> Status {
    let mut details = info(reason, []);
    for field in fields {
        details.add_bad_request_violation(&field.field, &field.reason);
    }
    let message = fields
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ");
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn not_found(reason: &str, kind: &str, name: String, message: String) -> Status {
    let mut details = info(reason, [("name", name.as_str())]);
    details.set_resource_info(kind, &name, "", &message);
    Status::with_error_details(Code::NotFound, message, details)
}

fn retry_later(code: Code, reason: &str, message: String) -> Status {
    let mut details = info(reason, []);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(code, message, details)
}

/// What a client hears of a failure that is ours: nothing of the inside.
fn internal() -> Status {
    Status::with_error_details(Code::Internal, "internal error", info("INTERNAL", []))
}
