//! The payment service as a program.

use anyhow::Context as _;
use clap::Parser;
use mesh_events::FaultPoints;
use mesh_runtime::config::{self, CommonArgs, Overrides};
use mesh_runtime::{shutdown, telemetry};
use payment::Config;
use payment::audit::Head;
use tokio::net::TcpListener;

/// Takes payments, keeps the books and sums up sales, over gRPC.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Where gRPC is served, such as 127.0.0.1:50052.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Die at the COUNT-th passing of this place: for tests that show that nothing is lost there.
    #[arg(long, value_name = "NAME[:COUNT]", hide_short_help = true)]
    fault_point: Option<FaultPoints>,
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
    if let Some(answer) = loaded.answer(&args.common) {
        print!("{answer}");
        return Ok(());
    }
    let following = loaded.following();
    let config = loaded.config;
    let _telemetry = telemetry::init(&config.telemetry)?;
    match args.command {
        Some(Command::Migrate { role }) => {
            return payment::store::migrate(&config.service.postgres, &role).await;
        }
        Some(Command::Audit {
            command: AuditCommand::Verify { head },
        }) => {
            println!("{}", payment::verify_audit(&config.service, head).await?);
            return Ok(());
        }
        None => {}
    }
    let stop = shutdown::on_signal()?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .with_context(|| format!("listening on {}", config.listen))?;
    let admin = TcpListener::bind(&config.admin_listen)
        .await
        .with_context(|| format!("listening on {}", config.admin_listen))?;
    let fault_points = args.fault_point.unwrap_or_default();
    payment::run(config, following, listener, admin, fault_points, stop).await
}
