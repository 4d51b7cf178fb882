//! The simulator over HTTP: the protocol as documented, the provider behind it as if it were in the same
//! process, and the program that serves it.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod far;
mod outcomes;
mod program;
mod protocol;
mod same;
mod strangers;
