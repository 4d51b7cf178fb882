//! What every store of the product service has to do, whatever database it is on: each scenario is a
//! function of a fresh `Arc<dyn Store>`. This target runs them on SQLite, `contract_postgres` on PostgreSQL: the
//! same modules beside another `fresh`.

#![expect(
    clippy::unwrap_used,
    reason = "a scenario that cannot go on has failed"
)]

mod catalogue;
mod fresh;
mod harness;
mod import;
mod listing;
mod model;
mod reservations;
mod sequences;
mod transitions;
mod upkeep;
