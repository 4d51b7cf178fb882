//! The same key gets the same answer: records of mutations that carry a request id.
//!
//! `claim` belongs in the transaction of the first state, `complete` in that of the final state.
//! A claim that is never completed is found by `in_flight` or `in_flight_for`, so that recovery
//! completes it and no key stays in flight for ever. Validation and transient errors are not answers:
//! roll back, or `abandon` the claim. These stand with each database, as in [`crate::sqlite::idempotency`].

use sha2::{Digest as _, Sha256};

/// Names one mutation of one caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Who calls. Keys of different principals never meet.
    pub principal: String,
    /// The full method path: `/commerce.payment.v1.PaymentService/CreatePayment`.
    pub method: String,
    /// The caller's own key; never empty.
    pub request_id: String,
    /// Of the request without its request id: see [`fingerprint`].
    pub fingerprint: [u8; 32],
}

/// What is known about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody had it; now the caller has.
    New,
    /// Another call with this key has not finished.
    InFlight {
        /// What that call works on, as given to its [`claim`].
        reference: String,
    },
    /// The stored answer of the same request.
    Replay(Vec<u8>),
    /// The key belongs to a different request.
    Reused,
}

/// A claim that was not completed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The claimed key.
    pub key: Key,
    /// What the call works on: `pay_…`.
    pub reference: String,
    /// When it was claimed, in microseconds since the Unix epoch.
    pub claimed_at_us: i64,
}

/// SHA-256 of a request in its canonical encoding, with the request id cleared.
pub fn fingerprint(request: &[u8]) -> [u8; 32] {
    Sha256::digest(request).into()
}
