//! A service as a process of its own: configuration, probes, the broker, the mesh, and an orderly end.
//!
//! Events go over RabbitMQ. The process starts, serves and stays ready without it: events wait in the outbox.

use std::{future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use anyhow::Context as _;
use mesh::{Contract, Mesh};
use mesh_events::{FaultPoints, Faults, Subscription};
use mesh_rabbitmq::{RabbitMqBus, RabbitMqConfig};
use mesh_runtime::{Clock, admin, config, shutdown, telemetry};
use prometheus::Registry;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Database, Opened, Parts, Process, Service};

/// A service, as far as its process has to know it.
pub trait Program: Sized + Send + 'static {
    /// What the process reads.
    type Config: Serialize + DeserializeOwned + Default + Send + 'static;
    /// What the broker knows it by.
    const NAME: &'static str;

    /// What every process of a service has in its configuration.
    fn common(config: &Self::Config) -> Common;

    /// What its consumer asks of a bus; empty: it takes no events.
    fn subscriptions(config: &Self::Config) -> Vec<Subscription>;

    /// Brings the schema up, under a role that owns the database, for the role that the service runs under.
    fn migrate(config: &Self::Config, role: &str) -> impl Future<Output = anyhow::Result<()>>;

    /// Opens the database; serves nobody yet.
    fn open(config: Self::Config, parts: Parts) -> impl Future<Output = anyhow::Result<Self>>;

    /// Shows metrics of its own; without any there is nothing to do.
    fn register(&self, _registry: &Registry) -> anyhow::Result<()> {
        Ok(())
    }

    /// Asks whether the database answers.
    fn ready(&self) -> Check;

    /// Serves until `shutdown`, drains, and closes the database.
    fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A check of readiness; its error is shown to whoever reaches the admin endpoint.
pub type Check =
    Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// What every process of a service has in its configuration.
#[derive(Clone, Debug)]
pub struct Common {
    /// Where gRPC is served: an address, or a host's name, with a port.
    pub listen: String,
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub admin_listen: String,
    /// Logs.
    pub telemetry: telemetry::TelemetryConfig,
    /// The mesh.
    pub mesh: mesh::Config,
    /// The broker that carries events.
    pub bus: RabbitMqConfig,
}

impl<S> From<&Process<S>> for Common {
    fn from(process: &Process<S>) -> Self {
        Self {
            listen: process.listen.to_string(),
            admin_listen: process.admin_listen.to_string(),
            telemetry: process.telemetry.clone(),
            mesh: process.mesh.clone(),
            bus: process.bus.clone(),
        }
    }
}

/// What a command line asks of a process.
#[derive(Debug, Default)]
pub struct Task {
    /// `--config` and what goes with it.
    pub common: config::CommonArgs,
    /// Not to serve, but to bring the schema up for the role of this name.
    pub migrate: Option<String>,
    /// Where to die, in tests.
    pub fault_points: FaultPoints,
    /// How deliveries arrive, in tests.
    pub fault_deliveries: Faults,
}

/// The flags of a service that has none of its own.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub struct Args {
    /// `--config` and what goes with it.
    #[command(flatten)]
    pub common: config::CommonArgs,
    #[command(flatten)]
    addresses: Addresses,
    #[command(flatten)]
    faults: FaultArgs,
    #[command(subcommand)]
    chore: Option<Chore>,
}

impl Args {
    /// The keys that flags override.
    pub fn overrides(&self) -> config::Overrides {
        self.addresses.overrides()
    }
}

impl From<Args> for Task {
    fn from(args: Args) -> Self {
        Self {
            common: args.common,
            migrate: args.chore.map(Chore::role),
            fault_points: args.faults.fault_points(),
            fault_deliveries: Faults::default(),
        }
    }
}

/// Where a process listens, as flags.
#[derive(Debug, clap::Args)]
pub struct Addresses {
    /// Where gRPC is served.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where probes and metrics are served.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
}

impl Addresses {
    /// The keys that they override.
    pub fn overrides(&self) -> config::Overrides {
        config::Overrides::none()
            .set("--listen", "listen", self.listen)
            .set("--admin-listen", "admin_listen", self.admin_listen)
    }
}

/// Faults on purpose, as flags.
#[derive(Debug, clap::Args)]
pub struct FaultArgs {
    /// Die at the COUNT-th passing of this place: for tests that show that nothing is lost there.
    #[arg(long, value_name = "NAME[:COUNT]", hide_short_help = true)]
    fault_point: Option<FaultPoints>,
}

impl FaultArgs {
    /// Where to die.
    pub fn fault_points(self) -> FaultPoints {
        self.fault_point.unwrap_or_default()
    }
}

/// What else a program does than serve.
#[derive(Debug, clap::Subcommand)]
pub enum Chore {
    /// Bring the schema of the PostgreSQL database up, then end. Needs a role that owns the database.
    Migrate {
        /// The role that the service runs under: it gets the right to read and write rows, and no more.
        #[arg(long, value_name = "NAME", default_value = "")]
        role: String,
    },
}

impl Chore {
    /// The role that the schema is brought up for.
    pub fn role(self) -> String {
        let Self::Migrate { role } = self;
        role
    }
}

/// Does what the command line asks: answers about the configuration, brings the schema up, or serves until a signal.
/// `descriptors` are those of the contract.
pub async fn run<P: Program>(
    loaded: config::Loaded<P::Config>,
    task: Task,
    descriptors: &'static [u8],
) -> anyhow::Result<()> {
    let common = P::common(&loaded.config);
    if task.common.check_config {
        let checked = common.mesh.check().await;
        checked.map_err(|error| loaded.refuse(&format!("mesh.{}", error.key), error.reason))?;
    }
    if let Some(answer) = loaded.answer(&task.common) {
        print!("{answer}");
        return Ok(());
    }
    let following = loaded.following();
    let config = loaded.config;
    let _telemetry = telemetry::init(&common.telemetry, mesh::log_context)?;
    mesh_runtime::open_files::raise();
    if let Some(role) = &task.migrate {
        P::migrate(&config, role).await?;
        tracing::info!("the schema is up to date");
        return Ok(());
    }
    let shutdown = shutdown::on_signal()?;
    let registry = Registry::new();
    let _exporting = telemetry::export_metrics(&registry)?;
    let bus_metrics = mesh_rabbitmq::Metrics::register(&registry)?;
    let bus = RabbitMqBus::start(common.bus, P::NAME, bus_metrics)?;
    bus.declare(&P::subscriptions(&config)).await?;
    let readiness = admin::Readiness::within(common.mesh.server.readiness_timeout());
    let mesh = Mesh::start(common.mesh, Contract::new(descriptors)?, &registry).await?;
    let parts = Parts {
        clock: Clock::system(),
        bus: task.fault_deliveries.on(Arc::new(bus.clone())),
        dead_letters: Some(Arc::new(bus.dead_letters())),
        mesh: mesh.clone(),
        event_metrics: mesh_events::Metrics::register(&registry)?,
        fault_points: task.fault_points,
    };
    let program = P::open(config, parts).await?;
    program.register(&registry)?;
    let listener = listen("listen", &common.listen).await?;
    let admin_listener = listen("admin_listen", &common.admin_listen).await?;
    tracing::info!(grpc = %listener.local_addr()?, admin = %admin_listener.local_addr()?, "serving");

    readiness.check("database", program.ready());
    // Without the broker events wait, which is only shown.
    readiness.warning("broker", move || {
        let bus = bus.clone();
        async move { bus.ready().await }
    });
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
    let followed = mesh::spawn(following.run(shutdown.clone(), move |new: P::Config| {
        let reloaded = mesh.reload(P::common(&new).mesh);
        reloaded.map(|reloaded| reloaded.after_restart)
    }));
    let served = program.run(listener, shutdown.clone()).await;
    shutdown.cancel(); // Where serving ended by itself, the rest ends too.
    drained.cancel();
    stop.await.context("readiness")?;
    followed.await.context("configuration")?;
    probes.await.context("admin endpoint")?;
    served
}

async fn listen(key: &str, address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} ({key})"))
}

impl<S: Service> Program for Opened<S> {
    type Config = Process;
    const NAME: &'static str = S::NAME;

    fn common(config: &Process) -> Common {
        config.into()
    }

    fn subscriptions(config: &Process) -> Vec<Subscription> {
        vec![S::subscription(&config.service)]
    }

    async fn migrate(config: &Process, role: &str) -> anyhow::Result<()> {
        Database::migrate(&config.service, S::migrations(), role).await?;
        Ok(())
    }

    async fn open(config: Process, parts: Parts) -> anyhow::Result<Self> {
        Opened::open(config.service, parts).await
    }

    fn ready(&self) -> Check {
        let database = self.database().clone();
        Box::new(move || {
            let database = database.clone();
            Box::pin(async move { database.answers().await })
        })
    }

    async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
        Opened::run(self, listener, shutdown).await
    }
}
