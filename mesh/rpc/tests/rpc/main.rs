//! The mesh over real loopback gRPC, beside plain tonic where that fails.

mod deadlines;
mod lifecycle;
mod limits;
mod propagation;
#[path = "../support/mod.rs"]
mod support;
