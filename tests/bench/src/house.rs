//! The servers and the services that are measured: product and payment as they are released, each a process with a
//! database of its own, on a private PostgreSQL and RabbitMQ.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, postgres::PgPoolOptions};
use xtask::{
    servers::{Group, Servers, free_address, program},
    shop::get,
    up,
};

use crate::{pgbench, profile};

/// What PostgreSQL's documentation recommends to begin with: a quarter of a machine's memory, at most this. All else
/// is as it comes.
const SHARED_BUFFERS: &str = "4GB";
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// PostgreSQL, set up; RabbitMQ. To be started from the thread that lives longest.
pub(crate) fn servers(profiled: bool) -> Result<Servers> {
    let mut servers = Servers::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let url = servers.postgres().url();
        execute(
            &url,
            &format!("ALTER SYSTEM SET shared_buffers = '{SHARED_BUFFERS}'"),
        )
        .await?;
        if profiled {
            profile::prepare(&url).await?;
        }
        execute(&url, &format!("CREATE DATABASE {}", pgbench::DATABASE)).await
    })?;
    servers.postgres_mut().restart_immediately()?;
    Ok(servers)
}

/// A statement on a connection of its own.
pub(crate) async fn execute(url: &str, statement: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// A running service.
pub(crate) struct Service {
    /// `product` or `payment`.
    pub(crate) name: &'static str,
    /// Where gRPC is.
    pub(crate) address: String,
    /// Its database, as the superuser.
    pub(crate) database: PgPool,
    group: Group,
}

/// Both.
pub(crate) struct House {
    pub(crate) product: Service,
    pub(crate) payment: Service,
    /// Where the simulator has its journal.
    pub(crate) journal: PathBuf,
    /// Where files of a run may be written.
    pub(crate) folder: PathBuf,
}

impl House {
    /// Creates the databases and starts the services. `binaries` are product's and payment's.
    pub(crate) async fn start(
        servers: &Servers,
        binaries: [&Path; 2],
        folder: &Path,
    ) -> Result<House> {
        let [product, payment] = binaries;
        let product = Service::start(servers, "product", product, folder, "").await?;
        let journal = folder.join("simulator.db");
        let more = format!(
            "\n[mesh.destinations]\nproduct = \"{}\"\n[simulator_journal]\npath = \"{}\"\n",
            product.address,
            journal.display()
        );
        let payment = Service::start(servers, "payment", payment, folder, &more).await?;
        Ok(House {
            product,
            payment,
            journal,
            folder: folder.to_owned(),
        })
    }

    pub(crate) fn services(&self) -> [&Service; 2] {
        [&self.product, &self.payment]
    }
}

impl Service {
    async fn start(
        servers: &Servers,
        name: &'static str,
        binary: &Path,
        folder: &Path,
        more: &str,
    ) -> Result<Service> {
        up::create_database(servers, name)?;
        up::migrate(servers, name, binary, folder)?;
        let (listen, admin) = (free_address()?, free_address()?);
        let storage = up::storage(servers, name, name);
        let config = folder.join(format!("{name}.toml"));
        let addresses = format!("listen = \"{listen}\"\nadmin_listen = \"{admin}\"\n");
        fs::write(&config, format!("{addresses}\n{storage}{more}"))?;
        let log = folder.join(format!("{name}.log"));
        let output = fs::File::create(&log)?;
        let mut process = program(binary, None);
        process
            .arg("--config")
            .arg(&config)
            .stdout(output.try_clone()?)
            .stderr(output);
        let mut group = Group::start(&mut process)?;
        let ready = || get(admin, "/readyz").is_ok_and(|(status, _)| status == 200);
        if let Err(error) = group.wait_until(READY_TIMEOUT, &log, ready) {
            group.kill();
            return Err(error).context(name);
        }
        let database = PgPoolOptions::new()
            .max_connections(2)
            .connect(&servers.postgres().url_of("postgres", name))
            .await?;
        Ok(Service {
            name,
            address: format!("http://{listen}"),
            database,
            group,
        })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.group.id()
    }

    /// The most memory that its process ever had, in mebibytes.
    pub(crate) fn peak_memory_mib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kibibytes: u64 = kibibytes.context("VmHWM is not there")?.trim().parse()?;
        Ok(kibibytes / 1024)
    }

    /// One text from its database.
    pub(crate) async fn text(&self, query: &'static str) -> Result<String> {
        Ok(sqlx::query_scalar(query).fetch_one(&self.database).await?)
    }

    /// One number from its database.
    pub(crate) async fn number(&self, query: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(query).fetch_one(&self.database).await?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.group.stop("-TERM");
    }
}
