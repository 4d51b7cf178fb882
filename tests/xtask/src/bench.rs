//! `cargo xtask bench`: builds what is measured and what measures it, optimised, and runs it.
//!
//! What measures is a crate of its own, for it needs clients of the services and their servers; xtask stays light.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Context as _, Result};

use crate::{checkout, process::command};

/// Passed on; `cargo xtask bench --help` says what there is.
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
    // Of the services only what measures them needs a build.
    let services: &[&str] = match options.arguments.first() {
        Some(what) if what == "store" => &["product", "payment"],
        _ => &[],
    };
    let names = [&["bench"], services].concat(); // Of packages and of their binaries.
    let binaries = checkout::build_released(&names, &names)?;
    let mut bench = command(&binaries[0]);
    bench.args(&options.arguments);
    for (service, binary) in services.iter().zip(&binaries[1..]) {
        bench.arg(format!("--{service}")).arg(binary);
    }
    Err(bench.exec()).context("cannot start the benchmark")
}
