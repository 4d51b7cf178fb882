//! What a shop does, seen from outside: over REST and gRPC, with its databases looked at afterwards.
#![expect(clippy::unwrap_used, reason = "a test")]

mod access;
mod bad_input;
mod canaries;
mod captures;
mod catalogue;
mod disputes;
mod grpc;
mod history;
mod ledger_history;
mod outages;
mod planted_bugs;
mod provider;
mod purchase;
mod races;
mod refunds;
mod routes;
mod watch;
