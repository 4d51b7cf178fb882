//! The processes that are rolled, and HAProxy in front of the edges.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use xtask::servers::{Group, Servers, free_address, program};
use xtask::shop::get;
use xtask::{debian, up};

use super::Plan;

/// How long a process may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// What the simulator signs its webhooks with.
const SECRET: &str = "a secret of this house";
/// How often HAProxy asks an edge whether it is ready; one refusal takes it out, as an endpoint is taken out of a Service.
const ASKED_EVERY_MS: u32 = 100;

/// Makes sure of HAProxy.
pub fn install() -> anyhow::Result<()> {
    debian::ensure("haproxy", "haproxy")
}

/// One process at its place.
pub struct Process {
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
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut group = self.group.take().context("it runs")?;
        group.terminate()?;
        let status = group.wait().with_context(|| self.name.clone())?;
        ensure!(
            status.success(),
            "{} ended with {status} after SIGTERM: {}",
            self.name,
            self.log.display()
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
    front: Group,
    url: String,
}

impl Drop for House {
    fn drop(&mut self) {
        self.front.kill();
    }
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
            front: balance(front, edge, folder)?,
            url: format!("http://{front}"),
        })
    }

    /// Where customers connect.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The processes of a service.
    pub fn processes_of(&mut self, service: &str) -> impl Iterator<Item = &mut Process> {
        let prefix = format!("{service}-");
        let all = self.processes.iter_mut();
        all.filter(move |process| process.name.starts_with(&prefix))
    }
}

/// Two replicas as one destination of the mesh.
fn both([first, second]: [SocketAddr; 2]) -> String {
    format!("http://{first},http://{second}")
}

/// HAProxy before the edges, ready when both count as up.
fn balance(front: SocketAddr, edges: [SocketAddr; 2], folder: &Path) -> anyhow::Result<Group> {
    let (config, log) = (folder.join("haproxy.cfg"), folder.join("haproxy.log"));
    fs::write(&config, configuration(front, edges))?;
    let output = File::create(&log)?;
    let mut haproxy = program(Path::new("haproxy"), None);
    haproxy.arg("-db").arg("-f").arg(&config);
    let mut group = Group::start(haproxy.stdout(output.try_clone()?).stderr(output))?;
    let ready = || get(front, "/healthz").is_ok_and(|(status, _)| status == 200);
    group.wait_until(READY_TIMEOUT, &log, ready)?;
    Ok(group)
}

/// It repeats no request (`retries 0`) and leaves the choice of the connection at its default.
fn configuration(front: SocketAddr, [first, second]: [SocketAddr; 2]) -> String {
    format!(
        "global\n    maxconn 4096\n\
         defaults\n    mode http\n    retries 0\n    timeout connect 5s\n    timeout client 1m\n    timeout server 1m\n\
         frontend customers\n    bind {front}\n    default_backend edges\n\
         backend edges\n    option httpchk GET /healthz\n    http-check expect status 200\n    \
         default-server check inter {ASKED_EVERY_MS} fall 1 rise 1\n    \
         server edge-1 {first}\n    server edge-2 {second}\n"
    )
}
