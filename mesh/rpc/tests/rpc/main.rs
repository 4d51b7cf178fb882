//! The mesh over real loopback gRPC, beside plain tonic where that fails.
#![expect(clippy::unwrap_used, reason = "a test")]

mod balancing;
mod connections;
mod counting;
mod deadlines;
mod discovering;
mod explaining;
mod faults;
mod headers;
mod hops;
mod identity;
mod kills;
mod layering;
mod leaving;
mod lifecycle;
mod limits;
mod overload;
mod party;
mod propagation;
mod reloading;
mod repeating;
mod resets;
mod restarts;
mod revoking;
mod rotation;
mod seeing;
mod silence;
#[path = "../support/mod.rs"]
mod support;
mod tonic_defects;
