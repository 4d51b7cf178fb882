//! What asks a shop from inside a cluster: `cargo xtask k8s smoke` runs it there, from an image of its own.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tests::roll::load::Load;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Asks a shop from inside a cluster.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Customers who look and buy at a rate, and count what fails.
    Load {
        /// Where the edge is.
        #[arg(long)]
        url: String,
        /// Requests a second.
        #[arg(long)]
        rate: u32,
        /// For how long.
        #[arg(long)]
        seconds: u64,
        /// How many may fail.
        #[arg(long, default_value_t = 0)]
        failed_max: u64,
    },
    /// Whether a connection to each address can be made: a line for each, `open HOST:PORT` or `closed HOST:PORT`.
    Reach {
        /// HOST:PORT.
        #[arg(required = true)]
        targets: Vec<String>,
    },
}

/// How long a connection may take. Packets that a policy drops are answered by nobody.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().what {
        What::Load {
            url,
            rate,
            seconds,
            failed_max,
        } => {
            let load = Load::start(&url, rate).await?;
            sleep(Duration::from_secs(seconds)).await;
            let tally = load.finish().await;
            println!(
                "{} requests, {} purchases, {} failed, p50 {:.1} ms, p99 {:.1} ms",
                tally.requests,
                tally.purchases,
                tally.failed,
                tally.percentile_ms(50),
                tally.percentile_ms(99)
            );
            for failure in &tally.failures {
                println!("    {failure}");
            }
            Ok(if tally.failed <= failed_max {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
        What::Reach { targets } => {
            for target in targets {
                let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(&target)).await;
                let word = if matches!(connected, Ok(Ok(_))) {
                    "open"
                } else {
                    "closed"
                };
                println!("{word} {target}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
