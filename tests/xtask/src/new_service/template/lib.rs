//! The widget service.
//!
//! This file says what the service is; `chassis` opens and serves it. `grpc` reads requests, the domain module
//! (`widget`) decides, `store` keeps, `consumer` takes events in.

pub mod consumer;
mod grpc;
pub mod store;
pub mod widget;

use std::sync::Arc;

use chassis::Database;
use mesh_events::Handler;
use mesh_runtime::Clock;
use proto::commerce::widget::v1::widget_service_server::WidgetServiceServer;
use sqlx::migrate::Migrator;

use store::Store;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The service over its database.
pub struct Service {
    store: Arc<dyn Store>,
    clock: Clock,
}

impl chassis::Service for Service {
    const NAME: &'static str = "widget";
    const KINDS: &'static [&'static str] = &consumer::KINDS;

    fn migrations() -> &'static Migrator {
        &MIGRATIONS
    }

    fn new(database: &Database, clock: &Clock) -> Self {
        Self {
            store: store::over(database),
            clock: clock.clone(),
        }
    }

    fn serve(&self, server: mesh::Server) -> mesh::Server {
        let api = grpc::Api::new(self.store.clone(), self.clock.clone());
        server.add(WidgetServiceServer::new(api))
    }

    fn handler(&self) -> Arc<dyn Handler> {
        Arc::new(consumer::Titles::new(self.store.clone(), self.clock.clone()))
    }
}
