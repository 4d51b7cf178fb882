//! What a shop of the tests stands on: files and a bus in memory, or the servers that it is deployed on.
//!
//! `SHOP_BACKING=servers` chooses the servers for every shop of a test run; `cargo xtask test` runs the scenarios
//! once on each. Each shop has databases, an exchange and queues of its own, so that tests do not meet.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use mesh_events::{Bus, DeadLetters, Faults, InMemoryBus, InMemoryBusConfig};
use mesh_rabbitmq::{RabbitMqBus, RabbitMqConfig};
use mesh_store::PostgresConfig;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use uuid::Uuid;

use crate::invariants::Stores;

/// Whether the shops of this run stand on servers.
pub fn on_servers() -> bool {
    variable("SHOP_BACKING").is_ok_and(|backing| backing == "servers")
}

/// What one shop stands on.
pub(crate) enum Ground {
    Embedded(Arc<InMemoryBus>),
    Servers(Servers),
}

/// The shop's own part of the servers.
pub(crate) struct Servers {
    admin: String,
    names: [String; 2],
    bus: RabbitMqBus,
}

/// The services with a database, in the order of [`Servers::names`].
const SERVICES: [&str; 2] = ["product", "payment"];

impl Ground {
    /// Fresh ground; on servers where the run stands on them, or where PostgreSQL is named.
    pub(crate) async fn lay(faults: Faults, postgres: Option<&str>) -> anyhow::Result<Ground> {
        if !on_servers() && postgres.is_none() {
            let bus = InMemoryBus::with_config(InMemoryBusConfig::default(), faults);
            return Ok(Ground::Embedded(Arc::new(bus)));
        }
        let admin = match postgres {
            Some(postgres) => postgres.to_owned(),
            None => variable("SHOP_POSTGRES")?,
        };
        let id = Uuid::now_v7().simple().to_string();
        let names = SERVICES.map(|service| format!("{service}_{id}"));
        for name in &names {
            administer(&admin, &format!("CREATE DATABASE {name}")).await?;
        }
        let servers = Servers {
            bus: bus(&id)?,
            admin,
            names,
        };
        product::store::postgres::migrate(&servers.product(), "").await?;
        payment::store::migrate(&servers.payment(), "").await?;
        Ok(Ground::Servers(servers))
    }

    /// The names of product's and payment's database, where they are a server's.
    pub(crate) fn databases(&self) -> Option<[String; 2]> {
        match self {
            Ground::Embedded(_) => None,
            Ground::Servers(servers) => Some(servers.names.clone()),
        }
    }

    /// What carries events.
    pub(crate) fn bus(&self) -> Arc<dyn Bus> {
        match self {
            Ground::Embedded(bus) => bus.clone(),
            Ground::Servers(servers) => Arc::new(servers.bus.clone()),
        }
    }

    /// Where events go that a consumer gives up on, unless it is a table of its own.
    pub(crate) fn dead_letters(&self) -> Option<Arc<dyn DeadLetters>> {
        match self {
            Ground::Embedded(_) => None,
            Ground::Servers(servers) => Some(Arc::new(servers.bus.dead_letters())),
        }
    }

    /// Events in the bus; a broker's are seen by their effects only.
    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Ground::Embedded(bus) => bus.in_flight(),
            Ground::Servers(_) => 0,
        }
    }

    /// Where product keeps its data, if not in a file.
    pub(crate) fn product(&self) -> PostgresConfig {
        match self {
            Ground::Embedded(_) => PostgresConfig::default(),
            Ground::Servers(servers) => servers.product(),
        }
    }

    /// Where payment keeps its data, if not in a file.
    pub(crate) fn payment(&self) -> PostgresConfig {
        match self {
            Ground::Embedded(_) => PostgresConfig::default(),
            Ground::Servers(servers) => servers.payment(),
        }
    }

    /// The databases as they are now; the provider's journal is in `folder` everywhere.
    pub(crate) async fn stores(&self, folder: &Path, now_us: i64) -> sqlx::Result<Stores> {
        match self {
            Ground::Embedded(_) => Stores::open(folder, now_us).await,
            Ground::Servers(servers) => {
                let [product, payment] = servers.urls();
                Stores::copy(&product, &payment, folder, now_us).await
            }
        }
    }

    /// Gives back what the shop had of the servers.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        if let Ground::Servers(servers) = self {
            for name in &servers.names {
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                administer(&servers.admin, &drop).await?;
            }
        }
        Ok(())
    }
}

impl Servers {
    fn urls(&self) -> [String; 2] {
        let server = self.admin.rsplit_once('/').map_or("", |(server, _)| server);
        self.names.clone().map(|name| format!("{server}/{name}"))
    }

    fn product(&self) -> PostgresConfig {
        database(self.urls()[0].clone())
    }

    fn payment(&self) -> PostgresConfig {
        database(self.urls()[1].clone())
    }
}

fn database(url: String) -> PostgresConfig {
    PostgresConfig {
        url,
        connections_max: 12, // Several shops share the server's.
        ..PostgresConfig::default()
    }
}

fn bus(id: &str) -> anyhow::Result<RabbitMqBus> {
    let config = RabbitMqConfig {
        url: without_password(&variable("SHOP_RABBITMQ")?),
        exchange: format!("test.{id}"),
        retry_ladder_ms: vec![100, 1_000], // Queues are not cheap.
        ..RabbitMqConfig::default()
    };
    let metrics = mesh_rabbitmq::Metrics::unregistered()?;
    Ok(RabbitMqBus::start(config, "test", metrics)?)
}

/// `amqp://guest:guest@host` as `amqp://host`: the configuration takes no password in its URL.
pub(crate) fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.split_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test has no other configuration"
)]
pub(crate) fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| {
        format!("{name} is not set: run `cargo xtask test`, or `cargo xtask servers`")
    })
}

pub(crate) async fn administer(admin: &str, statement: &str) -> sqlx::Result<()> {
    let mut connection = PgConnection::connect(admin).await?;
    sqlx::query(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await?;
    connection.close().await
}
