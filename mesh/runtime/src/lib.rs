//! What every process needs: configuration, telemetry, admin endpoint, clock, graceful shutdown.
//!
//! A `main` is then a list: parse arguments, [`config::load`], [`telemetry::init`],
//! [`open_files::raise`], [`shutdown::on_signal`], run with a [`Background`], [`shutdown::drain`].
//!
//! Deliberately without: anything of gRPC, SQL or a broker; global state beside the log subscriber,
//! which every Rust program has once.

pub mod admin;
mod background;
mod clock;
pub mod config;
pub mod open_files;
mod open_metrics;
pub mod shutdown;
pub mod telemetry;

pub use background::{Background, EndedEarly};
pub use clock::Clock;
