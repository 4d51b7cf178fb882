//! The services as processes of their own on private servers, as they are deployed: two of payment, one of
//! product, the edge, the simulator. Each can be killed and started again at its place, armed or not.
//!
//! Between all of them are proxies, so that what crosses a network can be held up, cut and doubled. One file, for each
//! service's configuration names the places of the others.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use xtask::{
    servers::{Group, Servers, free_address, program},
    services,
};

use payment::provider::simulator::{Faults, WebhookFaults};

use super::proxy::{Manners, Proxy};

/// Where a process may be told to die, as `mesh_events` names the places.
pub const PRODUCT_POINTS: &[&str] = &[
    "before_commit",
    "after_commit",
    "before_publish",
    "before_confirm",
    "after_confirm",
    "after_outbox_delete",
    "before_ack",
    "after_ack",
    "before_retry",
];
/// The same for payment, which consumes nothing and asks a provider.
pub const PAYMENT_POINTS: &[&str] = &[
    "before_commit",
    "after_commit",
    "before_publish",
    "before_confirm",
    "after_confirm",
    "after_outbox_delete",
    "before_provider_call",
    "after_provider_call",
];

/// The programs, built before.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The folder that holds `product`, `payment`, `edge` and `simulator`.
    pub folder: PathBuf,
}

/// What the network between the processes is like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Network {
    /// Between clients, edge and services.
    pub calls: Manners,
    /// Between payment and its provider.
    pub provider: Manners,
    /// What the provider itself does wrong.
    pub misfortune: Misfortune,
    /// Whether payments go to another provider, `spare`, while the first one is away. Then there is no bad
    /// network between payment and either of them: who listens nowhere is seen to be away.
    pub spare: bool,
    /// Share of deliveries that come twice, and of those that come late.
    pub deliveries: f64,
}

/// What the provider does wrong by chance, and how it is announced. The seed is the run's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Misfortune {
    /// Of its calls.
    pub commands: Faults,
    /// Of its webhooks.
    pub webhooks: WebhookFaults,
    /// Whether it announces everything.
    pub webhooks_of_all: bool,
}

/// The provider's settings in TOML.
fn simulated(journal: &Path, webhooks: &str, misfortune: Misfortune, seed: u64) -> String {
    let Misfortune {
        commands,
        webhooks: announced,
        webhooks_of_all,
    } = misfortune;
    format!(
        "webhook_url = \"{webhooks}\"\n[journal]\npath = \"{journal}\"\n\
         [simulator]\nwebhook_delay_ms = 50\nlate_webhook_delay_ms = 2000\n\
         late_effect_ms = {LATE_EFFECT_MS}\nslow_ms = 1500\n\
         webhooks_of_all = {webhooks_of_all}\nwebhook_secret = \"{SECRET}\"\n\
         [simulator.faults]\nseed = {seed}\nunavailable = {:?}\nunknown_before = {:?}\n\
         unknown_after = {:?}\nlate = {:?}\nslow = {:?}\ndeclined = {:?}\n\
         [simulator.webhook_faults]\nseed = {seed}\nlate = {:?}\nduplicated = {:?}\n\
         reordered = {:?}\nforged = {:?}\nlost = {:?}\n",
        commands.unavailable,
        commands.unknown_before,
        commands.unknown_after,
        commands.late,
        commands.slow,
        commands.declined,
        announced.late,
        announced.duplicated,
        announced.reordered,
        announced.forged,
        announced.lost,
        journal = journal.display(),
    )
}

/// One process at its place.
pub struct Process {
    /// `payment-2`.
    pub name: String,
    /// Where it may be told to die.
    pub points: &'static [&'static str],
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    admin: Option<SocketAddr>,
    group: Option<Group>,
}

/// The proxies, by what is behind them.
pub struct Proxies {
    /// The edge.
    pub edge: Proxy,
    /// The product service.
    pub product: Proxy,
    /// The processes of the payment service.
    pub payment: Proxy,
    /// The simulator.
    pub simulator: Proxy,
    /// The database server.
    pub postgres: Proxy,
    /// The broker.
    pub rabbitmq: Proxy,
}

impl Proxies {
    fn all(&self) -> [(&'static str, &Proxy); 6] {
        [
            ("edge", &self.edge),
            ("product", &self.product),
            ("payment", &self.payment),
            ("simulator", &self.simulator),
            ("PostgreSQL", &self.postgres),
            ("RabbitMQ", &self.rabbitmq),
        ]
    }

    /// From now on they pass everything on.
    pub fn calm(&self) {
        for (_, proxy) in self.all() {
            proxy.calm();
        }
    }

    /// Cuts all connections through one of them, by number; which one it is.
    pub fn cut(&self, number: usize) -> &'static str {
        let all = self.all();
        let (name, proxy) = all[number % all.len()];
        proxy.cut_all();
        name
    }
}

/// All of it.
pub struct House {
    /// In the order in which they are started.
    pub processes: Vec<Process>,
    /// What is between them.
    pub proxies: Arc<Proxies>,
    folder: PathBuf,
}

/// Where the processes listen.
struct Places {
    product: SocketAddr,
    payment: [SocketAddr; 2],
    simulator: SocketAddr,
    spare: SocketAddr,
    edge: SocketAddr,
}

impl House {
    /// Prepares databases and configuration in `folder`, and starts everything.
    pub async fn open(
        servers: &Servers,
        programs: &Programs,
        folder: &Path,
        network: Network,
        seed: u64,
    ) -> anyhow::Result<House> {
        let places = Places {
            product: free_address()?,
            payment: [free_address()?, free_address()?],
            simulator: free_address()?,
            spare: free_address()?,
            edge: free_address()?,
        };
        let proxies = Arc::new(proxies(servers, &places, network, seed).await);
        for service in ["product", "payment"] {
            create_database(servers, service)?;
        }
        let mut house = House {
            processes: Vec::new(),
            proxies,
            folder: folder.to_owned(),
        };
        house.settle(programs, &places, network, seed)?;
        for process in &mut house.processes {
            if let Some(service) = ["product", "payment"]
                .iter()
                .find(|service| process.name == **service || process.name == format!("{service}-1"))
            {
                process.migrate(&superuser(servers, service), folder)?;
            }
        }
        for process in &mut house.processes {
            process.start(None)?;
        }
        for process in &house.processes {
            process.wait_until_ready().await?;
        }
        Ok(house)
    }

    /// Where clients connect, through a proxy.
    pub fn url(&self) -> String {
        format!("http://{}", self.proxies.edge.address())
    }

    /// Where the journals of the providers are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the network and the consumer have done to those who used them.
    pub fn counts(&self) -> BTreeMap<String, u32> {
        let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let mut counts = BTreeMap::new();
        for (name, proxy) in self.proxies.all() {
            let done = proxy.done();
            counts.insert(format!("connections to {name}"), count(done.connections));
            counts.insert(
                format!("connections to {name} that were cut"),
                count(done.cuts),
            );
            counts.insert(
                format!("connections to {name} doubled"),
                count(done.doubled),
            );
            counts.insert(
                format!("chunks to or from {name} held up"),
                count(done.delays),
            );
        }
        let printed = self.process("product").printed();
        for what in ["delivery doubled", "delivery held back"] {
            counts.insert(what.to_owned(), count(printed.matches(what).count() as u64));
        }
        counts.retain(|_, count| *count > 0);
        counts
    }

    /// The process of this name.
    pub fn process(&self, name: &str) -> &Process {
        let mut named = self.processes.iter();
        named
            .find(|process| process.name == name)
            .unwrap_or_else(|| panic!("no process is called {name}"))
    }

    /// The same, to do something to it.
    pub fn process_mut(&mut self, name: &str) -> &mut Process {
        let mut named = self.processes.iter_mut();
        named
            .find(|process| process.name == name)
            .unwrap_or_else(|| panic!("no process is called {name}"))
    }

    /// Writes the configurations and says which processes there are.
    fn settle(
        &mut self,
        programs: &Programs,
        places: &Places,
        network: Network,
        seed: u64,
    ) -> anyhow::Result<()> {
        let proxies = self.proxies.clone();
        let storage = |service: &str| {
            let (postgres, rabbitmq) = (&proxies.postgres, &proxies.rabbitmq);
            format!(
                "[service.postgres]\nurl = \"postgres://{service}@{}/{service}\"\n\
                 [bus]\nurl = \"amqp://{}/%2f\"\nretry_ladder_ms = [100, 1000]\nbackoff_max_ms = 1000\n",
                postgres.address(),
                rabbitmq.address()
            )
        };
        let mut destinations = String::from("[mesh.destinations]\n");
        let product = format!("{}{RELAY}", storage("product"));
        let unruly = format!("duplicate={0},reorder={0},seed={seed}", network.deliveries);
        let deliveries = ["--fault-deliveries".to_owned(), unruly];
        self.add(
            programs,
            "product",
            "product",
            places.product,
            &product,
            PRODUCT_POINTS,
        )?
        .arguments
        .extend(deliveries);
        let address = self.proxies.product.address();
        writeln!(destinations, "product = \"http://{address}\"")?;

        let mut provider = format!(
            "[simulator_remote]\nurl = \"http://{}\"\n[simulator]\nwebhook_secret = \"{SECRET}\"\n",
            if network.spare {
                places.simulator
            } else {
                self.proxies.simulator.address()
            }
        );
        let mut simulators = vec![("simulator", places.simulator)];
        if network.spare {
            simulators.push(("spare", places.spare));
            write!(
                provider,
                "[simulators.spare.remote]\nurl = \"http://{}\"\n\
                 [simulators.spare.simulator]\nwebhook_secret = \"{SECRET}\"\n\
                 [service.circuit]\nfailures_max = 3\nopen_ms = 2000\n[[service.routes]]\n\
                 providers = [{{ name = \"simulator\", weight = 1 }}, {{ name = \"spare\", weight = 0 }}]\n",
                places.spare
            )?;
        }
        for (name, place) in simulators {
            let journal = self.folder.join(format!("{name}.db"));
            let webhooks = format!("{}/v1/webhooks/{name}", self.url());
            let simulated = simulated(&journal, &webhooks, network.misfortune, seed);
            self.add(programs, name, "simulator", place, &simulated, &[])?;
        }
        let payment = format!(
            "{}{RELAY}{SAGA}{destinations}{provider}",
            storage("payment")
        );
        for (name, place) in ["payment-1", "payment-2"].iter().zip(places.payment) {
            self.add(programs, name, "payment", place, &payment, PAYMENT_POINTS)?;
        }
        // Services that no customer asks are not started: for whether they are well, payment answers.
        let address = self.proxies.payment.address();
        for name in services::NAMES.iter().filter(|name| **name != "product") {
            writeln!(destinations, "{name} = \"http://{address}\"")?;
        }
        self.add(programs, "edge", "edge", places.edge, &destinations, &[])?;
        Ok(())
    }

    fn add(
        &mut self,
        programs: &Programs,
        name: &str,
        program: &str,
        place: SocketAddr,
        configuration: &str,
        points: &'static [&'static str],
    ) -> anyhow::Result<&mut Process> {
        let admin = free_address()?;
        let file = self.folder.join(format!("{name}.toml"));
        let head = format!("listen = \"{place}\"\nadmin_listen = \"{admin}\"\n");
        std::fs::write(&file, format!("{head}{configuration}"))?;
        self.processes.push(Process {
            name: name.to_owned(),
            points,
            program: programs.folder.join(program),
            arguments: vec!["--config".to_owned(), file.display().to_string()],
            log: self.folder.join(format!("{name}.log")),
            admin: Some(admin),
            group: None,
        });
        Ok(self.processes.last_mut().expect("it was just added"))
    }
}

/// Shorter than in production, so that what a killed process left is taken up soon.
const RELAY: &str = "[service.relay]\nbackoff_max_ms = 1000\npublish_timeout_ms = 3000\n";
const SAGA: &str = "[service]\nworker_poll_ms = 100\n[service.saga]\nlease_ms = 3000\n\
    provider_timeout_ms = 1000\nretry_first_ms = 20\nretry_ms_max = 500\nlook_up_first_ms = 50\n\
    look_up_ms_max = 500\nsettle_ms = 4000\n";
/// How long a request is under way to the provider that is held up: longer than payment thinks it can be
/// (`settle_ms`), so that it has been sent again or given up when it arrives.
const LATE_EFFECT_MS: u32 = 6_000;
/// How many of the last lines of a log may be the one that says where a process has died.
const LAST_LINES: usize = 8;
/// What the simulator signs its webhooks with.
pub(super) const SECRET: &str = "a secret of this house";

async fn proxies(servers: &Servers, places: &Places, network: Network, seed: u64) -> Proxies {
    let quiet = Manners::default();
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let (postgres, rabbitmq) = (at(servers.postgres().port()), at(servers.rabbitmq().port()));
    Proxies {
        edge: Proxy::start(vec![places.edge], network.calls, seed).await,
        product: Proxy::start(vec![places.product], network.calls, seed + 1).await,
        payment: Proxy::start(places.payment.to_vec(), network.calls, seed + 2).await,
        simulator: Proxy::start(vec![places.simulator], network.provider, seed + 3).await,
        postgres: Proxy::start(vec![postgres], quiet, seed + 4).await,
        rabbitmq: Proxy::start(vec![rabbitmq], quiet, seed + 5).await,
    }
}

fn superuser(servers: &Servers, database: &str) -> String {
    servers.postgres().url_of("postgres", database)
}

/// A database and the role that its service runs under.
fn create_database(servers: &Servers, service: &str) -> anyhow::Result<()> {
    for statement in [
        format!("CREATE ROLE {service} LOGIN"),
        format!("CREATE DATABASE {service}"),
    ] {
        let psql = Command::new(servers.postgres().programs().join("psql"))
            .args(["-qX", "-v", "ON_ERROR_STOP=1", "-c", &statement])
            .arg(servers.postgres().url())
            .output()?;
        let said = String::from_utf8_lossy(&psql.stderr);
        ensure!(psql.status.success(), "{statement}: {}", said.trim());
    }
    Ok(())
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// At this fault point.
    Point(String),
    /// In another way, which nobody asked for.
    Other(String),
}

impl Process {
    /// Starts it, to die at `point` (`before_commit:3`) if there is one.
    pub fn start(&mut self, point: Option<&str>) -> anyhow::Result<()> {
        let output = File::options().create(true).append(true).open(&self.log)?;
        let mut command = program(&self.program, None);
        command.args(&self.arguments);
        if let Some(point) = point {
            command.args(["--fault-point", point]);
        }
        command.stdout(output.try_clone()?).stderr(output);
        self.group = Some(Group::start(&mut command)?);
        Ok(())
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut group) = self.group.take() {
            group.kill();
        }
    }

    /// Lets it hang until [`Process::resume`]: connections to it are there, and nothing comes.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.group.as_ref().context("it runs")?.pause()
    }

    /// Lets it go on.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.group.as_ref().context("it runs")?.resume()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> anyhow::Result<Option<End>> {
        let Some(group) = &mut self.group else {
            return Ok(None);
        };
        let Some(status) = group.ended()? else {
            return Ok(None);
        };
        self.group = None;
        let printed = self.printed();
        let last = printed.lines().last().unwrap_or_default();
        // Other threads may still print a few lines after it.
        let point = printed.lines().rev().take(LAST_LINES).find_map(|line| {
            line.strip_prefix("fault point ")?
                .strip_suffix(": aborting")
        });
        Ok(Some(match point {
            Some(point) if status.signal() == Some(6) => End::Point(point.to_owned()),
            _ => End::Other(format!("{} ended with {status}: {last}", self.name)),
        }))
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.group.as_ref().map(Group::id)
    }

    /// All that it and those before it printed.
    pub fn printed(&self) -> String {
        let printed = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&printed).into_owned()
    }

    /// What its `/readyz` says: the status and the report.
    pub async fn readiness(&self) -> anyhow::Result<(u16, serde_json::Value)> {
        let admin = self.admin.context("it has an admin endpoint")?;
        let answer = reqwest::get(format!("http://{admin}/readyz")).await?;
        Ok((answer.status().as_u16(), answer.json().await?))
    }

    /// Resident memory in kibibytes, while it runs.
    pub fn memory_kib(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()?)).ok()?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        resident.trim().trim_end_matches(" kB").parse().ok()
    }

    pub(super) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let ready = async {
            while !matches!(self.readiness().await, Ok((200, _))) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_mins(1), ready).await;
        waited.with_context(|| format!("{} is not ready: {}", self.name, self.printed()))
    }

    /// Brings the schema up under a role that may.
    fn migrate(&self, url: &str, folder: &Path) -> anyhow::Result<()> {
        let service = self.name.trim_end_matches("-1");
        let file = folder.join(format!("{service}.migrate.toml"));
        std::fs::write(&file, format!("[service.postgres]\nurl = \"{url}\"\n"))?;
        let migrated = Command::new(&self.program)
            .arg("--config")
            .arg(&file)
            .args(["migrate", "--role", service])
            .output()?;
        let said = String::from_utf8_lossy(&migrated.stderr);
        ensure!(migrated.status.success(), "{service} migrate: {said}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
