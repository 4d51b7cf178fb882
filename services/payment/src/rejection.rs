//! Why a command is not carried out, in the words of the domain.
//!
//! Deliberately without status codes: `error.rs` gives each its code and reason.

use crate::dispute::DisputeState;
use crate::state::{Command, State};
use kernel::{Currency, DisputeId, Invalid, Money, PaymentId};

/// A command that the rules forbid. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// A value of the request breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The payment's state does not allow it.
    #[error("payment {id} cannot be {} now: {why}", command.verb())]
    State {
        /// The payment.
        id: PaymentId,
        /// What was asked.
        command: Command,
        /// Where it stands.
        state: State,
        /// What stands in the way, for people.
        why: String,
    },
    /// More units of an item than are left.
    #[error("{asked} of {sku:?} asked for, {left} left")]
    QuantityExceeded {
        /// The item.
        sku: String,
        /// Units asked for.
        asked: i64,
        /// Units that are left.
        left: i64,
    },
    /// A larger amount than is left.
    #[error("{asked} asked for, {left} left")]
    AmountExceeded {
        /// The amount asked for.
        asked: Money,
        /// What is left.
        left: Money,
    },
    /// A refund of a payment of which nothing was captured.
    #[error("nothing of payment {0} was captured")]
    NothingCaptured(PaymentId),
    /// A refund of items for which no captured money is left.
    #[error("no captured money is left for what is to be refunded of payment {0}")]
    NothingLeft(PaymentId),
    /// The sum is zero.
    #[error("there is nothing to pay: the sum is zero")]
    NothingToPay,
    /// The amount is not what the caller expects.
    #[error("the amount is {actual}, not {expected}")]
    PriceChanged {
        /// What the caller expects to pay.
        expected: Money,
        /// What is to be paid.
        actual: Money,
    },
    /// Another payment of this caller, not canceled, carries the order.
    #[error("order {order_ref:?} is taken by payment {id}")]
    OrderRefTaken {
        /// The order.
        order_ref: String,
        /// The payment that carries it.
        id: PaymentId,
    },
    /// Less than this is left beside what disputes have taken: the customer would get it twice.
    #[error(
        "disputes hold {disputed_minor} minor units of payment {id}; {left} can be refunded beside them"
    )]
    Disputed {
        /// The payment.
        id: PaymentId,
        /// What disputes have taken.
        disputed_minor: i64,
        /// What can be refunded.
        left: Money,
    },
    /// A dispute's state does not allow it.
    #[error("dispute {id} takes no response now: {why}")]
    DisputeState {
        /// The dispute.
        id: DisputeId,
        /// Where it stands.
        state: DisputeState,
        /// What stands in the way, for people.
        why: String,
    },
    /// There is no such dispute of the payment.
    #[error("dispute {0} not found")]
    NoSuchDispute(DisputeId),
    /// The provider takes no responses to disputes through its interface.
    #[error(
        "provider {provider} takes no evidence through its interface: respond on its own pages"
    )]
    DisputesUnsupported {
        /// The provider.
        provider: String,
    },
    /// The caller has asked for as much as it may within a window.
    #[error("the caller's limit for {currency} within {window_s} s is reached{}", left_of(*left))]
    LimitReached {
        /// The currency that is limited.
        currency: Currency,
        /// The length of the window.
        window_s: i64,
        /// What is left of the amount; nothing where the number of charges is what is reached.
        left: Option<Money>,
        /// How long until the next window begins; nothing where the charge fits into none.
        retry_us: Option<i64>,
    },
}

fn left_of(left: Option<Money>) -> String {
    left.map_or_else(String::new, |left| format!(": {left} left"))
}
