//! The product service as a process of its own. `services/standalone` runs everything in one process, with a bus in
//! memory.

use std::path::PathBuf;

use chassis::{Addresses, Chore, FaultArgs, Task};
use clap::Parser as _;
use mesh_events::Faults;
use mesh_runtime::config;
use product::{Config, Service};

/// The catalogue, its stock and its reservations, over gRPC.
#[derive(clap::Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: config::CommonArgs,
    #[command(flatten)]
    addresses: Addresses,
    /// The database file.
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
    #[command(flatten)]
    faults: FaultArgs,
    /// Take deliveries twice and in another order, such as duplicate=0.1,reorder=0.1,seed=7: for tests.
    #[arg(long, value_name = "FAULTS", hide_short_help = true)]
    fault_deliveries: Option<Faults>,
    #[command(subcommand)]
    chore: Option<Chore>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = args.addresses.overrides();
    let overrides = overrides.set("--database", "service.store.path", args.database);
    let loaded = config::load::<chassis::Process<Config>>(&args.common, "PRODUCT", overrides)?;
    let task = Task {
        common: args.common,
        migrate: args.chore.map(Chore::role),
        fault_points: args.faults.fault_points(),
        fault_deliveries: args.fault_deliveries.unwrap_or_default(),
    };
    Box::pin(chassis::run::<Service>(
        loaded,
        task,
        proto::FILE_DESCRIPTOR_SET,
    ))
    .await
}
