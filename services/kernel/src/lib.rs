//! Values that mean the same in every service: money, ids, page tokens, filters, days and the rules
//! for text that comes from outside.
//!
//! Everything here is pure: no I/O, no clock (`now_us` is an argument), no storage, no transport.
//! Deliberately missing: exchange rates and rounding of fractions (an amount is whole minor units),
//! SQL (a store turns a [`filter::Expr`] into its own dialect), and protobuf types.

pub mod cursor;
pub mod day;
pub mod filter;
pub mod id;
pub mod money;
pub mod order_by;
pub mod text;

mod currency;

pub use currency::{Currency, UnknownCurrency};
pub use id::{
    AttemptId, CaptureId, DisputeId, InvalidId, PaymentId, ProductId, RefundId, ReservationId,
    SettlementId, TransactionId,
};
pub use money::{AMOUNT_MINOR_MAX, Money, MoneyError, allocate};
pub use text::Invalid;
