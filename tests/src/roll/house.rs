//! The processes that are rolled, and HAProxy in front of the edges.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use xtask::servers::{Group, Servers, end_of, free_address, program};
use xtask::shop::get;
use xtask::{debian, up};

use super::Plan;

/// How long a process may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// What the simulator signs its webhooks with.
const SECRET: &str = "a secret of this house";
/// How often HAProxy asks an edge whether it is ready; three refusals take it out, well within the wait before its drain.
const ASKED_EVERY_MS: u32 = 100;

/// Makes sure of HAProxy.
pub fn install() -> anyhow::Result<()> {
    debian::ensure("haproxy", "haproxy")
}

/// One process at its place.
struct Process {
    name: String,
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    admin: SocketAddr,
    group: Option<Group>,
}

impl Process {
    fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = program(&self.program, None);
        command.arg("--config").arg(&self.config);
        let group = Group::start(command.stdout(log.try_clone()?).stderr(log))?;
        let admin = self.admin;
        let ready = || get(admin, "/readyz").is_ok_and(|(status, _)| status == 200);
        let group = self.group.insert(group);
        group
            .wait_until(READY_TIMEOUT, &self.log, ready)
            .with_context(|| self.name.clone())
    }

    /// Asks it to stop as the kubelet does, waits until it has, and starts it again.
    fn restart(&mut self) -> anyhow::Result<()> {
        let mut group = self.group.take().context("it runs")?;
        group.terminate()?;
        let status = group.wait().with_context(|| self.name.clone())?;
        ensure!(
            status.success(),
            "{} ended with {status} after SIGTERM:\n{}",
            self.name,
            end_of(&self.log)
        );
        self.start()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut group) = self.group.take() {
            group.kill();
        }
    }
}

/// All of them.
pub struct House {
    processes: Vec<Process>,
    front: Front,
    url: String,
}

impl House {
    /// Prepares databases and configuration in `folder`, and starts everything.
    pub fn open(servers: &Servers, plan: &Plan, folder: &Path) -> anyhow::Result<House> {
        let pair = || Ok::<_, anyhow::Error>([free_address()?, free_address()?]);
        let (product, payment, edge) = (pair()?, pair()?, pair()?);
        let (simulator, front) = (free_address()?, free_address()?);
        let mut processes = Vec::new();
        let mut add = |name: &str, program: &str, listen: SocketAddr, more: &str| {
            let admin = free_address()?;
            let config = folder.join(format!("{name}.toml"));
            let head = format!("listen = \"{listen}\"\nadmin_listen = \"{admin}\"\n");
            fs::write(&config, format!("{head}{more}"))?;
            processes.push(Process {
                name: name.to_owned(),
                program: plan.programs.folder.join(program),
                config,
                log: folder.join(format!("{name}.log")),
                admin,
                group: None,
            });
            Ok::<_, anyhow::Error>(admin)
        };
        let wait_ms = plan.drain_wait.as_millis();
        let service = |name: &str| {
            let storage = up::storage(servers, name, name);
            format!("{storage}[mesh.server]\ndrain_wait_ms = {wait_ms}\n")
        };
        let simulated = format!(
            "webhook_url = \"http://{front}/v1/webhooks/simulator\"\n[journal]\npath = \"{}\"\n\
             [simulator]\nwebhook_secret = \"{SECRET}\"\n",
            folder.join("simulator.db").display()
        );
        add("simulator", "simulator", simulator, &simulated)?;
        for (number, listen) in (1..).zip(product) {
            let name = format!("product-{number}");
            add(&name, "product", listen, &service("product"))?;
        }
        let mut destinations = format!("[mesh.destinations]\nproduct = \"{}\"\n", both(product));
        let more = format!(
            "{}{destinations}[simulator_remote]\nurl = \"http://{simulator}\"\n\
             [simulator]\nwebhook_secret = \"{SECRET}\"\n",
            service("payment")
        );
        for (number, listen) in (1..).zip(payment) {
            add(&format!("payment-{number}"), "payment", listen, &more)?;
        }
        writeln!(destinations, "payment = \"{}\"", both(payment))?;
        let more = format!("[limits]\ndrain_wait_ms = {wait_ms}\n{destinations}");
        for (number, listen) in (1..).zip(edge) {
            add(&format!("edge-{number}"), "edge", listen, &more)?;
        }
        for service in ["product", "payment"] {
            up::create_database(servers, service)?;
            up::migrate(
                servers,
                service,
                &plan.programs.folder.join(service),
                folder,
            )?;
        }
        for process in &mut processes {
            process.start()?;
        }
        Ok(House {
            processes,
            front: Front::start(front, edge, folder)?,
            url: format!("http://{front}"),
        })
    }

    /// Where customers connect.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Restarts the processes of a service one after the other, as a Deployment does: the next one only when the last is
    /// ready in the eyes of whoever sends it requests. How long each was away.
    pub fn roll(&mut self, service: &str) -> anyhow::Result<Vec<Duration>> {
        let prefix = format!("{service}-");
        let mut away = Vec::new();
        for process in &mut self.processes {
            if process.name.starts_with(&prefix) {
                let stopped = Instant::now();
                process.restart()?;
                self.front.wait_until_all_up()?;
                away.push(stopped.elapsed());
            }
        }
        Ok(away)
    }
}

/// Two replicas as one destination of the mesh.
fn both([first, second]: [SocketAddr; 2]) -> String {
    format!("http://{first},http://{second}")
}

/// HAProxy before the edges.
struct Front {
    group: Group,
    log: PathBuf,
    /// Where it shows what it knows of them.
    statistics: SocketAddr,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.group.kill();
    }
}

impl Front {
    fn start(listen: SocketAddr, edges: [SocketAddr; 2], folder: &Path) -> anyhow::Result<Front> {
        let (config, log) = (folder.join("haproxy.cfg"), folder.join("haproxy.log"));
        let statistics = free_address()?;
        fs::write(&config, configuration(listen, statistics, edges))?;
        let output = File::create(&log)?;
        let mut haproxy = program(Path::new("haproxy"), None);
        haproxy.arg("-db").arg("-f").arg(&config);
        let group = Group::start(haproxy.stdout(output.try_clone()?).stderr(output))?;
        let mut front = Front {
            group,
            log,
            statistics,
        };
        front.wait_until_all_up()?;
        Ok(front)
    }

    fn wait_until_all_up(&mut self) -> anyhow::Result<()> {
        let statistics = self.statistics;
        let ready = || get(statistics, "/;csv").is_ok_and(|(_, table)| all_up(&table));
        self.group
            .wait_until(READY_TIMEOUT, &self.log, ready)
            .context("HAProxy does not see every edge")
    }
}

/// Whether HAProxy's table of statistics shows both edges as up, and as asked at least once.
fn all_up(table: &str) -> bool {
    let is_up = |edge: &str| {
        let row = table.lines().find_map(|line| line.strip_prefix(edge));
        row.is_some_and(|row| row.contains(",UP,") && row.contains(",L7OK,"))
    };
    is_up("edges,edge-1") && is_up("edges,edge-2")
}

/// It repeats no request (`retries 0`) and leaves the choice of the connection at its default.
fn configuration(
    listen: SocketAddr,
    statistics: SocketAddr,
    [first, second]: [SocketAddr; 2],
) -> String {
    format!(
        "global\n    maxconn 4096\n\
         defaults\n    mode http\n    retries 0\n    timeout check 2s\n    timeout connect 5s\n    \
         timeout client 1m\n    timeout server 1m\n\
         frontend statistics\n    bind {statistics}\n    stats enable\n    stats uri /\n\
         frontend customers\n    bind {listen}\n    default_backend edges\n\
         backend edges\n    option httpchk\n    \
         http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host {listen}\n    \
         http-check expect status 200\n    \
         default-server check inter {ASKED_EVERY_MS} fall 3 rise 1\n    \
         server edge-1 {first}\n    server edge-2 {second}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_up_when_it_was_asked_and_said_so() {
        let table = |state: &str, check: &str| {
            format!(
                "# pxname,svname,status,check_status\nedges,edge-1,UP,1,L7OK,200\nedges,edge-2,{state},1,{check},200\n"
            )
        };
        assert!(all_up(&table("UP", "L7OK")));
        assert!(!all_up(&table("DOWN", "L7STS")));
        assert!(!all_up(&table("UP", "INI")));
        assert!(!all_up(""));
    }
}
