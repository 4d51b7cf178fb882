//! The mesh over real loopback gRPC, beside plain tonic where that fails.
#![expect(clippy::unwrap_used, reason = "a test")]

mod balancing;
mod connections;
mod deadlines;
mod discovering;
mod explaining;
mod identity;
mod leaving;
mod lifecycle;
mod limits;
mod party;
mod propagation;
mod reloading;
mod repeating;
mod restarts;
mod rotation;
mod seeing;
#[path = "../support/mod.rs"]
mod support;
