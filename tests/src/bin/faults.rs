//! The fault harness as a program: `cargo xtask faults` builds what it kills, and runs it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tests::faults::fallback::fallback;
use tests::faults::house::Programs;
use tests::faults::provider::adversary;
use tests::faults::{Plan, mixed, outages};

/// Kills processes and servers while customers buy, and checks that nothing was lost or done twice.
#[derive(Parser)]
struct Arguments {
    /// What goes wrong.
    #[arg(value_enum, default_value_t = What::Mixed)]
    what: What,
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
    customers: usize,
    /// The folder with the services' programs.
    #[arg(long)]
    programs: PathBuf,
    /// Where logs, journals and configurations are left. It must not have any yet.
    #[arg(long)]
    folder: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Everything at once.
    Mixed,
    /// The broker is away.
    Broker,
    /// The database is away.
    Postgres,
    /// The provider goes wrong in every way it can, and is killed with payment.
    Provider,
    /// One of two providers is killed, and then hangs.
    Fallback,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let plan = Plan {
        seed: arguments.seed.unwrap_or_else(rand::random),
        duration: Duration::from_secs_f64(arguments.minutes * 60.0),
        customers: arguments.customers,
        programs: Programs {
            folder: arguments.programs,
        },
    };
    println!("SEED={}", plan.seed);
    std::fs::create_dir_all(&arguments.folder)?;
    let folder = &arguments.folder;
    let (report, violations) = match arguments.what {
        What::Mixed => {
            let report = mixed(&plan, folder).await?;
            (report.to_string(), report.violations)
        }
        What::Broker => {
            let outage = outages::broker(&plan, folder).await?;
            (outage.to_string(), outage.violations)
        }
        What::Postgres => {
            let outage = outages::postgres(&plan, folder).await?;
            (outage.to_string(), outage.violations)
        }
        What::Provider => {
            let report = adversary(&plan, arguments.payments, folder).await?;
            (report.to_string(), report.violations)
        }
        What::Fallback => {
            let outage = fallback(&plan, folder).await?;
            (outage.to_string(), outage.violations)
        }
    };
    print!("{report}");
    Ok(if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
