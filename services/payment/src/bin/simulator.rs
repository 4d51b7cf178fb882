//! The simulator of a payment provider as a program.

use anyhow::Context as _;
use clap::Parser;
use mesh_runtime::config::{self, CommonArgs, Overrides};
use mesh_runtime::{shutdown, telemetry};
use payment::provider::simulator::remote::{self, ProcessConfig};
use tokio::net::TcpListener;

/// A payment provider that moves no money, over HTTP, with a durable journal and every misfortune on demand.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: CommonArgs,
    /// Where commands are taken, such as 127.0.0.1:50053.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = Overrides::none().set("--listen", "listen", args.listen);
    let loaded = config::load::<ProcessConfig>(&args.common, "SIMULATOR", overrides)?;
    loaded.config.validate()?;
    if let Some(answer) = loaded.answer(&args.common) {
        print!("{answer}");
        return Ok(());
    }
    let config = loaded.config;
    let _telemetry = telemetry::init(&config.telemetry, mesh::log_context)?;
    mesh_runtime::open_files::raise();
    let stop = shutdown::on_signal()?;
    let listener = TcpListener::bind(&config.listen)
        .await
        .with_context(|| format!("listening on {}", config.listen))?;
    let admin = TcpListener::bind(&config.admin_listen)
        .await
        .with_context(|| format!("listening on {}", config.admin_listen))?;
    remote::run(config, listener, admin, stop).await
}
