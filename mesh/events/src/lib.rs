//! Reliable events: every event written with a state change has exactly one effect at each consumer.
//!
//! Read in the order an event travels: [`Event`] is appended to an [`Outbox`] in the transaction of
//! the state change; the [`Relay`] publishes it over a [`Bus`] and removes it only after the bus has
//! confirmed it; a [`Consumer`] hands it to a [`Handler`], which inserts the message id into its
//! inbox in the same transaction as the effect; only then is the delivery acknowledged. What a
//! handler can never apply ends in [`DeadLetters`].
//!
//! Deliberately absent: SQL (the tables are in `mesh_store`), any order between events (a projection
//! compares aggregate versions), and exactly-once delivery (an event may arrive late, twice and in
//! any order; the inbox makes the effect happen once).

mod backoff;
mod bus;
mod consumer;
mod dead_letters;
mod event;
mod fault_points;
mod faults;
mod memory;
mod metrics;
mod outbox;
mod relay;
#[cfg(test)]
mod testing;
mod unruly;

use std::{error::Error, sync::Arc};

pub use backoff::Backoff;
pub use bus::{Bus, BusError, Deliveries, Delivery, PublishError, Settle, Subscription};
pub use consumer::{Consumer, ConsumerConfig, Handler, HandlerError};
pub use dead_letters::{DeadLetter, DeadLetters};
pub use event::Event;
pub use fault_points::{
    AFTER_COMMIT, AFTER_PROVIDER_CALL, BEFORE_COMMIT, BEFORE_PROVIDER_CALL, FaultPoints,
    InvalidFaultPoint, POINTS,
};
pub use faults::{Faults, InvalidFaults};
pub use memory::{InMemoryBus, InMemoryBusConfig};
pub use metrics::Metrics;
pub use outbox::{Outbox, OutboxError, OutboxLag};
pub use relay::{Relay, RelayConfig};

/// Any error, as the cause of one of ours.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Where relays and consumers read the time: microseconds since the Unix epoch, UTC.
///
/// A function, so that tests decide what time it is: `Arc::new(move || clock.now_us())`.
pub type Now = Arc<dyn Fn() -> i64 + Send + Sync>;
