//! What a service with a database has in common with the next one: the process, the two databases, the relay, the
//! consumer and the sweeper, commands that are carried out once, and the errors of all of that.
//!
//! A service says what it is ([`Service`]) and writes its contract, its domain and its SQL; `cargo xtask new-service`
//! starts one. Product and payment have more parts than that knows and open themselves; their processes are the same
//! ([`Program`]).
//! Deliberately missing: anything of a domain, and a model of data over both databases.

mod call;
mod config;
mod database;
mod error;
pub mod postgres;
mod process;
mod service;
pub mod sqlite;

pub use call::{Answer, Call, Claimed};
pub use config::{Config, Process, SweepConfig};
pub use database::Database;
pub use error::{BoxError, Error};
pub use process::{Addresses, Args, Check, Chore, Common, FaultArgs, Program, Task, run};
pub use service::{Opened, Parts, Service, serve};
