//! What every store of the product service has to do, whatever database it is on: each scenario is a
//! function of a fresh `Arc<dyn Store>`, and `on_every_store!` runs it on each of them.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod catalogue;
mod harness;
mod import;
mod listing;
mod model;
mod reservations;
mod sequences;
mod transitions;
mod upkeep;
