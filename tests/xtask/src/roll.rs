//! `cargo xtask roll`: builds the services and restarts them one after the other while customers buy.
//!
//! What it leaves behind to look at lies below `target/roll`: logs, configurations, the provider's journal.

use anyhow::{Context as _, Result, bail};

use crate::{
    checkout, faults,
    process::{command, watch},
};

/// The program that restarts and counts.
const HARNESS: &str = "roll";

/// How often, and under what load.
#[derive(clap::Args)]
pub struct Options {
    /// How often each service is rolled: both of its processes, one after the other.
    #[arg(long, default_value_t = 20)]
    rolls: u32,
    /// Requests a second.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// How long a process still takes calls after it was asked to stop, in milliseconds. Seconds on Kubernetes, whose
    /// endpoints spread slowly; here HAProxy asks ten times a second.
    #[arg(long, default_value_t = 1_000)]
    drain_wait_ms: u64,
    /// Programs as they are built for tests.
    #[arg(long)]
    debug: bool,
}

/// Rolls; fails when a request did.
pub fn run(options: &Options) -> Result<()> {
    let harness = checkout::build(HARNESS)?;
    let programs = if options.debug {
        checkout::build_all(&faults::PROGRAMS, false)?
    } else {
        checkout::build_released(&["product", "payment", "edge"], &faults::PROGRAMS)?
    };
    let folder = faults::fresh(&checkout::target()?.join("roll"), "run")?;
    println!("logs and journals: {}", folder.display());
    let mut harness = command(harness);
    let first = programs.first().context("programs were built")?;
    harness.arg("--programs").arg(faults::folder_of(first)?);
    harness.arg("--folder").arg(&folder);
    for (flag, value) in [
        ("--rolls", u64::from(options.rolls)),
        ("--rate", u64::from(options.rate)),
        ("--drain-wait-ms", options.drain_wait_ms),
    ] {
        harness.args([flag, &value.to_string()]);
    }
    let ended = watch(&mut harness)?;
    if !ended.status.success() {
        bail!("the rolling restarts ended with {}", ended.status);
    }
    Ok(())
}
