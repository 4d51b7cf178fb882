//! The payment service as a program.

use anyhow::Context as _;
use clap::Parser;
use mesh_events::FaultPoints;
use mesh_runtime::config::{self, CommonArgs, Overrides};
use mesh_runtime::{shutdown, telemetry};
use payment::Config;
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
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = Overrides::none().set("--listen", "listen", args.listen);
    let loaded = config::load::<Config>(&args.common, "PAYMENT", overrides)?;
    if args.common.check_config {
        let checked = loaded.config.mesh.check().await;
        checked.map_err(|error| loaded.refuse(&format!("mesh.{}", error.key), error.reason))?;
    }
    if let Some(answer) = loaded.answer(&args.common) {
        print!("{answer}");
        return Ok(());
    }
    let following = loaded.following();
    let config = loaded.config;
    let _telemetry = telemetry::init(&config.telemetry)?;
    if let Some(Command::Migrate { role }) = args.command {
        return payment::store::migrate(&config.service.postgres, &role).await;
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
