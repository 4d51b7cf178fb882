//! Calls of the saga to the provider, and what the provider's answers mean to the domain.
//!
//! A look-up that fails says nothing about what it asked for: that stays unknown. Only a failed
//! command may be known to have had no effect.

use crate::dispute::SeenDispute;
use crate::failure::{Failure, FailureCode};
use crate::provider::{
    AcceptDispute, Authorize, Capture, ChargeOutcome, Decline, Provider, ProviderError, Refund,
    Settlement, SubmitEvidence, UNSUPPORTED, Void,
};
use crate::record::{ChargeAnswer, DisputesAnswer, Report, ResponseAnswer, SettlementAnswer};
use crate::step::{DisputeCall, MoneyCall};
use kernel::{AttemptId, DisputeId};
use std::time::Duration;

/// Makes a call; one that takes longer than `limit` has an unknown outcome.
pub async fn ask_provider(provider: &dyn Provider, call: &MoneyCall, limit: Duration) -> Report {
    match call {
        MoneyCall::Authorize {
            attempt,
            payment,
            amount,
            payment_method,
            order_ref,
            capture,
        } => {
            let request = Authorize {
                reference: attempt.to_string(),
                payment_reference: payment.to_string(),
                amount: *amount,
                payment_method: payment_method.clone(),
                order_ref: order_ref.clone(),
                capture: *capture,
            };
            Report::Charge(
                *attempt,
                charge(within(limit, provider.authorize(&request)).await),
            )
        }
        MoneyCall::LookUpCharge { attempt } => {
            let reference = attempt.to_string();
            let answer = match within(limit, provider.look_up_charge(&reference)).await {
                Ok(Some(outcome)) => charge(Ok(outcome)),
                Ok(None) => ChargeAnswer::NotFound,
                Err(_) => ChargeAnswer::Unknown,
            };
            Report::Charge(*attempt, answer)
        }
        MoneyCall::Capture {
            capture,
            attempt,
            amount,
            last,
        } => {
            let request = Capture {
                reference: capture.to_string(),
                charge_reference: attempt.to_string(),
                amount: *amount,
                last: *last,
            };
            Report::Capture(
                *capture,
                settled(within(limit, provider.capture(&request)).await),
            )
        }
        MoneyCall::LookUpCapture { capture } => Report::Capture(
            *capture,
            look_up(provider, &capture.to_string(), limit).await,
        ),
        MoneyCall::Void { attempt } => {
            let request = Void {
                charge_reference: attempt.to_string(),
            };
            Report::Reverse(
                *attempt,
                settled(within(limit, provider.void(&request)).await),
            )
        }
        MoneyCall::Reverse { attempt, amount } => {
            let request = Refund {
                reference: reversal_reference(*attempt),
                charge_reference: attempt.to_string(),
                amount: *amount,
            };
            Report::Reverse(
                *attempt,
                settled(within(limit, provider.refund(&request)).await),
            )
        }
        MoneyCall::LookUpReversal { attempt } => Report::Reverse(
            *attempt,
            look_up(provider, &reversal_reference(*attempt), limit).await,
        ),
        MoneyCall::Refund {
            refund,
            attempt,
            amount,
        } => {
            let request = Refund {
                reference: refund.to_string(),
                charge_reference: attempt.to_string(),
                amount: *amount,
            };
            Report::Refund(
                *refund,
                settled(within(limit, provider.refund(&request)).await),
            )
        }
        MoneyCall::LookUpRefund { refund } => {
            Report::Refund(*refund, look_up(provider, &refund.to_string(), limit).await)
        }
        MoneyCall::Dispute(call) => ask_about_dispute(provider, call, limit).await,
    }
}

async fn ask_about_dispute(provider: &dyn Provider, call: &DisputeCall, limit: Duration) -> Report {
    match call {
        DisputeCall::LookUp { attempt } => {
            let reference = attempt.to_string();
            let seen = within(limit, provider.look_up_disputes(&reference)).await;
            Report::Disputes(*attempt, disputes(seen))
        }
        DisputeCall::Accept {
            dispute,
            provider_ref,
            reference,
        } => {
            let request = AcceptDispute {
                reference: reference.clone(),
                dispute_ref: provider_ref.clone(),
            };
            let answer = within(limit, provider.accept_dispute(&request)).await;
            Report::Response(*dispute, responded(answer))
        }
        DisputeCall::SubmitEvidence { dispute, .. } => {
            Report::Response(*dispute, ResponseAnswer::Unavailable) // It needs what the store keeps.
        }
    }
}

/// Hands in what the store keeps for a dispute.
pub async fn submit_evidence(
    provider: &dyn Provider,
    dispute: DisputeId,
    request: &SubmitEvidence,
    limit: Duration,
) -> Report {
    let answer = within(limit, provider.submit_evidence(request)).await;
    Report::Response(dispute, responded(answer))
}

/// The answer to a call whose provider is not configured: as if it could not be reached.
pub(crate) fn not_configured(call: &MoneyCall) -> Report {
    match call {
        MoneyCall::Authorize { attempt, .. } => Report::Charge(*attempt, ChargeAnswer::Unavailable),
        MoneyCall::LookUpCharge { attempt } => Report::Charge(*attempt, ChargeAnswer::Unknown),
        MoneyCall::Capture { capture, .. } => {
            Report::Capture(*capture, SettlementAnswer::Unavailable)
        }
        MoneyCall::LookUpCapture { capture } => {
            Report::Capture(*capture, SettlementAnswer::Unknown)
        }
        MoneyCall::Void { attempt } | MoneyCall::Reverse { attempt, .. } => {
            Report::Reverse(*attempt, SettlementAnswer::Unavailable)
        }
        MoneyCall::LookUpReversal { attempt } => {
            Report::Reverse(*attempt, SettlementAnswer::Unknown)
        }
        MoneyCall::Refund { refund, .. } => Report::Refund(*refund, SettlementAnswer::Unavailable),
        MoneyCall::LookUpRefund { refund } => Report::Refund(*refund, SettlementAnswer::Unknown),
        MoneyCall::Dispute(call) => match call {
            DisputeCall::LookUp { attempt } => Report::Disputes(*attempt, DisputesAnswer::Unknown),
            DisputeCall::SubmitEvidence { dispute, .. } | DisputeCall::Accept { dispute, .. } => {
                Report::Response(*dispute, ResponseAnswer::Unavailable)
            }
        },
    }
}

/// The refund of all that an attempt took is no refund of a payment, and has no id of its own.
fn reversal_reference(attempt: AttemptId) -> String {
    format!("{attempt}-reversal")
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, ProviderError>>,
) -> Result<T, ProviderError> {
    let late = |_| ProviderError::Unknown(format!("no answer within {limit:?}"));
    tokio::time::timeout(limit, call).await.map_err(late)?
}

async fn look_up(provider: &dyn Provider, reference: &str, limit: Duration) -> SettlementAnswer {
    match within(limit, provider.look_up_settlement(reference)).await {
        Ok(Some(settlement)) => settled(Ok(settlement)),
        Ok(None) => SettlementAnswer::NotFound,
        Err(_) => SettlementAnswer::Unknown,
    }
}

fn charge(outcome: Result<ChargeOutcome, ProviderError>) -> ChargeAnswer {
    match outcome {
        Ok(ChargeOutcome::Authorized { expires_at_us, .. }) => {
            ChargeAnswer::Authorized { expires_at_us }
        }
        Ok(ChargeOutcome::Captured { .. }) => ChargeAnswer::Taken,
        Ok(ChargeOutcome::ActionRequired { redirect_url }) => {
            ChargeAnswer::ActionRequired { redirect_url }
        }
        Ok(ChargeOutcome::Declined(decline)) => ChargeAnswer::Declined(failure(decline)),
        Ok(ChargeOutcome::Pending) => ChargeAnswer::Pending,
        Ok(ChargeOutcome::Voided) => ChargeAnswer::Voided,
        Err(ProviderError::Unavailable(_)) => ChargeAnswer::Unavailable,
        Err(ProviderError::Unknown(_)) => ChargeAnswer::Unknown,
        Err(ProviderError::Refused { code, message }) => {
            ChargeAnswer::Declined(refused(&code, message))
        }
    }
}

fn settled(settlement: Result<Settlement, ProviderError>) -> SettlementAnswer {
    match settlement {
        Ok(Settlement::Done { .. }) => SettlementAnswer::Done,
        Ok(Settlement::Declined(decline)) => SettlementAnswer::Declined(failure(decline)),
        Ok(Settlement::Pending) => SettlementAnswer::Pending,
        Err(ProviderError::Unavailable(_)) => SettlementAnswer::Unavailable,
        Err(ProviderError::Unknown(_)) => SettlementAnswer::Unknown,
        Err(ProviderError::Refused { code, message }) => {
            SettlementAnswer::Declined(refused(&code, message))
        }
    }
}

fn disputes(seen: Result<Vec<SeenDispute>, ProviderError>) -> DisputesAnswer {
    match seen {
        Ok(seen) if seen.iter().all(is_about_money) => DisputesAnswer::Seen(seen),
        Ok(_) => DisputesAnswer::Unknown,
        Err(ProviderError::Refused { code, .. }) if code == UNSUPPORTED => {
            DisputesAnswer::Unsupported
        }
        Err(error) => {
            tracing::debug!(%error, "disputes are asked about again");
            DisputesAnswer::Unknown
        }
    }
}

/// What is not cannot be booked: a provider that says so is asked again.
fn is_about_money(seen: &SeenDispute) -> bool {
    let is = seen.amount.amount_minor() > 0;
    if !is {
        tracing::warn!(dispute = seen.provider_ref, "a dispute without an amount");
    }
    is
}

fn responded(answer: Result<SeenDispute, ProviderError>) -> ResponseAnswer {
    match answer {
        Ok(seen) if is_about_money(&seen) => ResponseAnswer::Taken(Box::new(seen)),
        Ok(_) | Err(ProviderError::Unknown(_)) => ResponseAnswer::Unknown,
        Err(ProviderError::Unavailable(_)) => ResponseAnswer::Unavailable,
        Err(ProviderError::Refused { code, message }) => {
            tracing::warn!(
                code,
                message,
                "the provider refused a response to a dispute"
            );
            ResponseAnswer::Refused(Failure::new(FailureCode::ProviderRefused, message))
        }
    }
}

fn failure(decline: Decline) -> Failure {
    let code = FailureCode::parse(&decline.code).unwrap_or(FailureCode::CardDeclined);
    Failure::new(code, decline.message)
}

/// The command itself was wrong, and would be wrong again.
fn refused(code: &str, message: String) -> Failure {
    tracing::warn!(code, message, "the provider refused a command");
    Failure::new(FailureCode::CardDeclined, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispute::DisputeState;
    use kernel::{Currency, Money};

    #[test]
    fn a_dispute_without_an_amount_is_no_answer() {
        let of = |amount_minor| SeenDispute {
            provider_ref: "dp_1".to_owned(),
            state: DisputeState::NeedsResponse,
            amount: Money::new(Currency::parse("USD").unwrap(), amount_minor).unwrap(),
            reason: String::new(),
            evidence_due_at_us: None,
            withdrawn: true,
            reinstated: false,
            responded: false,
        };
        for amount_minor in [0, -5] {
            let seen = of(amount_minor);
            assert_eq!(
                disputes(Ok(vec![of(5), seen.clone()])),
                DisputesAnswer::Unknown
            );
            assert_eq!(responded(Ok(seen)), ResponseAnswer::Unknown);
        }
        assert_eq!(disputes(Ok(vec![of(5)])), DisputesAnswer::Seen(vec![of(5)]));
    }
}
