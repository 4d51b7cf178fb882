//! The mesh over real loopback gRPC, beside plain tonic where that fails.

mod balancing;
mod connections;
mod deadlines;
mod discovering;
mod lifecycle;
mod limits;
mod propagation;
mod repeating;
mod restarts;
#[path = "../support/mod.rs"]
mod support;
