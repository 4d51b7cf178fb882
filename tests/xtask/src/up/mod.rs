//! `cargo xtask up`: simulator, product, payment and edge as processes of their own, on a private PostgreSQL and
//! RabbitMQ.
//!
//! What a deployment does, in its order: roles and databases, migrations under the owner's role, the services
//! under roles that may only read and write rows, the edge last. Calls between them are mutual TLS, allowed by the rules
//! that a cluster has. The simulator is the payment provider: a party of its own, which posts its webhooks to the edge.
//! Everything goes with Ctrl-C: what is kept is kept in tests, not here. The logs stay in `target/up`.

mod identity;

use std::{
    fmt::Write as _,
    fs,
    io::Read as _,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use self::identity::Identity;
use crate::{
    check, checkout,
    process::{collect, command, output},
    servers::{Group, Servers, free_port, wait_for_signal},
    services,
    shop::get,
};

const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// How to run them.
#[derive(clap::Args)]
pub struct Options {
    /// Optimised binaries.
    #[arg(long)]
    release: bool,
    /// Processes of a service, such as `payment=2`: they share its events and its unfinished payments.
    #[arg(long, value_name = "SERVICE=COUNT")]
    replicas: Vec<Replicas>,
    /// Where REST clients connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

/// How many processes of which service.
#[derive(Clone, Debug, PartialEq)]
struct Replicas {
    service: String,
    count: usize,
}

impl FromStr for Replicas {
    type Err = String;

    fn from_str(text: &str) -> Result<Replicas, String> {
        let (service, count) = text.split_once('=').ok_or("SERVICE=COUNT is wanted")?;
        let count = count.parse().ok().filter(|count| (1..=16).contains(count));
        match count {
            Some(count) if services::NAMES.contains(&service) => Ok(Replicas {
                service: service.to_owned(),
                count,
            }),
            Some(_) => Err(format!(
                "the services are {}",
                services::NAMES.join(" and ")
            )),
            None => Err("COUNT goes from 1 to 16".to_owned()),
        }
    }
}

impl Options {
    /// Processes of a service.
    fn count(&self, service: &str) -> usize {
        let mut wanted = self.replicas.iter().rev(); // The last word counts.
        let wanted = wanted.find(|replicas| replicas.service == service);
        wanted.map_or(1, |replicas| replicas.count)
    }
}

/// Runs until Ctrl-C.
pub fn run(options: &Options) -> Result<()> {
    let folder = checkout::target()?.join("up");
    fs::create_dir_all(&folder)?;
    // All programs: what makes certificates, the provider, the services in the order in which they start, the edge.
    let programs = [&["meshctl", "simulator"], services::NAMES, &["edge"]].concat();
    let binaries = checkout::build_all(&programs, options.release)?;
    println!("starting PostgreSQL and RabbitMQ");
    let servers = Servers::start()?;
    let house = House::start(&servers, &binaries, &folder, options)?;
    println!("{}", house.screen(&servers));
    wait_for_signal()?;
    println!("stopping");
    drop(house); // The callers go first, then what they call.
    drop(servers);
    Ok(())
}

/// The running processes, outermost first.
struct House {
    processes: Vec<Process>,
    listen: SocketAddr,
    folder: PathBuf,
    identity: Identity,
}

struct Process {
    name: String,
    admin_port: u16,
    group: Group,
}

impl Drop for House {
    fn drop(&mut self) {
        for process in &mut self.processes {
            process.group.stop("-TERM");
        }
    }
}

impl House {
    fn start(
        servers: &Servers,
        binaries: &[PathBuf],
        folder: &Path,
        options: &Options,
    ) -> Result<House> {
        let [meshctl, simulator, of_services @ .., edge] = binaries else {
            bail!("the programs were built")
        };
        let mut house = House {
            processes: Vec::new(),
            listen: options.listen,
            folder: folder.to_owned(),
            identity: Identity::issue(meshctl, folder.join("certificates"))?,
        };
        let provider = Provider::new(options.listen, folder)?;
        house.launch(simulator, "simulator", provider.port, &provider.own())?;
        let mut destinations = String::from("[mesh.destinations]\n");
        for (service, binary) in services::NAMES.iter().copied().zip(of_services) {
            create_database(servers, service)?;
            migrate(servers, service, binary, folder)?;
            let provider = match service {
                "payment" => provider.seen_by_payment(),
                _ => String::new(),
            };
            let storage = storage(servers, service, service);
            let own = house.identity.of_service(service);
            let more = format!("{storage}\n{provider}\n{destinations}\n{own}");
            let mut ports = Vec::new();
            for number in 1..=options.count(service) {
                let port = free_port()?;
                house.launch(binary, &format!("{service}-{number}"), port, &more)?;
                ports.push(port);
            }
            let destination = identity::destination(service, &ports);
            writeln!(destinations, "{service} = \"{destination}\"")?;
        }
        let own = house.identity.of_caller("edge");
        let more = format!("{destinations}\n{own}");
        house.launch(edge, "edge", options.listen.port(), &more)?;
        say_where(servers, &provider)?;
        Ok(house)
    }

    /// Starts a process and waits until it says that it is ready.
    fn launch(&mut self, binary: &Path, name: &str, port: u16, more: &str) -> Result<()> {
        let admin_port = free_port()?;
        let config = self.folder.join(format!("{name}.toml"));
        let address = if name == "edge" {
            self.listen
        } else {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        };
        let head = format!("listen = \"{address}\"\nadmin_listen = \"127.0.0.1:{admin_port}\"\n");
        fs::write(&config, format!("{head}\n{more}"))?;
        let log = self.folder.join(format!("{name}.log"));
        let file = fs::File::create(&log)?;
        let mut program = crate::servers::program(binary, None);
        program
            .arg("--config")
            .arg(&config)
            .stdout(file.try_clone()?)
            .stderr(file);
        let mut group = Group::start(&mut program)?;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port));
        let ready = || get(admin, "/readyz").is_ok_and(|(status, _)| status == 200);
        if let Err(error) = group.wait_until(READY_TIMEOUT, &log, ready) {
            group.kill();
            return Err(error).with_context(|| name.to_owned());
        }
        println!("{name} is ready");
        let process = Process {
            name: name.to_owned(),
            admin_port,
            group,
        };
        self.processes.insert(0, process);
        Ok(())
    }

    fn screen(&self, servers: &Servers) -> String {
        let mut screen = format!(
            "\nThe shop is open, in processes of their own.\n\n  REST           http://{}\n  Documentation  http://{}/docs\n",
            self.listen, self.listen
        );
        let mut line = |name: &str, what: &str| {
            writeln!(screen, "  {name:<14} {what}").expect("a String takes everything");
        };
        for (name, value) in servers.variables() {
            line(name, &value);
        }
        for process in &self.processes {
            let admin = format!(
                "http://127.0.0.1:{}/readyz and /metrics",
                process.admin_port
            );
            line(&process.name, &admin);
        }
        line("Logs", &self.folder.display().to_string());
        line(
            "Certificates",
            &self.identity.folder().display().to_string(),
        );
        line("Invariants", "cargo xtask check");
        screen.push_str("\nCtrl-C stops everything and forgets it.\n");
        screen
    }
}

/// Leaves behind where everything is, for `cargo xtask check`.
fn say_where(servers: &Servers, provider: &Provider) -> Result<()> {
    let of = |database| servers.postgres().url_of("postgres", database);
    let places = serde_json::json!({
        "product": of("product"),
        "payment": of("payment"),
        "rabbitmq": servers.rabbitmq().address(),
        "simulator": provider.journal.parent(),
    });
    let file = checkout::target()?.join(check::PLACES);
    fs::write(file, format!("{places:#}\n"))?;
    Ok(())
}

/// A database that its owner may shape and its service may only fill.
pub fn create_database(servers: &Servers, service: &str) -> Result<()> {
    let statements = [
        format!("CREATE ROLE {service}_owner LOGIN"),
        format!("CREATE ROLE {service} LOGIN"),
        format!("CREATE DATABASE {service} OWNER {service}_owner"),
    ];
    for statement in statements {
        let mut psql = command(servers.postgres().programs().join("psql"));
        psql.args(["-qX", "-v", "ON_ERROR_STOP=1", "-c", &statement]);
        let ended = collect(psql.arg(servers.postgres().url()))?;
        if !ended.status.success() {
            bail!("{statement}: {}", ended.text.trim());
        }
    }
    Ok(())
}

/// Brings a service's schema up, under its owner's role.
pub fn migrate(servers: &Servers, service: &str, binary: &Path, folder: &Path) -> Result<()> {
    let config = folder.join(format!("{service}.migrate.toml"));
    let owner = format!("{service}_owner");
    fs::write(&config, storage(servers, service, &owner))?;
    let mut migrate = command(binary);
    migrate.arg("--config").arg(&config);
    output(migrate.args(["migrate", "--role", service]))?;
    Ok(())
}

/// Where a service keeps its data, in its configuration.
pub fn storage(servers: &Servers, service: &str, role: &str) -> String {
    let url = servers.postgres().url_of(role, service);
    let bus = servers.rabbitmq().address();
    format!("[service.postgres]\nurl = \"{url}\"\n\n[bus]\nurl = \"{bus}\"\n")
}

/// What the simulator and payment have to agree on.
struct Provider {
    port: u16,
    key: String,
    webhook_secret: String,
    edge: SocketAddr,
    journal: PathBuf,
}

impl Provider {
    fn new(edge: SocketAddr, folder: &Path) -> Result<Provider> {
        let journal = folder.join("simulator");
        if journal.is_dir() {
            fs::remove_dir_all(&journal)?; // The payments of an earlier run are forgotten too.
        }
        Ok(Provider {
            journal: journal.join("simulator.db"),
            port: free_port()?,
            key: secret()?,
            webhook_secret: secret()?,
            edge,
        })
    }

    /// The simulator's own configuration.
    fn own(&self) -> String {
        format!(
            "key = \"{}\"\nwebhook_url = \"http://{}/v1/webhooks/simulator\"\n\n[journal]\npath = \"{}\"\n\n{}",
            self.key,
            self.edge,
            self.journal.display(),
            self.simulator()
        )
    }

    /// What payment is told of it.
    fn seen_by_payment(&self) -> String {
        format!(
            "[simulator_remote]\nurl = \"http://127.0.0.1:{}\"\nkey = \"{}\"\n\n{}",
            self.port,
            self.key,
            self.simulator()
        )
    }

    fn simulator(&self) -> String {
        format!(
            "[simulator]\nwebhook_secret = \"{}\"\n",
            self.webhook_secret
        )
    }
}

/// A secret of this run.
fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u128::from_be_bytes(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_about_replicas_counts() {
        let options = Options {
            release: false,
            replicas: vec!["payment=2".parse().unwrap(), "payment=3".parse().unwrap()],
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
        };
        assert_eq!((options.count("payment"), options.count("product")), (3, 1));
    }

    #[test]
    fn replicas_are_read() {
        let replicas: Replicas = "payment=2".parse().unwrap();
        assert_eq!((replicas.service.as_str(), replicas.count), ("payment", 2));
        for wrong in ["payment", "payment=", "payment=0", "edge=2", "payment=17"] {
            assert!(wrong.parse::<Replicas>().is_err(), "{wrong}");
        }
    }
}
