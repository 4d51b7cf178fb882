//! What moved customers' money, as Stripe's balance has it: charges, refunds, refunds that came back, disputes.
//!
//! The balance is kept in the currency that the account settles in. What was sold in another one is listed as its
//! source has it, for that is what is booked here; the exchange is in no book. Deliberately missing: several
//! captures of one charge in such a currency, of which the source has the sum only.

use super::amount::from_stripe;
use super::messages::{BalanceTransaction, Named, REFERENCE, Source};
use crate::provider::{Transaction, TransactionKind};
use kernel::{Currency, Money};
use tracing::warn;

/// What a balance transaction is about that is a dispute.
const DISPUTE: &str = "dispute";

/// Which way a customer's money went; fees and payouts are no customer's.
pub(super) fn kind(booked: &BalanceTransaction) -> Option<TransactionKind> {
    match booked.kind.as_str() {
        "charge" | "payment" => Some(TransactionKind::Capture),
        "refund" | "payment_refund" => Some(TransactionKind::Refund),
        "refund_failure" => Some(TransactionKind::RefundReversal),
        "adjustment" if is_dispute(booked.source.as_ref()?) => match booked.amount {
            ..0 => Some(TransactionKind::Dispute),
            0 => None,
            1.. => Some(TransactionKind::DisputeReversal),
        },
        _ => None,
    }
}

/// A movement of a customer's money. That of a dispute does not say yet which charge it is about.
pub(super) fn transaction(booked: &BalanceTransaction) -> Option<Transaction> {
    let kind = kind(booked)?;
    let Some(amount) = amount(booked) else {
        warn!(
            id = booked.id,
            r#type = booked.kind,
            "a movement whose amount cannot be read is left out"
        );
        return None;
    };
    let source = booked.source.as_ref();
    let of_metadata = |name: &str| {
        let metadata = source.and_then(|source| source.metadata.get(name));
        metadata.cloned().unwrap_or_default()
    };
    let reference = match kind {
        // Its metadata are its own; it is known here by Stripe's name.
        TransactionKind::Dispute | TransactionKind::DisputeReversal => {
            source.map(|source| source.id.clone()).unwrap_or_default()
        }
        _ => of_metadata(REFERENCE),
    };
    Some(Transaction {
        id: booked.id.clone(),
        kind,
        charge_reference: match kind {
            TransactionKind::Capture => reference.clone(),
            _ => String::new(),
        },
        reference,
        order_ref: of_metadata("order_ref"),
        amount,
        booked_at_us: booked.created.checked_mul(1_000_000)?,
    })
}

/// The intent whose charge is disputed.
pub(super) fn disputed_intent(booked: BalanceTransaction) -> Option<String> {
    let source = booked.source.filter(is_dispute)?;
    source.payment_intent.map(Named::id)
}

fn is_dispute(source: &Source) -> bool {
    source.object == DISPUTE
}

/// As the balance has it; of what was sold in another currency, as its source has it.
fn amount(booked: &BalanceTransaction) -> Option<Money> {
    let of_balance = (booked.currency.as_str(), booked.amount);
    let of_source = booked.source.as_ref().and_then(|source| {
        let currency = source.currency.as_deref()?;
        let amount = source.amount_captured.or(source.amount)?;
        (!currency.eq_ignore_ascii_case(&booked.currency)).then_some((currency, amount))
    });
    let (currency, units) = of_source.unwrap_or(of_balance);
    let currency = Currency::parse(&currency.to_uppercase()).ok()?;
    from_stripe(currency, units.checked_abs()?)
}
