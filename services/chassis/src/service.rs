//! A service: what it says of itself, and how it is opened and served.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use mesh::{Mesh, Server};
use mesh_events::{
    Bus, Consumer, DeadLetters, FaultPoints, Handler, Now, Outbox, Relay, Subscription,
};
use mesh_runtime::{Background, Clock};
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Config, Database};

/// How long relay and consumer may take beyond their own bounds, for what the database still does.
const STATEMENT: Duration = Duration::from_secs(5);

/// What a service says of itself.
pub trait Service: Send + Sync + Sized + 'static {
    /// Its name: of its database, its consumer and its destination in the mesh.
    const NAME: &'static str;
    /// The kinds of event that it takes.
    const KINDS: &'static [&'static str];

    /// Its schema, the same for both databases.
    fn migrations() -> &'static Migrator;

    /// Over an open database.
    fn new(database: &Database, clock: &Clock) -> Self;

    /// What serves its RPCs, added to a server.
    fn serve(&self, server: Server) -> Server;

    /// What applies events.
    fn handler(&self) -> Arc<dyn Handler>;

    /// What its consumer asks of a bus.
    fn subscription(config: &Config) -> Subscription {
        Subscription {
            consumer: Self::NAME.to_owned(),
            kinds: kinds::<Self>(),
            prefetch: config.consumer.concurrency_max,
        }
    }
}

fn kinds<S: Service>() -> Vec<String> {
    S::KINDS.iter().map(|kind| (*kind).to_owned()).collect()
}

/// Serves until `shutdown`, with a relay, a consumer and a sweeper beside, without each of which it ends. They stop after
/// the last call, which may have left events behind.
pub async fn serve<F>(
    server: Server,
    listener: TcpListener,
    shutdown: CancellationToken,
    relay: Relay,
    consumer: Consumer,
    sweeper: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let drain_ms = relay.config.drain_ms.max(consumer.config.drain_ms);
    let background = Background::new(CancellationToken::new(), &shutdown);
    background.spawn("the relay", |stop| relay.run(stop));
    background.spawn("the consumer", |stop| consumer.run(stop));
    background.spawn("the sweeper", sweeper);
    let served = server.serve(listener, shutdown).await;
    let stopped = background.stop(Duration::from_millis(drain_ms) + STATEMENT);
    if let Err(error) = stopped.await {
        tracing::warn!(%error, "events wait for the next start");
    }
    served?;
    Ok(background.outcome()?)
}

/// What a service is given by whoever runs it.
#[derive(Clone)]
pub struct Parts {
    /// What time it is.
    pub clock: Clock,
    /// What carries events.
    pub bus: Arc<dyn Bus>,
    /// Where events go that can not be applied, if the bus has a place for them; else a table of the service.
    pub dead_letters: Option<Arc<dyn DeadLetters>>,
    /// What serves calls.
    pub mesh: Mesh,
    /// What relays and consumers of the process count.
    pub event_metrics: mesh_events::Metrics,
    /// Where the process is to die, in tests.
    pub fault_points: FaultPoints,
}

/// A service with its database open, not yet serving.
pub struct Opened<S> {
    service: S,
    config: Config,
    parts: Parts,
    database: Database,
}

impl<S: Service> Opened<S> {
    /// Opens the database.
    pub async fn open(config: Config, parts: Parts) -> anyhow::Result<Self> {
        let database = Database::open(&config, S::migrations(), parts.fault_points.clone())
            .await
            .with_context(|| format!("{} database", S::NAME))?;
        Ok(Self {
            service: S::new(&database, &parts.clock),
            config,
            parts,
            database,
        })
    }

    /// Events that wait to be published.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        self.database.outbox()
    }

    /// What it keeps its data in.
    pub(crate) fn database(&self) -> Database {
        self.database.clone()
    }

    /// Serves until `shutdown`, drains, and closes the database.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let asked = self.database();
        let ready = move || {
            let asked = asked.clone();
            async move { asked.answers().await }
        };
        let server = self.parts.mesh.server().ready_when(ready);
        let server = self.service.serve(server);
        let (sweep, clock) = (self.config.sweep.clone(), self.parts.clock.clone());
        let swept = self.database();
        let sweeper = |stop| swept.keep_swept(sweep, clock, stop);
        let (relay, consumer) = (self.relay(), self.consumer());
        let served = serve(server, listener, shutdown, relay, consumer, sweeper).await;
        self.database
            .close()
            .await
            .context("closing the database")?;
        served.with_context(|| format!("serving {}", S::NAME))
    }

    fn relay(&self) -> Relay {
        Relay {
            name: S::NAME.to_owned(),
            outbox: self.parts.fault_points.outbox(self.outbox()),
            bus: self.parts.fault_points.bus(self.parts.bus.clone()),
            config: self.config.relay.clone(),
            now: self.now(),
            wake: self.database.wake(),
            metrics: self.parts.event_metrics.clone(),
        }
    }

    fn consumer(&self) -> Consumer {
        let own = || self.database.dead_letters();
        Consumer {
            name: S::NAME.to_owned(),
            kinds: kinds::<S>(),
            bus: self.parts.fault_points.bus(self.parts.bus.clone()),
            handler: self.service.handler(),
            dead_letters: self.parts.dead_letters.clone().unwrap_or_else(own),
            config: self.config.consumer.clone(),
            now: self.now(),
            metrics: self.parts.event_metrics.clone(),
        }
    }

    fn now(&self) -> Now {
        let clock = self.parts.clock.clone();
        Arc::new(move || clock.now_us())
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use mesh::{Contract, ServerConfig};
    use mesh_events::{BusError, Deliveries, Event, HandlerError, InMemoryBus, PublishError};
    use mesh_store::SqliteConfig;
    use prometheus::Registry;
    use tempfile::TempDir;
    use tokio::time::timeout;
    use tonic_health::pb::{
        HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
        health_client::HealthClient,
    };

    use super::*;

    /// It takes no call and no event; all that it has is what every service has.
    struct Idle;

    #[async_trait]
    impl Handler for Idle {
        async fn handle(&self, _: &Event) -> Result<(), HandlerError> {
            Ok(())
        }
    }

    impl Service for Idle {
        const NAME: &'static str = "idle";
        const KINDS: &'static [&'static str] = &[];

        fn migrations() -> &'static Migrator {
            static NONE: Migrator = Migrator::DEFAULT;
            &NONE
        }

        fn new(_: &Database, _: &Clock) -> Self {
            Self
        }

        fn serve(&self, server: Server) -> Server {
            server
        }

        fn handler(&self) -> Arc<dyn Handler> {
            Arc::new(Self)
        }
    }

    fn mesh(config: mesh::Config) -> impl Future<Output = Mesh> {
        let contract = Contract::new(&[]).unwrap();
        async move {
            Mesh::start(config, contract, &Registry::new())
                .await
                .unwrap()
        }
    }

    async fn opened(folder: &TempDir, bus: impl Bus + 'static) -> Opened<Idle> {
        let server = ServerConfig {
            readiness_interval_ms: 10,
            ..ServerConfig::default()
        };
        let parts = Parts {
            clock: Clock::system(),
            bus: Arc::new(bus),
            dead_letters: None,
            mesh: mesh(mesh::Config {
                server,
                ..mesh::Config::default()
            })
            .await,
            event_metrics: mesh_events::Metrics::unregistered().unwrap(),
            fault_points: FaultPoints::default(),
        };
        let config = Config {
            store: SqliteConfig {
                path: folder.path().join("idle.db"),
                ..SqliteConfig::default()
            },
            ..Config::default()
        };
        Opened::open(config, parts).await.unwrap()
    }

    /// A bus with a defect.
    struct Defective;

    #[async_trait]
    impl Bus for Defective {
        async fn publish(&self, _: &[Event]) -> Vec<Result<(), PublishError>> {
            panic!("on purpose")
        }

        async fn subscribe(&self, _: Subscription) -> Result<Box<dyn Deliveries>, BusError> {
            panic!("on purpose")
        }
    }

    #[tokio::test]
    async fn a_service_that_cannot_consume_ends() {
        let folder = tempfile::tempdir().unwrap();
        let service = opened(&folder, Defective).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shutdown = CancellationToken::new();
        let error = service.run(listener, shutdown).await.unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "serving idle: the consumer ended although nobody asked it to"
        );
    }

    #[tokio::test]
    async fn a_service_whose_database_does_not_answer_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let service = opened(&folder, InMemoryBus::new()).await;
        let database = service.database();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let serving = mesh::spawn(service.run(listener, shutdown.clone()));

        let calling = mesh(mesh::Config::calling([("idle", address)])).await;
        let ask = HealthCheckRequest {
            service: "readiness".to_owned(),
        };
        let watching = HealthClient::new(calling.client("idle")).watch(ask).await;
        let mut watching = watching.unwrap().into_inner();
        let mut becomes = async |wanted: ServingStatus| {
            let reached = async {
                let status = |said: Option<HealthCheckResponse>| said.unwrap().status();
                while status(watching.message().await.unwrap()) != wanted {}
            };
            timeout(Duration::from_secs(10), reached).await.unwrap();
        };
        becomes(ServingStatus::Serving).await;
        database.close().await.unwrap();
        becomes(ServingStatus::NotServing).await;
        shutdown.cancel();
        // The database is closed already, which it may be.
        serving.await.unwrap().unwrap();
    }
}
