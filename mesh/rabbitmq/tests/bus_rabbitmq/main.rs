//! The bus on a real broker. Each test has an exchange of its own; those that kill or block the broker
//! start one of their own.
#![expect(clippy::unwrap_used, reason = "a test")]

mod consuming;
mod dead_letters;
mod outages;
mod publishing;
mod support;
mod topology;
mod tracing;
