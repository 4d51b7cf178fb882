//! Rolling restarts under load as a program: `cargo xtask roll` builds what it restarts, and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::faults::house::Programs;
use tests::roll::{Plan, roll};

/// Restarts product, payment and edge again and again while customers buy, and counts what fails.
#[derive(Parser)]
struct Arguments {
    /// How often each service is rolled.
    #[arg(long)]
    rolls: u32,
    /// Requests a second.
    #[arg(long)]
    rate: u32,
    /// How long a process still takes calls after it was asked to stop, in milliseconds.
    #[arg(long)]
    drain_wait_ms: u64,
    /// The folder with the services' programs.
    #[arg(long)]
    programs: PathBuf,
    /// Where logs, journals and configurations are left.
    #[arg(long)]
    folder: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let plan = Plan {
        programs: Programs {
            folder: arguments.programs,
        },
        rolls: arguments.rolls,
        rate: arguments.rate,
        drain_wait: Duration::from_millis(arguments.drain_wait_ms),
    };
    let report = roll(&plan, &arguments.folder)?;
    print!("{report}");
    Ok(if report.failed() == 0 && report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
