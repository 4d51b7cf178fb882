//! A service as a process of its own.
//!
//! Events go over RabbitMQ. The process starts, serves and stays ready without it: events wait in the outbox.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use mesh::{Contract, Mesh};
use mesh_events::FaultPoints;
use mesh_rabbitmq::RabbitMqBus;
use mesh_runtime::{Clock, admin, config, shutdown, telemetry};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Database, Opened, Parts, Process, Service};

/// The flags of every service.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub struct Args {
    /// `--config` and what goes with it.
    #[command(flatten)]
    pub common: config::CommonArgs,
    /// Where gRPC is served.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where probes and metrics are served.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Die at the COUNT-th passing of this place: for tests that show that nothing is lost there.
    #[arg(long, value_name = "NAME[:COUNT]", hide_short_help = true)]
    fault_point: Option<FaultPoints>,
    #[command(subcommand)]
    chore: Option<Chore>,
}

/// What else a program does than serve.
#[derive(Debug, clap::Subcommand)]
enum Chore {
    /// Bring the schema of the PostgreSQL database up, then end. Needs a role that owns the database.
    Migrate {
        /// The role that the service runs under: it gets the right to read and write rows, and no more.
        #[arg(long, value_name = "NAME", default_value = "")]
        role: String,
    },
}

impl Args {
    /// The keys that flags override.
    pub fn overrides(&self) -> config::Overrides {
        config::Overrides::none()
            .set("--listen", "listen", self.listen)
            .set("--admin-listen", "admin_listen", self.admin_listen)
    }
}

/// Does what the command line asks: serves until a signal, or carries a chore out. `descriptors` are those of the
/// contract.
pub async fn run<S: Service>(
    args: Args,
    loaded: config::Loaded<Process>,
    descriptors: &'static [u8],
) -> anyhow::Result<()> {
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
        Database::migrate(&config.service, S::migrations(), role).await?;
        tracing::info!("the schema is up to date");
        return Ok(());
    }
    let shutdown = shutdown::on_signal()?;
    let registry = Registry::new();
    let bus_metrics = mesh_rabbitmq::Metrics::register(&registry)?;
    let bus = RabbitMqBus::start(config.bus, S::NAME, bus_metrics)?;
    bus.declare(&[S::subscription(&config.service)]).await?;
    let check_timeout = config.mesh.server.readiness_timeout();
    let mesh = Mesh::start(config.mesh, Contract::new(descriptors)?, &registry).await?;
    let parts = Parts {
        clock: Clock::system(),
        bus: Arc::new(bus.clone()),
        dead_letters: Some(Arc::new(bus.dead_letters())),
        mesh: mesh.clone(),
        event_metrics: mesh_events::Metrics::register(&registry)?,
        fault_points: args.fault_point.unwrap_or_default(),
    };
    let service = Opened::<S>::open(config.service, parts).await?;
    let listener = TcpListener::bind(config.listen).await.context("listen")?;
    let admin_listener = TcpListener::bind(config.admin_listen)
        .await
        .context("admin_listen")?;
    tracing::info!(grpc = %listener.local_addr()?, admin = %admin_listener.local_addr()?, "serving");

    let readiness = readiness(&service, bus, check_timeout);
    let (stopping, signal) = (readiness.clone(), shutdown.clone());
    let stop = mesh::spawn(async move {
        signal.cancelled().await;
        stopping.stop();
    });
    let (drained, shown) = (CancellationToken::new(), mesh.clone());
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

/// Ready when the database answers; without the broker events wait, which is only shown.
fn readiness<S: Service>(
    service: &Opened<S>,
    bus: RabbitMqBus,
    check_timeout: Duration,
) -> admin::Readiness {
    let readiness = admin::Readiness::within(check_timeout);
    let outbox = service.outbox();
    readiness.check("database", move || {
        let outbox = outbox.clone();
        async move {
            let asked = outbox.lag(0).await;
            asked.map(drop).map_err(|error| error.to_string())
        }
    });
    readiness.warning("broker", move || {
        let bus = bus.clone();
        async move { bus.ready().await }
    });
    readiness
}
