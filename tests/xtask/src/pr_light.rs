//! `cargo xtask pr-light`: what a pull request is checked for at once, and no more than it affects.
//!
//! Formatting, lints and light tests of the affected crates; buf where contracts changed; the workflow lint where
//! pipelines did. What needs a server, a browser or a cluster's tools belongs to the heavy pipeline beside the
//! review.

use anyhow::{Result, bail};

use crate::{
    affected::{self, Area},
    test, verify,
};

/// Since when.
#[derive(clap::Args)]
pub struct Options {
    /// The branch that the change goes to, such as origin/main.
    #[arg(long, value_name = "REF")]
    base: String,
}

/// Runs all parts, so that one failure does not hide another.
pub fn run(options: &Options) -> Result<()> {
    let (files, affected) = affected::since(&options.base)?;
    let crates: Vec<_> = affected.crates.iter().map(String::as_str).collect();
    println!(
        "{} files changed; crates: {}",
        files.len(),
        crates.join(" ")
    );
    let mut failed = Vec::new();
    if !affected.crates.is_empty() {
        failed.extend(test::run_light(&affected.crates).err());
    }
    let checks: Vec<_> = affected
        .areas
        .iter()
        .flat_map(|area| checks(*area))
        .copied()
        .collect();
    if !checks.is_empty() {
        failed.extend(verify::run_only(&checks).err());
    }
    if failed.is_empty() {
        return Ok(());
    }
    let failed: Vec<_> = failed.iter().map(|error| format!("{error:#}")).collect();
    bail!("{}", failed.join("; "))
}

/// The checks of `cargo xtask verify` that are light enough and belong to an area.
fn checks(area: Area) -> &'static [&'static str] {
    match area {
        Area::Proto => &["buf-lint", "buf-breaking"],
        Area::Workflows => &["workflows"],
        Area::K8s | Area::Tools | Area::Docs => &[],
    }
}
