//! What every service needs from its database: opened durably, with the tables that reliable calls
//! and events need beside the service's own.
//!
//! [`sqlite`] is the embedded default, [`postgres`] what services share. Each has the modules `idempotency`,
//! `outbox`, `inbox` and `dead_letters`, which work on a connection that the caller gives them, so that what
//! they write commits together with the caller's own change or not at all. [`group`] lets what queues for a commit
//! share the next one.
//!
//! Deliberately absent: a model of the service's data, an object mapper, and a trait over databases.
//! A service writes its own SQL for each database it supports.

pub mod dead_letters;
mod error;
mod folder;
pub mod group;
pub mod idempotency;
pub mod postgres;
mod reads;
mod span;
pub mod sqlite;
#[cfg(test)]
mod testing;

pub use error::{OpenError, Retry, is_unique_violation, retry};
pub use folder::create_folder;
pub use postgres::{Postgres, PostgresConfig};
pub use reads::{Reading, Reads};
pub use sqlite::{Durability, Sqlite, SqliteConfig, Write};
