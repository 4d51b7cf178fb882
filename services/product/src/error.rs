//! Everything that can go wrong in this service, and the one place where it becomes a gRPC status.
//!
//! Text of the storage never reaches a client: such an error is logged and answered as INTERNAL.

use std::{collections::HashMap, time::Duration};

use kernel::{Currency, Invalid, ProductId};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::product;

/// The `domain` of every `google.rpc.ErrorInfo` of this service.
pub const DOMAIN: &str = "product.commerce";
/// How long a caller should wait before it repeats a call that was refused for the moment.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Values of the request break rules.
    #[error("{}", summary(.0))]
    Invalid(Vec<Invalid>),
    /// The caller's key was used for another request.
    #[error("request_id was used for another request")]
    KeyReused,
    /// The same command is being carried out at this moment.
    #[error("a request with this request_id is in flight")]
    InFlight,
    /// No such products.
    #[error("product {} not found", .0.join(", "))]
    ProductsNotFound(Vec<String>),
    /// No such variants.
    #[error("SKU {} not found", .0.join(", "))]
    SkusNotFound(Vec<String>),
    /// No such reservation.
    #[error("reservation {0} not found")]
    ReservationNotFound(String),
    /// A variant has no price in the currency.
    #[error("SKU {sku} has no price in {currency}")]
    PriceNotFound {
        /// The variant.
        sku: String,
        /// The currency asked for.
        currency: Currency,
    },
    /// The product has changed since the caller saw it.
    #[error("product {id} has changed: read it again and repeat the change")]
    EtagMismatch {
        /// The product.
        id: ProductId,
    },
    /// Another variant has the SKU.
    #[error("SKU {sku} belongs to product {product_id}")]
    SkuTaken {
        /// The SKU.
        sku: String,
        /// Whose it is.
        product_id: String,
    },
    /// Another product has the handle.
    #[error("handle \"{handle}\" belongs to product {product_id}")]
    HandleTaken {
        /// The handle.
        handle: String,
        /// Whose it is.
        product_id: String,
    },
    /// The thing is in a state in which this cannot be done to it.
    #[error("{resource} is {state} and cannot be {command}")]
    InvalidState {
        /// Which thing.
        resource: String,
        /// Its state.
        state: &'static str,
        /// The command, as a participle.
        command: &'static str,
    },
    /// The product of a variant is not on sale.
    #[error("SKU {sku} is not on sale: its product is {}", .status.name())]
    NotActive {
        /// The variant.
        sku: String,
        /// The product's status.
        status: product::Status,
    },
    /// Fewer units can be bought than were wanted.
    #[error("out of stock: {}", shortages(.0))]
    OutOfStock(Vec<Shortage>),
    /// More units were named than there are of the kind.
    #[error("SKU {sku}: {wanted} wanted, {left} are {what}")]
    QuantityExceeded {
        /// The variant.
        sku: String,
        /// Units named.
        wanted: i32,
        /// Units there are.
        left: i32,
        /// Of what kind.
        what: &'static str,
    },
    /// Less would be on hand than is reserved.
    #[error("SKU {sku}: {reserved} of {on_hand} on hand are reserved and must stay covered")]
    StockReserved {
        /// The variant.
        sku: String,
        /// Units on hand.
        on_hand: i32,
        /// Units reserved.
        reserved: i32,
    },
    /// More would be on hand than can be counted.
    #[error("SKU {sku}: at most {on_hand_max} units can be on hand")]
    StockFull {
        /// The variant.
        sku: String,
        /// The limit.
        on_hand_max: i32,
    },
    /// A variant that was to be removed has stock.
    #[error("SKU {sku} cannot be removed: {on_hand} units are on hand")]
    VariantHasStock {
        /// The variant.
        sku: String,
        /// Units on hand.
        on_hand: i32,
    },
    /// An export would drop prices.
    #[error("SKU {sku} has prices in other currencies than {currency}, which the file would drop")]
    OtherPrices {
        /// A variant with such prices.
        sku: String,
        /// The currency of the file.
        currency: Currency,
    },
    /// Changes after this revision cannot be given.
    #[error("revision {revision} is not kept: kept are {kept_from} to {last}")]
    RevisionOutOfRange {
        /// The revision asked for.
        revision: i64,
        /// The first one that can be resumed from.
        kept_from: i64,
        /// The last one there is.
        last: i64,
    },
    /// No more watchers are served.
    #[error("{watchers_max} watchers are served already")]
    TooManyWatchers {
        /// The limit.
        watchers_max: usize,
    },
    /// The service is stopping.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The caller broke off.
    #[error("the request was broken off")]
    BrokenOff,
    /// The storage cannot take this at the moment, or went away meanwhile. The same call again is safe: what
    /// changes something has a request id, or changes nothing the second time.
    #[error("the storage is busy")]
    StorageBusy(#[source] BoxError),
    /// The storage failed.
    #[error("the storage failed")]
    Storage(#[source] BoxError),
}

/// Any error, as the cause of one of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A line that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortage {
    /// The variant.
    pub sku: String,
    /// Units wanted.
    pub wanted: i32,
    /// Units that can be bought.
    pub available: i32,
}

impl Error {
    /// One value that breaks a rule.
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid(vec![Invalid::new(field, reason)])
    }

    /// A failure of the storage once more, for another of those that it happened to.
    pub(crate) fn repeated(&self) -> Self {
        match self {
            Self::StorageBusy(cause) => Self::StorageBusy(cause.to_string().into()),
            other => Self::Storage(other.to_string().into()),
        }
    }

    /// The reason in `google.rpc.ErrorInfo`: stable, for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::KeyReused => "IDEMPOTENCY_KEY_REUSED",
            Self::InFlight => "REQUEST_IN_FLIGHT",
            Self::ProductsNotFound(_) => "PRODUCT_NOT_FOUND",
            Self::SkusNotFound(_) => "SKU_NOT_FOUND",
            Self::ReservationNotFound(_) => "RESERVATION_NOT_FOUND",
            Self::PriceNotFound { .. } => "PRICE_NOT_FOUND",
            Self::EtagMismatch { .. } => "ETAG_MISMATCH",
            Self::SkuTaken { .. } => "SKU_TAKEN",
            Self::HandleTaken { .. } => "HANDLE_TAKEN",
            Self::InvalidState { .. } => "INVALID_STATE",
            Self::NotActive { .. } => "PRODUCT_NOT_ACTIVE",
            Self::OutOfStock(_) => "OUT_OF_STOCK",
            Self::QuantityExceeded { .. } => "QUANTITY_EXCEEDED",
            Self::StockReserved { .. } => "STOCK_RESERVED",
            Self::StockFull { .. } => "STOCK_FULL",
            Self::VariantHasStock { .. } => "VARIANT_HAS_STOCK",
            Self::OtherPrices { .. } => "PRICES_WOULD_BE_DROPPED",
            Self::RevisionOutOfRange { .. } => "REVISION_OUT_OF_RANGE",
            Self::TooManyWatchers { .. } => "TOO_MANY_WATCHERS",
            Self::ShuttingDown => "SHUTTING_DOWN",
            Self::BrokenOff => "BROKEN_OFF",
            Self::StorageBusy(_) => "STORAGE_BUSY",
            Self::Storage(_) => "STORAGE_FAILED",
        }
    }

    /// The status code, and whatever details go with it.
    fn status(&self) -> (Code, ErrorDetails) {
        let mut details = ErrorDetails::new();
        let code = match self {
            Self::Invalid(invalid) => {
                for violation in invalid {
                    details.add_bad_request_violation(&violation.field, &violation.reason);
                }
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
            Self::ProductsNotFound(ids) => not_found(&mut details, "product", &ids.join(",")),
            Self::SkusNotFound(skus) => not_found(&mut details, "variant", &skus.join(",")),
            Self::ReservationNotFound(id) => not_found(&mut details, "reservation", id),
            Self::PriceNotFound { sku, .. } => not_found(&mut details, "price", sku),
            Self::EtagMismatch { .. } => Code::Aborted,
            Self::SkuTaken { sku, .. } => taken(&mut details, "variant", sku),
            Self::HandleTaken { handle, .. } => taken(&mut details, "product", handle),
            Self::InvalidState {
                resource, state, ..
            } => {
                details.add_precondition_failure_violation("STATE", resource, *state);
                Code::FailedPrecondition
            }
            Self::NotActive { sku, status } => {
                details.add_precondition_failure_violation("STATUS", sku, status.name());
                Code::FailedPrecondition
            }
            Self::OutOfStock(short) => {
                for line in short {
                    let description =
                        format!("{} wanted, {} available", line.wanted, line.available);
                    details.add_precondition_failure_violation("STOCK", &line.sku, description);
                }
                Code::FailedPrecondition
            }
            Self::QuantityExceeded { sku, .. }
            | Self::StockReserved { sku, .. }
            | Self::StockFull { sku, .. }
            | Self::VariantHasStock { sku, .. } => {
                details.add_precondition_failure_violation("STOCK", sku, self.to_string());
                Code::FailedPrecondition
            }
            Self::OtherPrices { sku, .. } => {
                details.add_precondition_failure_violation("PRICES", sku, self.to_string());
                Code::FailedPrecondition
            }
            Self::RevisionOutOfRange { .. } => {
                details.add_bad_request_violation("resume_revision", self.to_string());
                Code::OutOfRange
            }
            Self::TooManyWatchers { .. } => {
                details.set_retry_info(Some(RETRY_AFTER));
                Code::ResourceExhausted
            }
            Self::ShuttingDown | Self::StorageBusy(_) => {
                details.set_retry_info(Some(RETRY_AFTER));
                Code::Unavailable
            }
            Self::BrokenOff => Code::Cancelled,
            Self::Storage(_) => Code::Internal,
        };
        (code, details)
    }

    /// What a program can use besides the reason.
    fn metadata(&self) -> HashMap<String, String> {
        let mut metadata = HashMap::new();
        if let Self::OutOfStock(short) = self
            && let Some(line) = short.first()
        {
            metadata.insert("sku".to_owned(), line.sku.clone());
            metadata.insert("available".to_owned(), line.available.to_string());
        }
        metadata
    }
}

impl From<Vec<Invalid>> for Error {
    fn from(invalid: Vec<Invalid>) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(vec![invalid])
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Storage(cause) | Error::StorageBusy(cause) = &error {
            tracing::error!(error = %error, cause = %cause, "storage");
        }
        let (code, mut details) = error.status();
        details.set_error_info(error.reason(), DOMAIN, error.metadata());
        Self::with_error_details(code, error.to_string(), details)
    }
}

fn not_found(details: &mut ErrorDetails, kind: &str, name: &str) -> Code {
    details.set_resource_info(kind, name, "", "not found");
    Code::NotFound
}

fn taken(details: &mut ErrorDetails, kind: &str, name: &str) -> Code {
    details.set_resource_info(kind, name, "", "exists already");
    Code::AlreadyExists
}

fn summary(invalid: &[Invalid]) -> String {
    match invalid {
        [] => "invalid request".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
    }
}

fn shortages(short: &[Shortage]) -> String {
    let line = |line: &Shortage| {
        format!(
            "SKU {}: {} wanted, {} available",
            line.sku, line.wanted, line.available
        )
    };
    short.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_names_reason_and_domain() {
        let status = Status::from(Error::OutOfStock(vec![Shortage {
            sku: "A".into(),
            wanted: 3,
            available: 1,
        }]));
        assert_eq!(status.code(), Code::FailedPrecondition);
        let details = status.get_error_details();
        let info = details.error_info().expect("always there");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("OUT_OF_STOCK", DOMAIN)
        );
        assert_eq!(info.metadata["available"], "1");
        let violations = &details.precondition_failure().expect("set").violations;
        assert_eq!(violations[0].subject, "A");
    }

    #[test]
    fn a_storage_that_went_away_is_unavailable_and_says_when_to_come_back() {
        let gone = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let status = Status::from(Error::from(sqlx::Error::Io(gone)));
        assert_eq!(status.code(), Code::Unavailable);
        let retry = status.get_error_details().retry_info().cloned();
        assert!(retry.is_some_and(|retry| retry.retry_delay.is_some()));
    }

    #[test]
    fn storage_text_stays_inside() {
        let status = Status::from(Error::Storage("secret table is gone".into()));
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("secret"));
    }

    #[test]
    fn invalid_names_every_field() {
        let error = Error::Invalid(vec![Invalid::new("a", "bad"), Invalid::new("b", "worse")]);
        assert_eq!(error.to_string(), "a: bad (and 1 more)");
        let status = Status::from(error);
        let fields = status
            .get_error_details()
            .bad_request()
            .expect("set")
            .field_violations
            .clone();
        assert_eq!(fields.len(), 2);
    }
}
