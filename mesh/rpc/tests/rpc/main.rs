//! The mesh over real loopback gRPC, beside plain tonic where that fails.
#![expect(clippy::unwrap_used, reason = "a test")]

mod balancing;
mod connections;
mod deadlines;
mod discovering;
mod identity;
mod lifecycle;
mod limits;
mod party;
mod propagation;
mod repeating;
mod restarts;
mod rotation;
#[path = "../support/mod.rs"]
mod support;
