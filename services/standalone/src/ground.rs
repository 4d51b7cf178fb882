//! What the two services stand on, and how each is put on it; also again while the rest runs.

use crate::config::Config;
use crate::part::Part;
use anyhow::Context as _;
use mesh::{Contract, Mesh};
use mesh_events::{FaultPoints, InMemoryBus, Outbox};
use mesh_runtime::Clock;
use mesh_runtime::admin::Readiness;
use payment::provider::simulator::{self, Simulator};
use payment::saga::Providers;
use prometheus::Registry;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

/// What both services share.
pub(crate) struct Ground {
    pub(crate) config: Config,
    pub(crate) clock: Clock,
    pub(crate) bus: InMemoryBus,
    pub(crate) mesh: Mesh,
    pub(crate) simulator: Arc<Simulator>,
    /// Cancelled when a part ends without having been told to.
    pub(crate) ended: CancellationToken,
    event_metrics: mesh_events::Metrics,
    reconciliations: payment::reconciler::Metrics,
    registry: Registry,
}

/// A service that runs.
pub(crate) struct Running {
    pub(crate) part: Part,
    pub(crate) outbox: Arc<dyn Outbox>,
}

/// The place of a service that can be stopped and started while the rest runs.
#[derive(Clone, Default)]
pub(crate) struct Slot {
    running: Arc<Mutex<Option<Running>>>,
}

impl Ground {
    /// Lays it: the mesh, which knows where the services will be, and the simulator's journal.
    pub(crate) async fn lay(
        config: Config,
        clock: Clock,
        bus: InMemoryBus,
        destinations: &[(&str, SocketAddr)],
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let mut mesh_config = config.mesh.clone();
        for (name, address) in destinations {
            mesh_config
                .destinations
                .insert((*name).to_owned(), format!("http://{address}"));
        }
        let contract = Contract::new(proto::FILE_DESCRIPTOR_SET)?;
        let mesh = Mesh::start(mesh_config, contract, registry).await?;
        config.simulator.validate()?;
        let simulator =
            Simulator::open(&config.simulator, &config.simulator_journal, clock.clone())
                .await
                .context("the simulator's journal")?;
        let reconciliations = payment::reconciler::Metrics::unregistered()?;
        reconciliations.register_in(registry)?;
        Ok(Self {
            config,
            clock,
            bus,
            mesh,
            simulator: Arc::new(simulator),
            ended: CancellationToken::new(),
            event_metrics: mesh_events::Metrics::register(registry)?,
            reconciliations,
            registry: registry.clone(),
        })
    }

    /// Opens the product service and serves it.
    pub(crate) async fn product(&self, listener: TcpListener) -> anyhow::Result<Running> {
        let parts = product::Parts {
            clock: self.clock.clone(),
            bus: Arc::new(self.bus.clone()),
            dead_letters: None,
            mesh: self.mesh.clone(),
            event_metrics: self.event_metrics.clone(),
            fault_points: FaultPoints::default(),
        };
        let service = product::Service::open(self.config.product.clone(), parts).await?;
        let outbox = service.outbox();
        let part = Part::start("the product service", &self.ended, |shutdown| {
            service.run(listener, shutdown)
        });
        Ok(Running { part, outbox })
    }

    /// Opens the payment service, with the simulator as its provider, and serves it.
    pub(crate) async fn payment(&self, listener: TcpListener) -> anyhow::Result<Running> {
        let provider: Arc<dyn payment::provider::Provider> = self.simulator.clone();
        let parts = payment::Parts {
            mesh: self.mesh.clone(),
            bus: Arc::new(self.bus.clone()),
            events: self.event_metrics.clone(),
            providers: Providers::from([(simulator::NAME.to_owned(), provider)]),
            clock: self.clock.clone(),
            reconciliations: self.reconciliations.clone(),
            fault_points: FaultPoints::default(),
        };
        let service = payment::Service::open(self.config.payment.clone(), parts).await?;
        service.metrics().register(&self.registry)?;
        let outbox = service.outbox();
        let part = Part::start("the payment service", &self.ended, |shutdown| {
            service.run(listener, shutdown)
        });
        Ok(Running { part, outbox })
    }
}

impl Slot {
    /// Puts a running service there.
    pub(crate) async fn fill(&self, running: Running) {
        *self.running.lock().await = Some(running);
    }

    /// Stops what runs there; nothing to do where nothing does.
    pub(crate) async fn stop(&self) -> anyhow::Result<()> {
        let running = self.running.lock().await.take();
        match running {
            Some(running) => running.part.stop().await,
            None => Ok(()),
        }
    }

    pub(crate) async fn is_running(&self) -> bool {
        self.running.lock().await.is_some()
    }

    /// Events that wait to be published; none where nothing runs, for nobody would publish them.
    pub(crate) async fn events_pending(&self, now_us: i64) -> anyhow::Result<u64> {
        match &*self.running.lock().await {
            Some(running) => Ok(running.outbox.lag(now_us).await?.pending),
            None => Ok(0),
        }
    }

    /// Makes readiness depend on the service: it runs and its database answers.
    pub(crate) fn check(&self, readiness: &Readiness, name: &str, clock: &Clock) {
        let (slot, clock) = (self.clone(), clock.clone());
        readiness.check(name, move || {
            let (slot, clock) = (slot.clone(), clock.clone());
            async move {
                if !slot.is_running().await {
                    return Err("stopped".to_owned());
                }
                let asked = slot.events_pending(clock.now_us()).await;
                asked.map(drop).map_err(|error| format!("{error:#}"))
            }
        });
    }
}
