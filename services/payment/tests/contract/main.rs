//! What the service has to do whatever database it is on, here on SQLite; and what only SQLite has to.
//! `contract_postgres.rs` runs the same suite on PostgreSQL.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod restart;
#[path = "sqlite.rs"]
mod storage;
mod suite;
