//! `cargo xtask bench store`: the services on PostgreSQL and RabbitMQ, beside pgbench on the same server.
//!
//! A round runs each thing for a few seconds, one after another, so that what disturbs the machine disturbs all of
//! them; ratios are taken round by round. Every run is verified: as many rows in the state they should be in as
//! answers were given. The services are release builds, processes of their own with their default configuration; the
//! load generator shares the machine with them, as pgbench does.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use xtask::servers::Servers;

use crate::{
    figures::Figure,
    house::{self, House},
    pages, pgbench, relay, report, rounds, seed,
};

/// Products and payments that there are at first.
const SIZE_SMALL: u64 = 10_000;
/// As pgbench's `--jobs`.
const THREADS: usize = 2;

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds; what is reported is their median and their range.
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// How long each thing runs in a round, in seconds.
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Clients at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [8, 32])]
    pub(crate) clients: Vec<usize>,
    /// Products and payments that there are when everything is measured once more; at most 10000: it is not.
    #[arg(long, default_value_t = 1_000_000)]
    size: u64,
    /// Measure only these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Figure>,
    /// Write the tables into docs/performance.md.
    #[arg(long)]
    write: bool,
    /// Print what PostgreSQL spent its time on, by statement; counting makes everything a little slower.
    #[arg(long, conflicts_with = "write")]
    pub(crate) profile: bool,
    /// The release build of product.
    #[arg(long, value_name = "FILE")]
    product: PathBuf,
    /// The release build of payment.
    #[arg(long, value_name = "FILE")]
    payment: PathBuf,
}

impl Options {
    pub(crate) fn wants(&self, figure: Figure) -> bool {
        self.only.is_empty() || self.only.contains(&figure)
    }

    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// Measures and reports. To be called from the main thread: the servers end with the thread that started them.
pub(crate) fn run(options: &Options) -> Result<()> {
    println!("starting PostgreSQL and RabbitMQ");
    let servers = house::servers(options.profile)?;
    let folder = tempfile::tempdir()?;
    println!("filling pgbench's tables");
    pgbench::initialise(servers.postgres())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(options, &servers, folder.path()))?;
    println!("\n{report}");
    if options.write {
        report::write("store", &report)?;
    }
    Ok(())
}

async fn measure(options: &Options, servers: &Servers, folder: &std::path::Path) -> Result<String> {
    let house = House::start(servers, [&options.product, &options.payment], folder).await?;
    println!("seeding {SIZE_SMALL} products and payments");
    seed::add(servers.postgres(), 1, SIZE_SMALL)?;
    seed::stock_up(&house).await?;
    let relay = relay::Bench::open(servers).await.context("the relay")?;
    let small = rounds::run(options, servers, &house, &relay, SIZE_SMALL).await?;
    let mut report = report::Report::new(options, &house, small).await?;
    if options.size > SIZE_SMALL {
        println!("seeding {} products and payments", options.size);
        seed::add(servers.postgres(), SIZE_SMALL + 1, options.size)?;
        let large = rounds::run(options, servers, &house, &relay, options.size).await?;
        let pages = pages::measure(&house).await?;
        report.grown(large, pages);
    }
    report.text(&house)
}
