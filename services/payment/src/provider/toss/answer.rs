//! What Toss Payments' answers mean. Source: its documentation of payment states and error codes.

use super::messages::{Failed, Payment, Status};
use crate::failure::FailureCode;
use crate::provider::{ChargeOutcome, Decline, ProviderError, Settlement};
use http::StatusCode;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Problem {
    /// Nothing is known, or nothing was done.
    Provider(ProviderError),
    /// Toss says no, in its own words, and would say it again.
    No(Failed),
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

impl Problem {
    /// As an error of a command for which a "no" is a mistake of ours.
    pub(super) fn refused(self) -> ProviderError {
        match self {
            Self::Provider(error) => error,
            Self::No(Failed { code, message }) => ProviderError::Refused { code, message },
        }
    }

    /// Whether it is a "no" of this code.
    pub(super) fn is(&self, code: &str) -> bool {
        matches!(self, Self::No(failed) if failed.code == code)
    }
}

/// What an answer without success says. Only Toss's own words can say that money did not move.
pub(super) fn problem(status: StatusCode, body: &[u8]) -> Problem {
    let Ok(failed) = serde_json::from_slice::<Failed>(body) else {
        let reason = format!("answered with {status} by somebody else");
        return ProviderError::Unknown(reason).into();
    };
    let said = format!("{status}: {}: {}", failed.code, failed.message);
    match failed.code.as_str() {
        // Ours to put right, and no reason to tell a customer that the card was refused.
        "UNAUTHORIZED_KEY" | "INVALID_API_KEY" | "INCORRECT_BASIC_AUTH_FORMAT" => {
            tracing::error!(code = failed.code, "toss does not accept the key");
            ProviderError::Unavailable(said).into()
        }
        _ if status == StatusCode::TOO_MANY_REQUESTS => ProviderError::Unavailable(said).into(),
        // The same key is under way.
        "IDEMPOTENT_REQUEST_PROCESSING" => ProviderError::Unknown(said).into(),
        _ if matches!(status.as_u16(), 400 | 403 | 404) => Problem::No(failed),
        _ => ProviderError::Unknown(said).into(),
    }
}

/// Where a charge stands; nothing where our confirmation never arrived.
pub(super) fn charge(payment: &Payment) -> Option<ChargeOutcome> {
    match payment.status {
        Status::Ready | Status::InProgress => None,
        Status::WaitingForDeposit | Status::Other => Some(ChargeOutcome::Pending),
        Status::Done | Status::PartialCanceled => Some(ChargeOutcome::Captured {
            provider_ref: payment.key.clone(),
        }),
        Status::Canceled => Some(ChargeOutcome::Voided),
        Status::Aborted | Status::Expired => {
            let declined = payment.failure.as_ref().map_or_else(
                || {
                    of_code(
                        FailureCode::CardDeclined,
                        "the payment was not finished in time",
                    )
                },
                decline,
            );
            Some(ChargeOutcome::Declined(declined))
        }
    }
}

/// The cancellation that carries our reference.
pub(super) fn refund(payment: &Payment, reference: &str) -> Option<Settlement> {
    let mut cancels = payment.cancels.iter().flatten();
    let cancel = cancels.find(|cancel| cancel.cancel_reason == reference)?;
    Some(Settlement::Done {
        provider_ref: cancel.transaction_key.clone(),
    })
}

/// Why a charge was refused, in words for its customer.
pub(super) fn decline(failed: &Failed) -> Decline {
    let (code, message) = match failed.code.as_str() {
        "REJECT_ACCOUNT_PAYMENT" | "REJECT_CARD_PAYMENT" | "REJECT_TOSSPAY_INVALID_ACCOUNT" => (
            FailureCode::InsufficientFunds,
            "there is not enough money, or a limit is reached",
        ),
        "EXCEED_MAX_DAILY_PAYMENT_COUNT"
        | "EXCEED_MAX_PAYMENT_AMOUNT"
        | "EXCEED_MAX_ONE_DAY_AMOUNT"
        | "EXCEED_MAX_ONE_DAY_WITHDRAW_AMOUNT"
        | "EXCEED_MAX_MONTHLY_PAYMENT_AMOUNT" => (
            FailureCode::InsufficientFunds,
            "a limit of the payment method is reached",
        ),
        "INVALID_PASSWORD" | "INVALID_AUTHORIZE_AUTH" | "EXCEED_MAX_AUTH_COUNT" => (
            FailureCode::AuthenticationFailed,
            "the customer did not authenticate",
        ),
        "NOT_FOUND_PAYMENT_SESSION" => (
            FailureCode::CardDeclined,
            "the payment was not finished in time",
        ),
        "NOT_AVAILABLE_BANK" | "PROVIDER_ERROR" | "CARD_PROCESSING_ERROR" => (
            FailureCode::CardDeclined,
            "the bank could not be asked; try again",
        ),
        "INVALID_CARD_EXPIRATION" => (FailureCode::CardDeclined, "the card has expired"),
        _ => (FailureCode::CardDeclined, "the payment was declined"),
    };
    of_code(code, message)
}

/// Whether a "no" to a confirmation is about the customer's means, and not a mistake of ours.
pub(super) fn is_decline(failed: &Failed) -> bool {
    !matches!(
        failed.code.as_str(),
        "INVALID_REQUEST"
            | "FORBIDDEN_REQUEST"
            | "NOT_FOUND_PAYMENT"
            | "DUPLICATED_ORDER_ID"
            | "INVALID_ORDER_ID"
            | "INVALID_IDEMPOTENCY_KEY"
    )
}

fn of_code(code: FailureCode, message: &str) -> Decline {
    Decline {
        code: code.name().to_owned(),
        message: message.to_owned(),
    }
}
