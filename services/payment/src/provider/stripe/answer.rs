//! What Stripe's answers mean: where a charge, a capture or a refund stands, and what an error says about the
//! money. Sources: Stripe's documentation of PaymentIntent states, error types, error codes and decline codes.

use super::messages::{Error, Failed, IntentStatus, PaymentIntent, Refund, RefundStatus};
use crate::failure::FailureCode;
use crate::provider::{ChargeOutcome, Decline, ProviderError, Settlement};
use http::StatusCode;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Problem {
    /// Nothing is known, or nothing was done.
    Provider(ProviderError),
    /// Stripe says no, in its own words, and would say it again.
    No(Box<Error>),
}

impl Problem {
    /// As an error of a command for which a "no" is a mistake of ours.
    pub(super) fn refused(self) -> ProviderError {
        match self {
            Self::Provider(error) => error,
            Self::No(error) => ProviderError::Refused {
                code: first_of(&[&error.code, &error.kind]).to_uppercase(),
                message: error.message,
            },
        }
    }
}

impl From<ProviderError> for Problem {
    fn from(error: ProviderError) -> Self {
        Self::Provider(error)
    }
}

/// What an answer without success says. Only Stripe's own words can say that money did not move.
pub(super) fn problem(status: StatusCode, body: &[u8]) -> Problem {
    let Ok(Failed { error }) = serde_json::from_slice(body) else {
        let reason = format!("answered with {status} by somebody else");
        return ProviderError::Unknown(reason).into();
    };
    let said = format!(
        "{status}: {}: {}",
        first_of(&[&error.code, &error.kind]),
        error.message
    );
    match (status, error.kind.as_str()) {
        // Ours to put right, and no reason to tell a customer that the card was refused.
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            tracing::error!(code = error.code, "stripe does not accept the key");
            ProviderError::Unavailable(said).into()
        }
        (StatusCode::TOO_MANY_REQUESTS, _) => ProviderError::Unavailable(said).into(),
        // The same key is under way, or was used with other parameters: what the first request did is to be asked.
        (StatusCode::CONFLICT, _) | (_, "idempotency_error") => ProviderError::Unknown(said).into(),
        (_, "card_error" | "invalid_request_error") if status.is_client_error() => {
            Problem::No(Box::new(error))
        }
        _ => ProviderError::Unknown(said).into(),
    }
}

/// Where a charge stands.
pub(super) fn charge(intent: &PaymentIntent, ttl_us: i64) -> ChargeOutcome {
    let provider_ref = intent.id.clone();
    match intent.status {
        IntentStatus::RequiresPaymentMethod => {
            ChargeOutcome::Declined(intent.last_payment_error.as_ref().map_or_else(
                || {
                    of_code(
                        FailureCode::CardDeclined,
                        "the payment method was not accepted",
                    )
                },
                decline,
            ))
        }
        IntentStatus::RequiresAction => {
            let redirect = intent
                .next_action
                .as_ref()
                .and_then(|next| next.redirect_to_url.as_ref());
            match redirect.and_then(|redirect| redirect.url.clone()) {
                Some(redirect_url) => ChargeOutcome::ActionRequired { redirect_url },
                None => ChargeOutcome::Declined(of_code(
                    FailureCode::AuthenticationFailed,
                    "the customer would have to authenticate, and there is no page for it",
                )),
            }
        }
        IntentStatus::RequiresCapture => {
            let seconds_us = |seconds: i64| seconds.saturating_mul(1_000_000);
            let by_age = seconds_us(intent.created).saturating_add(ttl_us);
            ChargeOutcome::Authorized {
                provider_ref,
                expires_at_us: intent.capture_before().map_or(by_age, seconds_us),
            }
        }
        IntentStatus::Succeeded | IntentStatus::Canceled if intent.is_given_back() => {
            ChargeOutcome::Voided
        }
        IntentStatus::Succeeded => ChargeOutcome::Captured { provider_ref },
        IntentStatus::Canceled if intent.amount_received > 0 => {
            ChargeOutcome::Captured { provider_ref }
        }
        IntentStatus::Canceled => ChargeOutcome::Voided,
        IntentStatus::RequiresConfirmation | IntentStatus::Processing | IntentStatus::Other => {
            ChargeOutcome::Pending
        }
    }
}

/// Where a capture stands, by its intent; nothing where it was not carried out. In parts, each capture leaves its
/// own mark in the metadata; else the first one is the only one.
pub(super) fn capture(
    intent: &PaymentIntent,
    reference: &str,
    in_parts: bool,
) -> Option<Settlement> {
    if intent.metadata.contains_key(reference) {
        return Some(done(&intent.id));
    }
    match intent.status {
        IntentStatus::Succeeded if !in_parts => Some(done(&intent.id)),
        IntentStatus::Canceled => Some(Settlement::Declined(of_code(
            FailureCode::CardDeclined,
            "the authorisation was given up or has lapsed",
        ))),
        IntentStatus::RequiresCapture | IntentStatus::Succeeded => None,
        IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction
        | IntentStatus::Processing
        | IntentStatus::Other => Some(Settlement::Pending),
    }
}

/// Where a refund stands.
pub(super) fn refund(refund: &Refund) -> Settlement {
    match refund.status {
        Some(RefundStatus::Succeeded) => done(&refund.id),
        Some(RefundStatus::Failed | RefundStatus::Canceled) => {
            let why = refund
                .failure_reason
                .as_deref()
                .unwrap_or("no reason given");
            let message = format!("the refund failed: {}", why.replace('_', " "));
            Settlement::Declined(of_code(FailureCode::CardDeclined, &message))
        }
        Some(RefundStatus::Pending | RefundStatus::RequiresAction | RefundStatus::Other) | None => {
            Settlement::Pending
        }
    }
}

pub(super) fn done(provider_ref: &str) -> Settlement {
    Settlement::Done {
        provider_ref: provider_ref.to_owned(),
    }
}

/// Why a card was refused, in words for its holder. Of a card that is reported lost, stolen or fraudulent nothing
/// is said: Stripe asks for that, so that nobody can try out cards here.
pub(super) fn decline(error: &Error) -> Decline {
    let (code, message) = match first_of(&[&error.decline_code, &error.code]) {
        "insufficient_funds" | "withdrawal_count_limit_exceeded" | "card_velocity_exceeded" => (
            FailureCode::InsufficientFunds,
            "there is not enough money, or a limit is reached",
        ),
        "authentication_required"
        | "authentication_not_handled"
        | "payment_intent_authentication_failure"
        | "setup_intent_authentication_failure" => (
            FailureCode::AuthenticationFailed,
            "the customer did not authenticate",
        ),
        "expired_card" => (FailureCode::CardDeclined, "the card has expired"),
        "incorrect_cvc" | "invalid_cvc" => {
            (FailureCode::CardDeclined, "the security code is not right")
        }
        "incorrect_number" | "invalid_number" | "invalid_expiry_month" | "invalid_expiry_year" => {
            (FailureCode::CardDeclined, "the card's data is not right")
        }
        "card_not_supported" | "currency_not_supported" => (
            FailureCode::CardDeclined,
            "the card does not take this kind of payment",
        ),
        "processing_error" | "issuer_not_available" | "try_again_later" | "reenter_transaction" => {
            (
                FailureCode::CardDeclined,
                "the card could not be asked; try again",
            )
        }
        "charge_expired_for_capture" => (FailureCode::CardDeclined, "the authorisation has lapsed"),
        _ => (FailureCode::CardDeclined, "the card was declined"),
    };
    of_code(code, message)
}

fn of_code(code: FailureCode, message: &str) -> Decline {
    Decline {
        code: code.name().to_owned(),
        message: message.to_owned(),
    }
}

fn first_of<'a>(texts: &[&'a str]) -> &'a str {
    texts
        .iter()
        .copied()
        .find(|text| !text.is_empty())
        .unwrap_or("unknown")
}
