//! The service as a whole over a real database, the simulator and a catalogue in memory.

mod api;
mod crash;
mod flows;
mod idempotency;
mod outcomes;
mod random;
mod table;
pub(crate) mod testing;
