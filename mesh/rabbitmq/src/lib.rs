//! RabbitMQ as the bus of `mesh_events`, where the services are processes of their own.
//!
//! An event goes to a topic exchange under its kind. Each consumer has one quorum queue bound to the
//! kinds it wants, a ladder of retry queues with a fixed TTL each that dead-letter back into that
//! queue only, and a dead-letter queue ([`declare`]). What counts as published was confirmed by the
//! broker and not returned ([`RabbitMqBus`]). What can not be applied waits in the dead-letter queue
//! for people ([`RabbitMqDeadLetters`]): the broker itself puts letters there, so a second place in a
//! database would only be one more to look into.
//!
//! Needs RabbitMQ 3.10 or newer: older ones accept the arguments of these queues and ignore them.
//! Deliberately absent: unbinding kinds that a consumer no longer wants (AMQP can not list bindings),
//! client certificates, and requeueing with `basic.nack` or `basic.reject`, which several versions
//! count towards the delivery limit.

mod bus;
mod config;
mod connect;
mod dead_letters;
mod deliveries;
mod envelope;
mod error;
mod lag;
mod link;
mod metrics;
mod publisher;
mod topology;

pub use bus::RabbitMqBus;
pub use config::RabbitMqConfig;
pub use dead_letters::{Letter, LetterFilter, RabbitMqDeadLetters, Replayed};
pub use error::RabbitMqError;
pub use lag::{QueueLag, lag};
pub use metrics::Metrics;
pub use topology::declare;
