//! The whole shop in one process on embedded storage: what `cargo run` starts, and what scenarios
//! test.
//!
//! Every service listens on a loopback port of its own and is called over real gRPC; only the bus is
//! in memory. Deliberately missing: any behaviour of a service. This crate puts parts together.

mod config;
mod data_dir;
mod ground;
mod part;
pub mod program;
mod sample;
mod screen;
mod shop;

pub use config::{Config, EdgeConfig};
pub use data_dir::Storage;
pub use shop::{Options, Progress, Shop};
