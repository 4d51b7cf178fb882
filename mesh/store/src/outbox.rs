//! Events wait here, committed with the state change that they tell about, until the bus has
//! confirmed them. [`append`] within the transaction of the change; a `mesh_events::Relay` does the
//! rest through [`SqliteOutbox`].

pub use crate::sqlite::outbox::{SqliteOutbox, append};
