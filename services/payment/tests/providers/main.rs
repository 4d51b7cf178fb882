//! The adapters of real providers: what they send, and what they make of the answers.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod golden;
mod notes;
mod recorder;
mod stripe;
mod stripe_disputes;
mod stripe_statement;
mod toss;
mod toss_stand_in;
