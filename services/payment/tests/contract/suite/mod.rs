//! The service as a whole over a real database, the simulator and a catalogue in memory; and its storage
//! alone, where that says more.

mod accountant;
mod api;
mod audit;
mod bank;
mod books;
mod bulk;
mod catalogue;
mod changes;
mod charges;
mod check;
pub(crate) mod crash;
mod disputes;
mod disputes_amiss;
mod flows;
pub(crate) mod fuse;
mod idempotency;
mod leases;
mod limits;
mod operators;
mod outcomes;
mod random;
mod reconcile;
mod reconcile_amiss;
mod reconcile_banks;
mod reconcile_bulk;
mod replicas;
mod returned;
mod routing;
mod sequences;
mod table;
mod unknown;
pub(crate) mod world;
