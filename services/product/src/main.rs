//! The product service as a process of its own.
//!
//! Events go over RabbitMQ. The process starts, serves and stays ready without it: events wait in the outbox.
//! `services/standalone` runs everything in one process, with a bus in memory.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;
use mesh::{Contract, Mesh};
use mesh_events::{FaultPoints, Faults};
use mesh_rabbitmq::RabbitMqBus;
use mesh_runtime::{Clock, admin, config, shutdown, telemetry};
use product::{Parts, Service, config::Process, consumer, store::postgres};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The catalogue, its stock and its reservations, over gRPC.
#[derive(clap::Parser)]
#[command(version)]
struct Args {
    #[command(flatten)]
    common: config::CommonArgs,
    /// Where gRPC is served.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where probes and metrics are served.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// The database file.
    #[arg(long, value_name = "FILE")]
    database: Option<std::path::PathBuf>,
    /// Die at the COUNT-th passing of this place: for tests that show that nothing is lost there.
    #[arg(long, value_name = "NAME[:COUNT]", hide_short_help = true)]
    fault_point: Option<FaultPoints>,
    /// Take deliveries twice and in another order, such as duplicate=0.1,reorder=0.1,seed=7: for tests.
    #[arg(long, value_name = "FAULTS", hide_short_help = true)]
    fault_deliveries: Option<Faults>,
    #[command(subcommand)]
    chore: Option<Chore>,
}

/// What else this program does than serve.
#[derive(clap::Subcommand)]
enum Chore {
    /// Bring the schema of the PostgreSQL database up, then end. Needs a role that owns the database.
    Migrate {
        /// The role that the service runs under: it gets the right to read and write rows, and no more.
        #[arg(long, value_name = "NAME", default_value = "")]
        role: String,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let overrides = config::Overrides::none()
        .set("--listen", "listen", args.listen)
        .set("--admin-listen", "admin_listen", args.admin_listen)
        .set("--database", "service.store.path", args.database);
    let loaded = config::load::<Process>(&args.common, "PRODUCT", overrides)?;
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
    if let Some(Chore::Migrate { role }) = &args.chore {
        postgres::migrate(&config.service.postgres, role).await?;
        tracing::info!("the schema is up to date");
        return Ok(());
    }
    let shutdown = shutdown::on_signal()?;
    let registry = Registry::new();
    let _exporting = telemetry::export_metrics(&registry)?;
    let bus_metrics = mesh_rabbitmq::Metrics::register(&registry)?;
    let bus = RabbitMqBus::start(config.bus, "product", bus_metrics)?;
    let consumed = consumer::subscription(config.service.consumer.concurrency_max);
    bus.declare(&[consumed]).await?;
    let contract = Contract::new(proto::FILE_DESCRIPTOR_SET)?;
    let check_timeout = config.mesh.server.readiness_timeout();
    let mesh = Mesh::start(config.mesh, contract, &registry).await?;
    let parts = Parts {
        clock: Clock::system(),
        bus: (args.fault_deliveries.unwrap_or_default()).on(Arc::new(bus.clone())),
        dead_letters: Some(Arc::new(bus.dead_letters())),
        mesh: mesh.clone(),
        event_metrics: mesh_events::Metrics::register(&registry)?,
        fault_points: args.fault_point.unwrap_or_default(),
    };
    let shown = parts.mesh.clone();
    let service = Service::open(config.service, parts).await?;
    let listener = TcpListener::bind(config.listen).await.context("listen")?;
    let admin_listener = TcpListener::bind(config.admin_listen)
        .await
        .context("admin_listen")?;
    tracing::info!(grpc = %listener.local_addr()?, admin = %admin_listener.local_addr()?, "serving");

    let readiness = admin::Readiness::within(check_timeout);
    let asked = service.clone();
    readiness.check("database", move || {
        let asked = asked.clone();
        async move { asked.ready().await }
    });
    readiness.warning("broker", move || {
        let bus = bus.clone();
        async move { bus.ready().await }
    });
    let stopping = readiness.clone();
    let signal = shutdown.clone();
    let stop = mesh::spawn(async move {
        signal.cancelled().await;
        stopping.stop();
    });
    let drained = CancellationToken::new();
    let probes = mesh::spawn(admin::serve(
        admin_listener,
        registry,
        readiness,
        admin::Pages::new(move |uri| shown.inspect(uri)),
        drained.clone(),
    ));
    let followed = mesh::spawn(following.run(shutdown.clone(), move |new: Process| {
        mesh.reload(new.mesh).map(|reloaded| reloaded.after_restart)
    }));
    let served = service.run(listener, shutdown.clone()).await;
    shutdown.cancel(); // Where serving ended by itself, the rest ends too.
    drained.cancel();
    stop.await.context("readiness")?;
    followed.await.context("configuration")?;
    probes.await.context("admin endpoint")?;
    served
}
