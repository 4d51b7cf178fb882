//! The edge against a real gRPC server with a contract of the tests' own: nothing of commerce is known here.

#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps says where it failed"
)]

mod access;
mod harness;
mod limits;
mod notes;
mod pages;
mod requests;
mod streams;
