//! The payment service as a program.

use chassis::{FaultArgs, Task};
use clap::Parser;
use mesh_events::Faults;
use mesh_runtime::config::{self, CommonArgs, Overrides};
use payment::Config;

/// Takes payments, keeps the books and sums up sales, over gRPC.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Where gRPC is served, such as 127.0.0.1:50052.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    faults: FaultArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Bring the schema of the configured PostgreSQL up, before this release is rolled out.
    Migrate {
        /// The role that the service runs under; it may read and write rows, and only add to the books.
        #[arg(long, value_name = "NAME", default_value = "")]
        role: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = Overrides::none().set("--listen", "listen", args.listen);
    let loaded = config::load::<Config>(&args.common, "PAYMENT", overrides)?;
    let role = |command| {
        let Command::Migrate { role } = command;
        role
    };
    let task = Task {
        common: args.common,
        migrate: args.command.map(role),
        fault_points: args.faults.fault_points(),
        fault_deliveries: Faults::default(), // It takes no events.
    };
    chassis::run::<payment::Program>(loaded, task, proto::FILE_DESCRIPTOR_SET).await
}
