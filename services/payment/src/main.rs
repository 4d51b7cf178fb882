//! The payment service as a program.

use chassis::{FaultArgs, Task};
use clap::Parser;
use mesh_events::Faults;
use mesh_runtime::config::{self, CommonArgs, Overrides};
use payment::Config;
use payment::audit::Head;

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
    /// Look at the record of who did what.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
}

#[derive(clap::Subcommand)]
enum AuditCommand {
    /// Go through the chain of the configured database, from its first record; fails where it is broken. Prints its head,
    /// to be kept elsewhere: with an earlier one, a chain that was cut short or made anew is found too.
    Verify {
        /// A head that the chain once had.
        #[arg(long, value_name = "NUMBER:HASH")]
        head: Option<Head>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = Overrides::none().set("--listen", "listen", args.listen);
    let loaded = config::load::<Config>(&args.common, "PAYMENT", overrides)?;
    let migrate = match args.command {
        Some(Command::Migrate { role }) => Some(role),
        Some(Command::Audit {
            command: AuditCommand::Verify { head },
        }) => {
            println!(
                "{}",
                payment::verify_audit(&loaded.config.service, head).await?
            );
            return Ok(());
        }
        None => None,
    };
    let task = Task {
        common: args.common,
        migrate,
        fault_points: args.faults.fault_points(),
        fault_deliveries: Faults::default(), // It takes no events.
    };
    Box::pin(chassis::run::<payment::Program>(
        loaded,
        task,
        proto::FILE_DESCRIPTOR_SET,
    ))
    .await
}
