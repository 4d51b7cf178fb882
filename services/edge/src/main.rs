//! The edge as a program of its own, for the contract of the shop.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::Parser as _;
use mesh::{Contract, Mesh};
use mesh_runtime::{admin, config, shutdown, telemetry};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// REST in front of the shop's gRPC services.
#[derive(clap::Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: config::CommonArgs,
    /// Where clients connect.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where probes and metrics are served.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// The file of hashed API keys (see `meshctl keys new`).
    #[arg(long, value_name = "FILE")]
    keys_file: Option<PathBuf>,
    /// Serve without API keys on an address that others can reach.
    #[arg(long)]
    insecure: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = config::Overrides::none()
        .set("--listen", "listen", args.listen)
        .set("--admin-listen", "admin_listen", args.admin_listen)
        .set("--keys-file", "keys.file", args.keys_file)
        .set("--insecure", "insecure", args.insecure.then_some(true));
    let loaded = config::load::<edge::Config>(&args.common, "EDGE", overrides)?;
    loaded.config.validate()?;
    edge::check_exposure(&loaded.config, loaded.config.listen)?;
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
    let _telemetry = telemetry::init(&config.telemetry, mesh::log_context)?;
    mesh_runtime::open_files::raise();
    let shutdown = shutdown::on_signal()?;
    let registry = Registry::new();
    let _exporting = telemetry::export_metrics(&registry)?;
    let contract = Contract::new(proto::FILE_DESCRIPTOR_SET)?;
    let mesh = Mesh::start(config.mesh.clone(), contract, &registry).await?;
    let listen = |address: SocketAddr| async move {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))
    };
    let admin_listener = listen(config.admin_listen).await?;
    let listener = listen(config.listen).await?;

    let shown = mesh.clone();
    let pages = admin::Pages::new(move |uri| shown.inspect(uri));
    let readiness = admin::Readiness::within(config.mesh.server.readiness_timeout());
    let drained = CancellationToken::new();
    let serving_admin = mesh::spawn(admin::serve(
        admin_listener,
        registry.clone(),
        readiness.clone(),
        pages,
        drained.clone(),
    ));
    // Probes see that the edge is going before its port closes.
    let stopping = shutdown.clone();
    let announcing = mesh::spawn(async move {
        stopping.cancelled().await;
        readiness.stop();
    });
    let reloading = mesh.clone();
    let followed = mesh::spawn(following.run(shutdown.clone(), move |new: edge::Config| {
        let reloaded = reloading.reload(new.mesh)?;
        Ok::<_, mesh::Error>(reloaded.after_restart)
    }));
    let outcome = edge::run(config, mesh, &registry, listener, shutdown.clone()).await;
    shutdown.cancel();
    drained.cancel();
    followed
        .await
        .context("following the configuration panicked")?;
    announcing.await.context("the announcer panicked")?;
    serving_admin.await.context("the admin endpoint panicked")?;
    outcome
}
