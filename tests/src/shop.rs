//! A whole shop in the test's process: three services over loopback gRPC, the simulator, a bus, and files in
//! a temporary folder. Each service can be stopped and started alone.
//!
//! The services are wired here as their own programs wire them, and not through `standalone`, which starts
//! and stops all of them together; `standalone` itself is tested as a process ([`crate::process`]).
//!
//! A shop ends with [`Shop::close`], which lets it come to rest, stops it and checks every invariant. One file, for a
//! service that starts again must find what the first start was given.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use mesh::{Contract, Mesh};
use mesh_events::{Bus, FaultPoints, Faults, Metrics};
use mesh_runtime::Clock;
use mesh_store::SqliteConfig;
use payment::provider::simulator::{self, Simulator, SimulatorConfig, Webhook, WebhookSender};
use proto::commerce::payment::v1::payment_service_client::PaymentServiceClient;
use proto::commerce::product::v1::product_service_client::ProductServiceClient;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::eventually;
use crate::ground::Ground;
use crate::invariants::{Stores, check_all, every_event_has_one_effect, nothing_is_left_undone};
use crate::rest::Rest;

/// 2026-01-01T00:00:00Z, where a manual clock starts.
const START_US: i64 = 1_767_225_600_000_000;

/// What is unusual about a shop.
#[derive(Clone, Default)]
pub struct Options {
    /// Time passes by [`Shop::advance`] only.
    pub manual_clock: bool,
    /// The provider charges in one step and cannot capture later.
    pub one_step_provider: bool,
    /// How long every call to the provider takes at least, in milliseconds.
    pub provider_latency_ms: u64,
    /// How the provider fails.
    pub provider_faults: simulator::Faults,
    /// How the bus fails.
    pub bus_faults: Faults,
    /// A key file for the edge; without one everybody may do everything.
    pub keys: Option<PathBuf>,
    /// A PostgreSQL of the shop's own, as its superuser; it then stands on servers.
    pub postgres: Option<String>,
}

/// A running shop.
pub struct Shop {
    rest: Rest,
    options: Options,
    folder: Option<TempDir>,
    clock: Clock,
    ground: Arc<Ground>,
    at: Addresses,
    product: Option<Running>,
    payment: Option<Running>,
    edge: Option<Running>,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Addresses {
    product: SocketAddr,
    payment: SocketAddr,
    edge: SocketAddr,
}

struct Running {
    shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start<F>(run: impl FnOnce(CancellationToken) -> F) -> Running
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let shutdown = CancellationToken::new();
        let task = mesh::spawn(run(shutdown.clone()));
        Running { shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = self.task.await.expect("a service does not panic");
        ended.expect("a service stops without an error");
    }
}

impl Shop {
    /// An empty shop.
    pub async fn start() -> Shop {
        Shop::start_with(Options::default()).await
    }

    /// An empty shop with something unusual about it.
    pub async fn start_with(options: Options) -> Shop {
        mesh_runtime::open_files::raise(); // A thousand clients and whom they call are in one process.
        let folder = tempfile::Builder::new()
            .prefix("shop-")
            .tempdir()
            .expect("a temporary folder");
        let ground = Ground::lay(options.bus_faults, options.postgres.as_deref()).await;
        let ground = Arc::new(ground.expect("the shop has ground to stand on"));
        Shop::open(options, folder, ground)
            .await
            .expect("the shop starts")
    }

    /// A shop on what an earlier one left behind, if any.
    async fn open(options: Options, folder: TempDir, ground: Arc<Ground>) -> anyhow::Result<Shop> {
        let listeners = [
            listener(None).await?,
            listener(None).await?,
            listener(None).await?,
        ];
        let [product, payment, edge] = listeners;
        let at = Addresses {
            product: product.local_addr()?,
            payment: payment.local_addr()?,
            edge: edge.local_addr()?,
        };
        let clock = if options.manual_clock {
            Clock::manual(START_US)
        } else {
            Clock::system()
        };
        let mut shop = Shop {
            rest: Rest::new(format!("http://{}", at.edge)),
            options,
            folder: Some(folder),
            clock,
            ground,
            at,
            product: None,
            payment: None,
            edge: None,
            closed: false,
        };
        shop.run_product(product).await?;
        shop.run_payment(payment).await?;
        shop.run_edge(edge)?;
        Ok(shop)
    }

    /// The REST edge, called without a key.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// What carries its events, for consumers that are not of the shop.
    pub fn bus(&self) -> Arc<dyn Bus> {
        self.ground.bus()
    }

    /// The product service, called past the edge.
    pub fn product_client(&self) -> ProductServiceClient<Channel> {
        ProductServiceClient::new(channel(self.at.product))
    }

    /// The payment service, called past the edge.
    pub fn payment_client(&self) -> PaymentServiceClient<Channel> {
        PaymentServiceClient::new(channel(self.at.payment))
    }

    /// The payment service, called as another service of the house calls it: through the mesh.
    pub fn payment_through_mesh(&self) -> PaymentServiceClient<mesh::Client> {
        let mesh = self
            .mesh(&prometheus::Registry::new())
            .expect("as the services have it");
        PaymentServiceClient::new(mesh.client("payment"))
    }

    /// A connection to the product service, for reflection and health.
    pub fn product_channel(&self) -> Channel {
        channel(self.at.product)
    }

    /// A connection to the payment service, for reflection and health.
    pub fn payment_channel(&self) -> Channel {
        channel(self.at.payment)
    }

    /// The shop's present.
    pub fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    /// Lets time pass in a shop with a manual clock.
    pub fn advance(&self, us: i64) {
        self.clock.advance(us);
    }

    /// Stops the product service and lets the others run.
    pub async fn stop_product(&mut self) {
        self.product.take().expect("it runs").stop().await;
    }

    /// Starts the product service again, where it was.
    pub async fn start_product(&mut self) {
        let listener = listener(Some(self.at.product))
            .await
            .expect("its port is free");
        self.run_product(listener).await.expect("it starts");
    }

    /// Stops the payment service and lets the others run.
    pub async fn stop_payment(&mut self) {
        self.payment.take().expect("it runs").stop().await;
    }

    /// Starts the payment service again, where it was.
    pub async fn start_payment(&mut self) {
        let listener = listener(Some(self.at.payment))
            .await
            .expect("its port is free");
        self.run_payment(listener).await.expect("it starts");
    }

    /// The names of product's and payment's database on the servers.
    pub fn databases(&self) -> [String; 2] {
        self.ground.databases().expect("it stands on servers")
    }

    /// The databases, to be looked at.
    pub async fn stores(&self) -> Stores {
        let folder = self.folder.as_ref().expect("open until closed").path();
        self.ground
            .stores(folder, self.now_us())
            .await
            .expect("the databases are there")
    }

    /// How many charges of an order kept the customer's money, by the provider's journal.
    pub async fn charges(&self, order_ref: &str) -> i64 {
        self.stores()
            .await
            .charges(order_ref)
            .await
            .expect("the journal is there")
    }

    /// How many rows each table has.
    pub async fn row_counts(&self) -> BTreeMap<String, i64> {
        let counts = self.stores().await.row_counts().await;
        let mut counts = counts.expect("the databases are there");
        // A record of who did what gets its place in the chain a moment later, and is then kept elsewhere.
        let waiting: Vec<String> = counts
            .keys()
            .filter(|table| table.ends_with("audit_pending"))
            .cloned()
            .collect();
        for table in waiting {
            let count = counts.remove(&table).expect("a key of it");
            let sealed = table.replace("audit_pending", "audit_log");
            *counts.entry(sealed).or_default() += count;
        }
        counts
    }

    /// Waits until every event that has happened so far has had its effect.
    pub async fn drain_events(&self) {
        eventually("every event is delivered", || async {
            let mut stores = self.stores().await;
            let delivered = self.ground.in_flight() == 0
                && stores.undelivered().await.is_ok_and(|count| count == 0)
                && (self.ground.databases().is_none()
                    || self.every_effect_is_there(&mut stores).await);
            drop(stores.close().await);
            delivered
        })
        .await;
    }

    /// A broker does not say what is on its way to a consumer: that everything has arrived is seen by what
    /// it did.
    async fn every_effect_is_there(&self, stores: &mut Stores) -> bool {
        let missing = every_event_has_one_effect(stores).await;
        missing.is_ok_and(|missing| missing.is_empty())
    }

    /// Lets the shop come to rest, stops it, and checks every invariant.
    pub async fn close(self) {
        drop(self.close_and_keep().await);
    }

    /// The same, and leaves the data behind.
    pub async fn close_and_keep(mut self) -> TempDir {
        self.drain_events().await;
        let undone = async || {
            let mut stores = self.stores().await;
            let undone = nothing_is_left_undone(&mut stores).await;
            drop(stores.close().await);
            undone
        };
        let rest = tokio::time::timeout(crate::PATIENCE, async {
            while undone().await.map_or(true, |undone| !undone.is_empty()) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        drop(rest.await); // What is still undone is shown below, with everything else.
        self.stop().await;
        let mut stores = self.stores().await;
        let folder = self.folder.take().expect("open until closed");
        let mut violations = check_all(&mut stores).await.expect("the files can be read");
        stores.close().await.expect("nothing was written");
        violations.extend(self.rest.contradictions());
        let cleared = self.ground.clear().await;
        cleared.expect("the servers take back what the shop had of them");
        assert!(violations.is_empty(), "broken invariants: {violations:#?}");
        folder
    }

    /// Stops it as it is and checks nothing: for scenarios that cannot come to rest.
    pub async fn abandon(mut self) {
        self.stop().await;
    }

    /// Stops it gracefully in the middle of whatever it does, and starts it again on its data.
    pub async fn restart(mut self) -> Shop {
        self.stop().await;
        let folder = self.folder.take().expect("open until closed");
        let shop = Shop::open(self.options.clone(), folder, self.ground.clone()).await;
        let mut shop = shop.expect("the shop starts");
        shop.rest = self.rest.moved_to(shop.rest.base());
        shop
    }

    /// Stops the services as a deployment would, outermost first.
    async fn stop(&mut self) {
        self.closed = true;
        let services = [self.edge.take(), self.payment.take(), self.product.take()];
        for service in services.into_iter().flatten() {
            service.stop().await;
        }
    }

    fn file(&self, name: &str) -> SqliteConfig {
        let path = self
            .folder
            .as_ref()
            .expect("open until closed")
            .path()
            .join(name);
        SqliteConfig {
            path,
            ..SqliteConfig::default()
        }
    }

    /// A mesh as each program has its own.
    fn mesh(&self, registry: &prometheus::Registry) -> anyhow::Result<Mesh> {
        let to = |address: SocketAddr| format!("http://{address}");
        // Services that no scenario asks are not started: for whether they are well, payment answers.
        let names = xtask::services::NAMES.iter();
        let mut destinations: BTreeMap<_, _> = names
            .map(|name| ((*name).to_owned(), to(self.at.payment)))
            .collect();
        destinations.insert("product".to_owned(), to(self.at.product));
        let config = mesh::Config {
            destinations,
            ..mesh::Config::default()
        };
        Ok(Mesh::new(
            config,
            Contract::new(proto::FILE_DESCRIPTOR_SET)?,
            registry,
        )?)
    }

    async fn run_product(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let registry = prometheus::Registry::new();
        let config = product::Config {
            store: self.file("product.db"),
            postgres: self.ground.product(),
            ..product::Config::default()
        };
        let parts = product::Parts {
            clock: self.clock.clone(),
            bus: self.ground.bus(),
            dead_letters: self.ground.dead_letters(),
            mesh: self.mesh(&registry)?,
            event_metrics: Metrics::register(&registry)?,
            fault_points: FaultPoints::default(),
        };
        let service = product::Service::open(config, parts).await?;
        self.product = Some(Running::start(|shutdown| service.run(listener, shutdown)));
        Ok(())
    }

    async fn run_payment(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let registry = prometheus::Registry::new();
        let journal = self.file("simulator.db");
        let config = self.simulator_config();
        let simulator = Simulator::open(&config, &journal, self.clock.clone()).await;
        let simulator = Arc::new(simulator.context("the simulator's journal")?);
        let provider: Arc<dyn payment::provider::Provider> = simulator.clone();
        let parts = payment::Parts {
            mesh: self.mesh(&registry)?,
            bus: self.ground.bus(),
            events: Metrics::register(&registry)?,
            providers: [(simulator::NAME.to_owned(), provider)].into(),
            clock: self.clock.clone(),
            reconciliations: payment::reconciler::Metrics::unregistered()?,
            fault_points: FaultPoints::default(),
        };
        let config = payment::ServiceConfig {
            database: self.file("payment.db"),
            postgres: self.ground.payment(),
            saga: impatient(),
            worker_poll_ms: 50,
            ..payment::ServiceConfig::default()
        };
        let service = payment::Service::open(config, parts).await?;
        let webhooks = AtTheEdge(self.rest.clone());
        self.payment = Some(Running::start(|shutdown| async move {
            let sending = {
                let (simulator, shutdown) = (simulator.clone(), shutdown.clone());
                mesh::spawn(async move { simulator.run(Some(&webhooks), shutdown).await })
            };
            let served = service.run(listener, shutdown).await;
            sending.await?;
            simulator.close().await?;
            served
        }));
        Ok(())
    }

    fn run_edge(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let registry = prometheus::Registry::new();
        let mut config = edge::Config::default();
        config.keys.file.clone_from(&self.options.keys);
        config.keys.reload_interval_ms = 50;
        let mesh = self.mesh(&registry)?;
        self.edge = Some(Running::start(|shutdown| async move {
            edge::run(config, mesh, &registry, listener, shutdown).await
        }));
        Ok(())
    }

    fn simulator_config(&self) -> SimulatorConfig {
        SimulatorConfig {
            one_step: self.options.one_step_provider,
            latency_ms: self.options.provider_latency_ms,
            faults: self.options.provider_faults,
            webhook_delay_ms: 100,
            late_webhook_delay_ms: 2_000,
            bank_delay_ms: 100,
            ..SimulatorConfig::default()
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        assert!(
            self.closed || std::thread::panicking(),
            "a test ends its shop with close().await"
        );
    }
}

/// Pauses for a provider that answers within milliseconds.
fn impatient() -> payment::SagaConfig {
    payment::SagaConfig {
        retry_first_ms: 20,
        retry_ms_max: 500,
        look_up_first_ms: 50,
        look_up_ms_max: 500,
        settle_ms: 500,
        ..payment::SagaConfig::default()
    }
}

async fn listener(at: Option<SocketAddr>) -> anyhow::Result<TcpListener> {
    Ok(TcpListener::bind(at.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))).await?)
}

fn channel(at: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{at}")).expect("an address is a URI");
    endpoint.connect_lazy()
}

/// Webhooks take the way that a real provider's take: over HTTP, in at the edge.
struct AtTheEdge(Rest);

#[async_trait]
impl WebhookSender for AtTheEdge {
    async fn send(&self, webhook: Webhook) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let request = self
            .0
            .request(reqwest::Method::POST, "/v1/webhooks/simulator");
        let answer = self
            .0
            .send(request.headers(webhook.headers).body(webhook.body))
            .await?;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.text().into())
        }
    }
}
