//! The mesh over real loopback gRPC, beside plain tonic where that fails.

mod balancing;
mod deadlines;
mod discovering;
mod explaining;
mod lifecycle;
mod limits;
mod propagation;
mod reloading;
mod repeating;
mod seeing;
#[path = "../support/mod.rs"]
mod support;
