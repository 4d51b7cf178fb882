//! `cargo xtask bench`: builds what is measured and what measures it, optimised, and runs it.
//!
//! What measures is a crate of its own, for it needs clients of the services and their servers; xtask stays light.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{checkout, process::command};

/// Passed on; `cargo xtask bench store --help` says what there is.
#[derive(clap::Args)]
pub struct Options {
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "WHAT"
    )]
    arguments: Vec<OsString>,
}

/// Becomes the program that measures.
pub fn run(options: &Options) -> Result<()> {
    let binaries = checkout::build_all(&["bench", "product", "payment"], true)?;
    let [bench, product, payment] = binaries.as_slice() else {
        unreachable!("as many were built as were asked for");
    };
    let mut bench = command(bench);
    bench.args(&options.arguments);
    bench
        .arg("--product")
        .arg(product)
        .arg("--payment")
        .arg(payment);
    Err(bench.exec()).context("cannot start the benchmark")
}
