//! `cargo xtask faults`: builds the services and lets the fault harness kill them.
//!
//! What it leaves behind to look at lies below `target/faults`: logs, configurations, the acknowledged answers.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{
    checkout,
    process::{cargo, command, watch},
};

/// The programs that are killed.
pub const PROGRAMS: [&str; 4] = ["product", "payment", "edge", "simulator"];
/// The variable that tells the harness's tests where they are.
pub const PROGRAMS_VARIABLE: &str = "SHOP_PROGRAMS";
/// The program that kills them.
const HARNESS: &str = "faults";

/// What to try, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// What goes wrong: mixed (everything at once), broker or postgres (away for the time), provider (it goes wrong
    /// in every way it can, and is killed with payment, until so many payments were begun), fallback (one of two
    /// providers is killed, and then hangs), mesh (its own tests of resets, restarts, rotations and rates, at full
    /// size; for a machine that has nothing else to do).
    #[arg(default_value = "mixed")]
    what: String,
    /// Where all chance comes from; another one each time, unless given.
    #[arg(long)]
    seed: Option<u32>,
    /// For how long.
    #[arg(long, default_value_t = 15.0)]
    minutes: f64,
    /// How many payments are begun, where that decides how long it takes.
    #[arg(long, default_value_t = 20_000)]
    payments: u64,
    /// Customers at the same time.
    #[arg(long, default_value_t = 12)]
    customers: u32,
    /// Optimised binaries.
    #[arg(long)]
    release: bool,
}

/// What the mesh's own tests do less often, and leave to chance, where `cargo xtask test` runs them.
const FULL_SIZE: [(&str, &str); 4] = [
    ("MESH_TEST_RESETS", "1000000"),
    ("MESH_TEST_RESTARTS", "100"),
    ("MESH_TEST_ROTATIONS", "1000"),
    ("MESH_TEST_RATES", "1"),
];
/// Which these are, by parts of their names.
const SIZED: [&str; 5] = [
    "resets::",
    "restarts::",
    "rotation::",
    "hops::",
    "balancers::",
];

/// Runs the harness; fails when it finds a violation.
pub fn run(options: &Options) -> Result<()> {
    if options.what == "mesh" {
        return mesh(options.release);
    }
    let mut names = PROGRAMS.to_vec();
    names.push(HARNESS);
    let programs = checkout::build_all(&names, options.release)?;
    let harness = programs.last().context("the harness was built")?;
    let folder = fresh(&checkout::target()?.join("faults"), &options.what)?;
    println!("logs and journals: {}", folder.display());
    let mut harness = command(harness);
    harness.arg(&options.what);
    harness.arg("--programs").arg(folder_of(&programs[0])?);
    harness.arg("--folder").arg(&folder);
    harness.args(["--minutes", &options.minutes.to_string()]);
    harness.args(["--payments", &options.payments.to_string()]);
    harness.args(["--customers", &options.customers.to_string()]);
    if let Some(seed) = options.seed {
        harness.args(["--seed", &seed.to_string()]);
    }
    let ended = watch(&mut harness)?;
    if !ended.status.success() {
        bail!("the fault harness ended with {}", ended.status);
    }
    Ok(())
}

fn mesh(release: bool) -> Result<()> {
    let mut tests = cargo();
    tests.args(["test", "--package", "commerce-mesh", "--test", "rpc"]);
    if release {
        tests.arg("--release");
    }
    tests.args(["--", "--test-threads", "1", "--nocapture"]);
    let ended = watch(tests.args(SIZED).envs(FULL_SIZE))?;
    if !ended.status.success() {
        bail!("the mesh's tests ended with {}", ended.status);
    }
    Ok(())
}

/// The folder that all programs lie in.
pub(crate) fn folder_of(program: &Path) -> Result<&Path> {
    program.parent().context("a program lies in a folder")
}

/// A folder that is not there yet: `mixed-1`, `mixed-2`, ….
pub(crate) fn fresh(parent: &Path, name: &str) -> Result<PathBuf> {
    let numbered = (1..).map(|number: u32| parent.join(format!("{name}-{number}")));
    let mut free = numbered.filter(|folder| !folder.exists());
    let folder = free.next().context("there is a free number")?;
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}
