//! The service as a process of its own: what `chassis` has to know of it, and the simulator, which is its provider here
//! or where `simulator_remote` says.

use crate::provider;
use crate::provider::simulator::{self, RemoteSimulator, Simulator};
use crate::reconciler::Metrics;
use crate::saga::Providers;
use crate::webhook::DirectWebhooks;
use crate::{Config, DRAIN, Parts, Service, answers, store};
use anyhow::{Context as _, ensure};
use chassis::{Check, Common};
use mesh_events::Subscription;
use mesh_runtime::{Background, Clock};
use prometheus::Registry;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// The service with the providers that its configuration names.
pub struct Program {
    service: Service,
    /// Where it runs in this process.
    simulator: Option<Arc<Simulator>>,
    metrics: Metrics,
}

impl chassis::Program for Program {
    type Config = Config;
    const NAME: &'static str = "payment";

    fn common(config: &Config) -> Common {
        Common {
            listen: config.listen.clone(),
            admin_listen: config.admin_listen.clone(),
            telemetry: config.telemetry.clone(),
            mesh: config.mesh.clone(),
            bus: config.bus.clone(),
        }
    }

    fn subscriptions(_: &Config) -> Vec<Subscription> {
        Vec::new()
    }

    async fn migrate(config: &Config, role: &str) -> anyhow::Result<()> {
        store::migrate(&config.service.postgres, role).await
    }

    async fn open(config: Config, parts: chassis::Parts) -> anyhow::Result<Self> {
        let (providers, simulator) = simulators(&config, &parts.clock).await?;
        let metrics = Metrics::unregistered()?;
        let parts = Parts {
            mesh: parts.mesh,
            bus: parts.bus,
            events: parts.event_metrics,
            providers,
            clock: parts.clock,
            reconciliations: metrics.clone(),
            fault_points: parts.fault_points,
        };
        let service = Service::open(config.service, parts).await?;
        Ok(Self {
            service,
            simulator,
            metrics,
        })
    }

    fn register(&self, registry: &Registry) -> anyhow::Result<()> {
        self.service.metrics().register(registry)?;
        Ok(self.metrics.register_in(registry)?)
    }

    fn ready(&self) -> Check {
        let store = self.service.store().clone();
        Box::new(move || Box::pin(answers(store.clone())))
    }

    async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
        let background = Background::new(shutdown.clone(), &shutdown);
        if let Some(sending) = self.simulator.clone() {
            let commands = self.service.commands().clone();
            let webhooks = DirectWebhooks::new(commands, simulator::NAME);
            background.spawn("the simulator", |stop| async move {
                sending.run(Some(&webhooks), stop).await;
            });
        }
        let served = self.service.run(listener, shutdown.clone()).await;
        // Where serving ended by itself, the rest ends too.
        if let Err(error) = background.stop(DRAIN).await {
            tracing::warn!(%error, "stopped without waiting longer");
        }
        if let Some(simulator) = self.simulator {
            let closed = simulator.close().await;
            closed.context("closing the simulator's journal")?;
        }
        served?;
        Ok(background.outcome()?)
    }
}

/// The simulators that payments may go to as providers; and the one that runs in this process.
async fn simulators(
    config: &Config,
    clock: &Clock,
) -> anyhow::Result<(Providers, Option<Arc<Simulator>>)> {
    let named = config.service.providers();
    let mut providers = Providers::new();
    for (name, further) in &config.simulators {
        ensure!(
            !provider::NAMES.contains(&name.as_str()),
            "simulators.{name}: is the name of another provider"
        );
        if named.contains(name.as_str()) {
            let remote = RemoteSimulator::new(name, &further.remote, &further.simulator);
            let remote = remote.with_context(|| format!("simulators.{name}"))?;
            providers.insert(name.clone(), Arc::new(remote));
        }
    }
    let name = simulator::NAME;
    if !named.contains(name) {
        return Ok((providers, None));
    }
    config.simulator.validate()?;
    if !config.simulator_remote.url.is_empty() {
        let remote = RemoteSimulator::new(name, &config.simulator_remote, &config.simulator)
            .context("simulator_remote")?;
        providers.insert(name.to_owned(), Arc::new(remote));
        return Ok((providers, None));
    }
    let simulator = Simulator::open(&config.simulator, &config.simulator_journal, clock.clone())
        .await
        .context("the simulator's journal")?;
    let simulator = Arc::new(simulator);
    providers.insert(name.to_owned(), simulator.clone());
    Ok((providers, Some(simulator)))
}
