//! What a consumer has applied already. [`insert`] in the transaction of the effect; then an event
//! that is delivered twice has its effect once.

pub use crate::sqlite::inbox::{insert, sweep};
