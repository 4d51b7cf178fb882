//! `cargo xtask check`: asks a running shop for every invariant; by default the one of `cargo xtask up`.

use std::{ffi::OsString, path::PathBuf};

use anyhow::{Result, bail};

use crate::{
    checkout,
    process::{command, watch},
};

/// The file below `target` in which `cargo xtask up` says where everything is.
pub(crate) const PLACES: &str = "up/places.json";

/// Which shop.
#[derive(clap::Args)]
pub struct Options {
    /// The data folder of an embedded shop (`cargo run`), instead of the shop of `cargo xtask up`.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// A file that says where another shop of processes is, as `target/up/places.json` does.
    #[arg(long, value_name = "FILE", conflicts_with = "data_dir")]
    places: Option<PathBuf>,
    /// The answers that were acknowledged: `acknowledged.jsonl` of the fault harness.
    #[arg(long, value_name = "FILE")]
    acknowledged: Option<PathBuf>,
}

/// Runs the checker; fails when it finds a violation.
pub fn run(options: &Options) -> Result<()> {
    let mut check = command(checkout::build("check")?);
    let mut add = |flag: &str, file: Option<PathBuf>| -> Result<()> {
        if let Some(file) = file {
            check.args([OsString::from(flag), std::path::absolute(file)?.into()]);
        }
        Ok(())
    };
    let places = match (&options.data_dir, &options.places) {
        (None, None) => Some(checkout::target()?.join(PLACES)),
        (_, places) => places.clone(),
    };
    add("--data-dir", options.data_dir.clone())?;
    add("--places", places)?;
    add("--acknowledged", options.acknowledged.clone())?;
    let ended = watch(&mut check)?;
    if !ended.status.success() {
        bail!("the checker ended with {}", ended.status);
    }
    Ok(())
}
