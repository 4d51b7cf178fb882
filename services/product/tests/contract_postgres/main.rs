//! The contract of every store on PostgreSQL, and what only a shared database has to stand.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod fresh;
mod replicas;

#[path = "../contract/catalogue.rs"]
mod catalogue;
#[path = "../contract/harness.rs"]
mod harness;
#[path = "../contract/import.rs"]
mod import;
#[path = "../contract/listing.rs"]
mod listing;
#[path = "../contract/model.rs"]
mod model;
#[path = "../contract/reservations.rs"]
mod reservations;
#[path = "../contract/sequences.rs"]
mod sequences;
#[path = "../contract/transitions.rs"]
mod transitions;
#[path = "../contract/upkeep.rs"]
mod upkeep;
