//! Events between real processes, over a real broker and a real database, while brokers, relays, consumers and
//! people's tools are killed. Each test prints what it did.
//!
//! What runs by default is short. The long forms are asked for by variables: `EVENTS`, `BROKER_KILLS`, `RELAY_KILLS`,
//! `LEADER_KILLS`, `AGGREGATES`, `VERSIONS`, `CONSUMER_KILLS`.
#![expect(clippy::unwrap_used, reason = "a test")]

mod cluster;
mod dead_letters;
mod outages;
mod projections;
mod support;
