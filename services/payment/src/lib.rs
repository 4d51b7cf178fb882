//! The payment service: payments, attempts, captures and refunds carried out as one persisted saga,
//! the double-entry ledger and its reconciliation with providers, sales from snapshots, idempotency, webhooks.
//!
//! Read in this order: `state.rs` (the table), `payment.rs` (commands), `step` (what to ask the
//! world next), `record` (what its answers mean), `saga.rs` (asks and records), `store/` (one
//! transaction around each decision), `commands.rs` (what callers ask), `grpc.rs`.
//!
//! Deliberately missing: the catalogue (a snapshot of each line is all that is kept of a product),
//! card data (tokens only), and REST (the edge has it).

pub mod attempt;
pub mod audit;
pub mod books;
pub mod capture;
pub mod catalogue;
pub mod charges;
pub mod commands;
pub mod config;
pub mod dispute;
pub mod error;
pub mod fact;
pub mod failure;
pub mod grpc;
pub mod ledger;
pub mod limits;
pub mod metrics;
pub mod money;
pub mod office;
pub mod payment;
pub mod policy;
mod process;
pub mod provider;
pub mod reconcile;
pub mod reconciler;
pub mod record;
pub mod refund;
pub mod rejection;
pub mod routing;
pub mod saga;
pub mod sales;
pub mod sealer;
pub mod state;
pub mod step;
pub mod store;
#[cfg(test)]
mod testing;
pub mod unresolved;
pub mod webhook;
pub mod wire;
pub mod worker;

pub use config::{Config, SagaConfig, ServiceConfig};
pub use process::Program;

use crate::audit::Head;
use crate::catalogue::{Catalogue, ProductCatalogue};
use crate::commands::Commands;
use crate::grpc::watch;
use crate::grpc::{Grpc, Operators};
use crate::limits::Limits;
use crate::reconciler::Reconciler;
use crate::saga::{Providers, Saga};
use crate::sealer::Sealer;
use crate::store::Store;
use crate::store::audit::Verified;
use crate::store::database::{self, Database};
use crate::worker::Worker;
use anyhow::{Context as _, ensure};
use mesh::Mesh;
use mesh_events::{Bus, FaultPoints, Metrics, Outbox, Relay};
use mesh_runtime::{Background, Clock, shutdown};
use proto::commerce::payment::v1::payment_service_server::PaymentServiceServer;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long payments under way may take to come to a rest when the service stops. What does not is
/// gone on with at the next start.
const DRAIN: Duration = Duration::from_secs(15);

/// What the service is given by whoever runs it.
pub struct Parts {
    /// Calls to `product`, and the server.
    pub mesh: Mesh,
    /// Where events go.
    pub bus: Arc<dyn Bus>,
    /// What is counted of events.
    pub events: Metrics,
    /// Who moves the money, by name.
    pub providers: Providers,
    /// The time.
    pub clock: Clock,
    /// What reconciliations show of themselves.
    pub reconciliations: reconciler::Metrics,
    /// Where the process is to die, in tests.
    pub fault_points: FaultPoints,
}

/// The service, opened and not yet serving. Its parts can be used without a listener.
pub struct Service {
    config: ServiceConfig,
    parts: Parts,
    database: Database,
    store: Arc<dyn Store>,
    commands: Commands,
    tasks: TaskTracker,
    metrics: metrics::Metrics,
}

impl Service {
    /// Opens the database and puts the parts together. `product` must be a configured destination.
    pub async fn open(config: ServiceConfig, parts: Parts) -> anyhow::Result<Self> {
        parts.mesh.require(&["product"])?;
        let catalogue = Arc::new(ProductCatalogue::new(&parts.mesh));
        Self::with_catalogue(config, parts, catalogue).await
    }

    /// The same over another catalogue.
    pub async fn with_catalogue(
        config: ServiceConfig,
        mut parts: Parts,
        catalogue: Arc<dyn Catalogue>,
    ) -> anyhow::Result<Self> {
        ensure!(
            config.saga.lease_ms > config.saga.provider_timeout_ms,
            "saga.lease_ms must be longer than saga.provider_timeout_ms"
        );
        ensure!(
            config.reconcile.lease_ms > config.reconcile.timeout_ms,
            "reconcile.lease_ms must be longer than reconcile.timeout_ms"
        );
        let database = Database::open(&config, parts.fault_points.clone()).await?;
        let (references, clock) = (database.references(), &parts.clock);
        provider::adapters::add(&mut parts.providers, &config, &references, clock)?;
        let store = database.store();
        let tasks = TaskTracker::new();
        let metrics = metrics::Metrics::new()?;
        let saga = Saga::new(
            store.clone(),
            catalogue.clone(),
            parts.providers.clone(),
            config.saga.clone(),
            parts.clock.clone(),
            tasks.clone(),
            parts.fault_points.clone(),
        )
        .routed(config.routes.clone())
        .limited(Limits::new(&config.limits)?)
        .counted(metrics.clone());
        let commands = Commands::new(store.clone(), saga, catalogue, config.provider.clone());
        Ok(Self {
            config,
            parts,
            database,
            store,
            commands,
            tasks,
            metrics,
        })
    }

    /// The commands, for whoever brings webhooks, and for tests.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// The storage.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What is counted of payments.
    pub fn metrics(&self) -> &metrics::Metrics {
        &self.metrics
    }

    /// Events that wait to be published.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        self.database.outbox()
    }

    /// A worker over this service's parts; [`Service::run`] runs one of its own.
    pub fn worker(&self) -> Worker {
        let saga = self.commands.saga().clone();
        Worker::new(self.store.clone(), saga, self.config.clone())
    }

    /// Serves until `shutdown`, then stops in order: callers, payments under way, events, database.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let server = self.parts.mesh.server();
        let draining = server.draining();
        let limits = watch::Limits {
            poll: Duration::from_millis(self.config.watch_poll_ms.max(1)),
            batch_max: i64::from(self.config.watch_batch_max.max(1)),
            stopping: draining.clone(),
        };
        let operators = Operators {
            desk: self.database.desk(),
            audit: self.database.audit(),
            reconciliations: self.database.reconciliations(),
            books: self.database.books(),
            escalate_us: self.config.saga.escalate_us(),
        };
        let api = Grpc::new(self.store.clone(), self.commands.clone(), operators, limits);
        let store = self.store.clone();
        let server = server
            .ready_when(move || answers(store.clone()))
            .add(PaymentServiceServer::new(api));
        let working = Background::new(draining, &shutdown);
        let (worker, reconciler) = (self.worker(), self.reconciler());
        working.spawn("the worker", |stop| async move { worker.run(stop).await });
        working.spawn("the reconciler", |stop| async move {
            reconciler.run(stop).await;
        });
        let telling = Background::new(CancellationToken::new(), &shutdown);
        let (relay, sealer) = (self.relay(), self.sealer());
        telling.spawn("the relay", |stop| async move { relay.run(stop).await });
        telling.spawn("the sealer", |stop| async move { sealer.run(stop).await });

        let served = server.serve(listener, shutdown.clone()).await;
        shutdown.cancel(); // Where serving failed, the rest stops as well.
        let worked = working.stop(DRAIN).await;
        for drained in [worked, shutdown::drain(&self.tasks, DRAIN).await] {
            if let Err(error) = drained {
                tracing::warn!(%error, "payments under way are gone on with at the next start");
            }
        }
        if let Err(error) = telling.stop(DRAIN).await {
            tracing::warn!(%error, "events wait for the next start");
        }
        self.database
            .close()
            .await
            .context("closing the database of payments")?;
        served?;
        working.outcome()?;
        Ok(telling.outcome()?)
    }

    /// Who gives records their places, over this service's database; [`Service::run`] runs one of its own.
    pub fn sealer(&self) -> Sealer {
        Sealer {
            log: self.database.audit(),
            every: Duration::from_millis(self.config.audit_seal_ms.max(1)),
            batch_max: self.config.audit_seal_max.max(1),
        }
    }

    /// Who compares providers' lists with the books; [`Service::run`] runs one of its own.
    pub fn reconciler(&self) -> Reconciler {
        Reconciler::new(
            self.database.reconciliations(),
            self.commands.clone(),
            self.config.reconcile.clone(),
            self.parts.reconciliations.clone(),
        )
    }

    fn relay(&self) -> Relay {
        let clock = self.parts.clock.clone();
        Relay {
            name: "payment".to_owned(),
            outbox: self.parts.fault_points.outbox(self.outbox()),
            bus: self.parts.fault_points.bus(self.parts.bus.clone()),
            config: self.config.relay.clone(),
            now: Arc::new(move || clock.now_us()),
            wake: self.database.wake(),
            metrics: self.parts.events.clone(),
        }
    }
}

/// Goes through the chain of who did what in the configured database, which may be in use; `known` is a head that it once
/// had. Answers what to print; an error where the chain is broken.
pub async fn verify_audit(config: &ServiceConfig, known: Option<Head>) -> anyhow::Result<String> {
    let log = database::audit(config).await?;
    let verified = store::audit::verify(&*log, known).await?;
    let head = match verified {
        Verified::Whole(head) => head,
        Verified::Broken(broken) => {
            return Err(anyhow::Error::new(broken).context("the audit trail is broken"));
        }
    };
    let pending = log.pending().await?;
    let oldest = pending.oldest_us.map_or_else(String::new, |oldest_us| {
        format!(", the oldest since {}", kernel::day::to_rfc3339(oldest_us))
    });
    Ok(format!(
        "{head}\n{} records, whole; {} wait for their places{oldest}",
        head.number, pending.records
    ))
}

/// Whether the database answers: a check for readiness.
async fn answers(store: Arc<dyn Store>) -> Result<(), String> {
    let revisions = store.revisions().await;
    revisions.map(drop).map_err(|error| error.to_string())
}
