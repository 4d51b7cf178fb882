//! The service as a process of its own: what `chassis` has to know of it.

use chassis::{Check, Common, Parts, Process, Program};
use mesh_events::Subscription;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Config, Service, consumer, store::postgres};

impl Program for Service {
    type Config = Process<Config>;
    const NAME: &'static str = "product";

    fn common(config: &Process<Config>) -> Common {
        config.into()
    }

    fn subscriptions(config: &Process<Config>) -> Vec<Subscription> {
        vec![consumer::subscription(
            config.service.consumer.concurrency_max,
        )]
    }

    async fn migrate(config: &Process<Config>, role: &str) -> anyhow::Result<()> {
        postgres::migrate(&config.service.postgres, role).await?;
        Ok(())
    }

    async fn open(config: Process<Config>, parts: Parts) -> anyhow::Result<Self> {
        Service::open(config.service, parts).await
    }

    fn ready(&self) -> Check {
        let service = self.clone();
        Box::new(move || {
            let service = service.clone();
            Box::pin(async move { Service::ready(&service).await })
        })
    }

    async fn run(self, listener: TcpListener, shutdown: CancellationToken) -> anyhow::Result<()> {
        Service::run(self, listener, shutdown).await
    }
}
