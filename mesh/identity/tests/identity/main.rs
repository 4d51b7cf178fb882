//! Identities as servers and clients use them: files that change, real sockets, refusals by their log
//! lines, peers that are revoked while they are connected.
#![expect(clippy::unwrap_used, reason = "a test")]

mod authority;
mod handshakes;
mod party;
mod refusals;
mod revocation;
mod rotation;
mod start;
