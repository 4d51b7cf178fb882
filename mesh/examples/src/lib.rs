//! gRPC's RouteGuide: the handler and a tour of it, the same on every rung. The programs in `src/bin/` are the rungs
//! from plain tonic to the mesh with identity; each differs from the one before by a few lines, which a test counts.
//!
//! Deliberately without deadlines, retries and the like: what the mesh brings is not written by hand first.

mod guide;
mod tour;

pub use guide::Guide;
pub use tour::tour;

/// The messages, client and server of `routeguide`.
#[expect(
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod pb {
    tonic::include_proto!("routeguide");
}
