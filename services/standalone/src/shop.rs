//! The shop: its parts put together, started in order, stopped in the opposite one.

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::ground::{Ground, Slot};
use crate::part::{Part, listen};
use crate::sample;
use anyhow::{Context as _, bail, ensure};
use mesh_events::InMemoryBus;
use mesh_runtime::Clock;
use mesh_runtime::admin::{self, Readiness};
use mesh_runtime::telemetry::{self, MetricsExport};
use payment::provider::simulator::{Post, Simulator};
use prometheus::Registry;
use proto::commerce::product::v1::product_service_client::ProductServiceClient;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;

/// How long the edge may take until it answers, when everything behind it does already.
const EDGE_READY: Duration = Duration::from_secs(30);
/// How long one question to it may take, and how long to wait before the next.
const EDGE_ANSWER: Duration = Duration::from_secs(5);
const EDGE_POLL: Duration = Duration::from_millis(10);
/// How often [`Shop::drain_events`] looks.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// What a shop is started with.
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// The time, for every part.
    pub clock: Clock,
    /// The bus: one with faults, for tests.
    pub bus: InMemoryBus,
    /// Hears how far what takes long is.
    pub progress: Box<dyn Fn(Progress) + Send + Sync>,
}

/// What takes long when a shop starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The databases are opened, and migrated where they are of an older version.
    Opening,
    /// Products of the sample catalogue that are there, and of how many.
    Sample {
        /// Those that are there.
        done: usize,
        /// All of them.
        count: usize,
    },
}

impl Options {
    /// A shop of this configuration, with the machine's clock and a bus that works, telling nobody.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            clock: Clock::system(),
            bus: InMemoryBus::new(),
            progress: Box::new(|_| ()),
        }
    }
}

/// A running shop. Dropped without [`Shop::stop`] it stops as well, but nobody waits for that.
pub struct Shop {
    edge_addr: SocketAddr,
    admin_addr: SocketAddr,
    product_addr: SocketAddr,
    payment_addr: SocketAddr,
    sample: bool,
    ground: Ground,
    readiness: Readiness,
    product: Slot,
    payment: Slot,
    edge: Part,
    webhooks: Part,
    admin: Part,
    data_dir: DataDir,
    _exporting: Option<MetricsExport>,
}

impl Shop {
    /// Starts all parts. When it returns, every one of them answers.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        Box::pin(Self::assemble(options)).await // A start is long; its callers' futures need not be.
    }

    async fn assemble(options: Options) -> anyhow::Result<Self> {
        let Options {
            config,
            clock,
            bus,
            progress,
        } = options;
        let data_dir = DataDir::open(&config.storage())?;
        let load_sample = config.sample && sample::is_wanted(&data_dir)?;
        let config = config.within(data_dir.path());

        // Bound first: an address in use is told before anything is done.
        let edge_listener = listen("listen", config.listen).await?;
        let admin_listener = listen("admin_listen", config.admin_listen).await?;
        let product_listener = listen_inside(0).await?;
        let payment_listener = listen_inside(0).await?;
        let edge_addr = edge_listener.local_addr()?;
        let admin_addr = admin_listener.local_addr()?;
        let product_addr = product_listener.local_addr()?;
        let payment_addr = payment_listener.local_addr()?;

        progress(Progress::Opening);
        let registry = Registry::new();
        let exporting = telemetry::export_metrics(&registry)?;
        let destinations = [("product", product_addr), ("payment", payment_addr)];
        let ground = Ground::lay(config, clock, bus, &destinations, &registry).await?;
        let readiness = Readiness::within(ground.config.mesh.server.readiness_timeout());
        let (product, payment) = (Slot::default(), Slot::default());
        product.check(&readiness, "product", &ground.clock);
        payment.check(&readiness, "payment", &ground.clock);
        let admin = admin_part(&ground, admin_listener, &registry, &readiness);
        product.fill(ground.product(product_listener).await?).await;
        payment.fill(ground.payment(payment_listener).await?).await;
        if load_sample {
            let client = ProductServiceClient::new(ground.mesh.client("product"));
            let told = |done, count| progress(Progress::Sample { done, count });
            sample::load(client, &data_dir, &told).await?;
        }
        // Last, so that a client that gets through finds everything there.
        let edge = edge_part(&ground, edge_listener, registry);
        let edge = answering(edge, edge_addr, &ground).await?;
        let webhooks = webhooks_part(&ground, edge_addr)?;
        Ok(Self {
            edge_addr,
            admin_addr,
            product_addr,
            payment_addr,
            sample: sample::is_loaded(&data_dir)?,
            ground,
            readiness,
            product,
            payment,
            edge,
            webhooks,
            admin,
            data_dir,
            _exporting: exporting,
        })
    }

    /// Stops everything, callers first, and says what went wrong, also before. What is under way is
    /// finished within each part's own limit; what is not goes on at the next start.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.readiness.stop();
        let outcomes = [
            self.webhooks.stop().await,
            self.edge.stop().await,
            self.payment.stop().await, // Before product, which it may be calling.
            self.product.stop().await,
            self.ground
                .simulator
                .close()
                .await
                .context("the simulator's journal"),
            self.admin.stop().await,
        ];
        drop(self.data_dir);
        outcomes.into_iter().collect()
    }

    /// Resolves when a part has ended that nobody stopped; [`Shop::stop`] then says why.
    pub async fn ended(&self) {
        self.ground.ended.cancelled().await;
    }

    /// The edge's base URL as this machine reaches it, such as `http://127.0.0.1:8080`.
    pub fn base_url(&self) -> String {
        base_url(self.edge_addr)
    }

    /// Where REST clients connect.
    pub fn edge_addr(&self) -> SocketAddr {
        self.edge_addr
    }

    /// Where probes and metrics are served.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// Where the product service serves gRPC; the same after it was stopped and started.
    pub fn product_addr(&self) -> SocketAddr {
        self.product_addr
    }

    /// Where the payment service serves gRPC; the same after it was stopped and started.
    pub fn payment_addr(&self) -> SocketAddr {
        self.payment_addr
    }

    /// Whether the sample catalogue is there.
    pub fn has_sample(&self) -> bool {
        self.sample
    }

    /// The folder with `product.db`, `payment.db` and `simulator.db`.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// The provider of all payments.
    pub fn simulator(&self) -> &Simulator {
        &self.ground.simulator
    }

    /// What carries the events.
    pub fn bus(&self) -> &InMemoryBus {
        &self.ground.bus
    }

    /// The mesh of all parts, with `product` and `payment` as destinations.
    pub fn mesh(&self) -> &mesh::Mesh {
        &self.ground.mesh
    }

    /// Stops the product service; the rest of the shop goes on.
    pub async fn stop_product(&self) -> anyhow::Result<()> {
        self.product.stop().await
    }

    /// Starts the product service again, where it was.
    pub async fn start_product(&self) -> anyhow::Result<()> {
        ensure!(!self.product.is_running().await, "the product service runs");
        let listener = listen_inside(self.product_addr.port()).await?;
        self.product
            .fill(self.ground.product(listener).await?)
            .await;
        Ok(())
    }

    /// Stops the payment service; the rest of the shop goes on.
    pub async fn stop_payment(&self) -> anyhow::Result<()> {
        self.payment.stop().await
    }

    /// Starts the payment service again, where it was.
    pub async fn start_payment(&self) -> anyhow::Result<()> {
        ensure!(!self.payment.is_running().await, "the payment service runs");
        let listener = listen_inside(self.payment_addr.port()).await?;
        self.payment
            .fill(self.ground.payment(listener).await?)
            .await;
        Ok(())
    }

    /// Waits until every event of the running services has had its effect. Of a bus whose faults
    /// delay or lose events too: they come again. Ends only when nobody adds more.
    pub async fn drain_events(&self) -> anyhow::Result<()> {
        loop {
            // The outboxes first: what the bus carries is in one of them until it is settled.
            let now_us = self.ground.clock.now_us();
            let pending = self.payment.events_pending(now_us).await?
                + self.product.events_pending(now_us).await?;
            if pending == 0 && self.ground.bus.in_flight() == 0 {
                return Ok(());
            }
            tokio::time::sleep(DRAIN_POLL).await;
        }
    }
}

fn admin_part(
    ground: &Ground,
    listener: TcpListener,
    registry: &Registry,
    readiness: &Readiness,
) -> Part {
    let (registry, readiness) = (registry.clone(), readiness.clone());
    let mesh = ground.mesh.clone();
    let pages = admin::Pages::new(move |uri| mesh.inspect(uri));
    Part::start("the admin endpoint", &ground.ended, |shutdown| async move {
        admin::serve(listener, registry, readiness, pages, shutdown).await;
        Ok(())
    })
}

fn edge_part(ground: &Ground, listener: TcpListener, registry: Registry) -> Part {
    let (config, mesh) = (ground.config.edge(), ground.mesh.clone());
    Part::start("the edge", &ground.ended, |shutdown| async move {
        edge::run(config, mesh, &registry, listener, shutdown).await
    })
}

fn webhooks_part(ground: &Ground, edge_addr: SocketAddr) -> anyhow::Result<Part> {
    let url = format!("{}/v1/webhooks/simulator", base_url(edge_addr));
    let (simulator, post) = (ground.simulator.clone(), Post::to(&url)?);
    Ok(Part::start(
        "webhooks",
        &ground.ended,
        |shutdown| async move {
            simulator.run(Some(&post), shutdown).await;
            Ok(())
        },
    ))
}

/// The edge, once it says that everything behind it is there; or why it does not run.
async fn answering(edge: Part, address: SocketAddr, ground: &Ground) -> anyhow::Result<Part> {
    let client = reqwest::Client::builder()
        .timeout(EDGE_ANSWER)
        .no_proxy()
        .build()?;
    let url = format!("{}/healthz", base_url(address));
    let asking = async {
        loop {
            let answer = client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(EDGE_POLL).await;
        }
    };
    tokio::select! {
        asked = tokio::time::timeout(EDGE_READY, asking) => {
            asked.with_context(|| format!("{url} does not answer with success"))?;
            Ok(edge)
        }
        () = ground.ended.cancelled() => {
            edge.stop().await?;
            bail!("a part of the shop ended while it started")
        }
    }
}

/// The edge as this machine reaches it, also where it listens on every address.
fn base_url(edge: SocketAddr) -> String {
    let local: IpAddr = match edge.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(local, edge.port()))
}

async fn listen_inside(port: u16) -> anyhow::Result<TcpListener> {
    listen("inside", SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
}
