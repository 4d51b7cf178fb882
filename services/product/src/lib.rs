//! The product service: the catalogue, its stock and reservations, search, and the sales figures
//! shown with a product.
//!
//! This file is the wiring. `grpc` reads requests, the domain modules (`product`, `reservation`,
//! `stock`, `csv`, `search`) decide, `store` keeps, `consumer` takes payment events in. Deliberately
//! missing: any call to another service. Product knows payments from events only.

pub mod config;
pub mod consumer;
pub mod csv;
pub mod error;
mod grpc;
pub mod listing;
mod process;
pub mod product;
pub mod reservation;
pub mod search;
pub mod stock;
pub mod store;
pub mod sweeper;
pub mod transfer;
pub mod watch;
pub mod wire;

use std::sync::Arc;

use anyhow::Context as _;
use mesh_events::{Consumer, DeadLetters, Now, Outbox, Relay};
use mesh_store::{
    postgres::{dead_letters::PostgresDeadLetters, outbox::PostgresOutbox},
    sqlite::{dead_letters::SqliteDeadLetters, outbox::SqliteOutbox},
};
use proto::commerce::product::v1::product_service_server::ProductServiceServer;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

pub use chassis::Parts;
pub use config::Config;
use store::{Store, postgres::PostgresStore, sqlite::SqliteStore};

/// The service with its database open, not yet serving.
#[derive(Clone)]
pub struct Service {
    config: Config,
    parts: Parts,
    database: Database,
}

/// Where the service keeps its data. Only this file knows which.
#[derive(Clone)]
enum Database {
    Sqlite(SqliteStore),
    Postgres(PostgresStore),
}

impl Service {
    /// Connects to PostgreSQL where its URL is given; else opens the database file, creating it where there
    /// is none.
    pub async fn open(config: Config, parts: Parts) -> anyhow::Result<Self> {
        let database = if config.postgres.url.is_empty() {
            let store = SqliteStore::open(&config.store).await;
            let store = store.context("product database")?;
            Database::Sqlite(store.with_fault_points(parts.fault_points.clone()))
        } else {
            let points = parts.fault_points.clone();
            let store = PostgresStore::connect(&config.postgres, &config.shared, points).await;
            Database::Postgres(store.context("product database")?)
        };
        Ok(Self {
            config,
            parts,
            database,
        })
    }

    /// What it keeps.
    pub fn store(&self) -> Arc<dyn Store> {
        match &self.database {
            Database::Sqlite(store) => Arc::new(store.clone()),
            Database::Postgres(store) => Arc::new(store.clone()),
        }
    }

    /// Events that wait to be published.
    pub fn outbox(&self) -> Arc<dyn Outbox> {
        match &self.database {
            Database::Sqlite(store) => Arc::new(SqliteOutbox::new(store.sqlite().clone())),
            Database::Postgres(store) => Arc::new(PostgresOutbox::new(store.postgres().clone())),
        }
    }

    /// Events that could not be applied.
    pub fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        if let Some(dead_letters) = &self.parts.dead_letters {
            return dead_letters.clone();
        }
        match &self.database {
            Database::Sqlite(store) => Arc::new(SqliteDeadLetters::new(store.sqlite().clone())),
            Database::Postgres(store) => {
                Arc::new(PostgresDeadLetters::new(store.postgres().clone()))
            }
        }
    }

    /// Whether the database answers: a check for readiness.
    pub async fn ready(&self) -> Result<(), String> {
        self.store()
            .revision()
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    }

    /// One round of the sweeper at this moment.
    pub async fn sweep(&self) -> Result<sweeper::Swept, error::Error> {
        sweeper::sweep(
            &*self.store(),
            &self.config.sweep,
            self.parts.clock.now_us(),
        )
        .await
    }

    /// Serves until `shutdown`, drains, and closes the database.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let server = self.parts.mesh.server();
        let api = grpc::Api::new(
            self.store(),
            &self.config,
            self.parts.clock.clone(),
            server.draining(),
        );
        let asked = self.clone();
        let ready = move || {
            let asked = asked.clone();
            async move { asked.ready().await }
        };
        let server = server.ready_when(ready).add(ProductServiceServer::new(api));
        let (sweep, clock) = (self.config.sweep.clone(), self.parts.clock.clone());
        let store = self.store();
        let sweeper = |stop| sweeper::run(store, sweep, clock, stop);
        let (relay, consumer) = (self.relay(), self.consumer());
        let served = chassis::serve(server, listener, shutdown, relay, consumer, sweeper).await;
        self.close().await.context("closing the product database")?;
        served.context("serving the product service")
    }

    async fn close(&self) -> Result<(), sqlx::Error> {
        match &self.database {
            Database::Sqlite(store) => store.sqlite().close().await,
            Database::Postgres(store) => {
                store.close().await;
                Ok(())
            }
        }
    }

    /// Notified when there may be events to publish.
    fn wake(&self) -> Arc<Notify> {
        match &self.database {
            Database::Sqlite(store) => store.sqlite().wake(),
            Database::Postgres(store) => store.postgres().committed(),
        }
    }

    fn relay(&self) -> Relay {
        Relay {
            name: "product".to_owned(),
            outbox: self.parts.fault_points.outbox(self.outbox()),
            bus: self.parts.fault_points.bus(self.parts.bus.clone()),
            config: self.config.relay.clone(),
            now: self.now(),
            wake: self.wake(),
            metrics: self.parts.event_metrics.clone(),
        }
    }

    fn consumer(&self) -> Consumer {
        let handler = consumer::SalesHandler::new(self.store(), self.parts.clock.clone());
        Consumer {
            name: consumer::NAME.to_owned(),
            kinds: consumer::KINDS.map(str::to_owned).to_vec(),
            bus: self.parts.fault_points.bus(self.parts.bus.clone()),
            handler: Arc::new(handler),
            dead_letters: self.dead_letters(),
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

/// Opens and serves until `shutdown`.
pub async fn run(
    config: Config,
    parts: Parts,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    Service::open(config, parts)
        .await?
        .run(listener, shutdown)
        .await
}
