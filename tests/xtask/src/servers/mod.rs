//! Private throwaway servers: PostgreSQL and RabbitMQ on ports of their own, with data in a folder of their own,
//! gone with the value. The machine's own servers are never touched.
//!
//! Nothing is left behind: each server runs in a process group that is ended with the value, and is told by
//! the kernel when the thread that started it ends: start them from one that lives as long. As root they run under the users that Debian made for
//! them, since PostgreSQL refuses root.

mod ports;
pub mod postgres;
pub mod rabbitmq;

use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::{
    debian,
    process::{collect, command, reachable},
};

pub use ports::{free_address, free_port};
pub use postgres::Postgres;
pub use rabbitmq::{Cluster, RabbitMq};

/// The variable that tells tests where PostgreSQL is, as its superuser.
pub const POSTGRES: &str = "SHOP_POSTGRES";
/// The variable that tells tests where RabbitMQ is.
pub const RABBITMQ: &str = "SHOP_RABBITMQ";

/// How often is asked whether a server is ready or gone.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// How long a server may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Lines of a log that an error quotes.
const LOG_LINES_MAX: usize = 40;

/// Makes sure that both are installed; installs what is missing, where it may.
pub fn install() -> Result<()> {
    postgres::install()?;
    rabbitmq::install()
}

/// One of each.
pub struct Servers {
    postgres: Postgres,
    rabbitmq: RabbitMq,
}

impl Servers {
    /// Starts both, installed if need be, and waits until they answer.
    pub fn start() -> Result<Servers> {
        install()?;
        Ok(Servers {
            postgres: Postgres::start()?,
            rabbitmq: RabbitMq::start()?,
        })
    }

    /// The database server.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The database server, to be stopped and started.
    pub fn postgres_mut(&mut self) -> &mut Postgres {
        &mut self.postgres
    }

    /// The broker, to be stopped and started.
    pub fn rabbitmq_mut(&mut self) -> &mut RabbitMq {
        &mut self.rabbitmq
    }

    /// The broker.
    pub fn rabbitmq(&self) -> &RabbitMq {
        &self.rabbitmq
    }

    /// What tests have to be told.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        [
            (POSTGRES, self.postgres.url()),
            (RABBITMQ, self.rabbitmq.url()),
        ]
    }
}

/// `cargo xtask servers`: runs both until Ctrl-C, for tests that are run one by one.
pub fn run() -> Result<()> {
    let servers = Servers::start()?;
    for (name, value) in servers.variables() {
        println!("export {name}={value}");
    }
    println!("# Ctrl-C stops them.");
    wait_for_signal()
}

/// Blocks until somebody asks this process to end.
pub(crate) fn wait_for_signal() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

/// A folder that the user a server runs under can reach.
fn folder(user: Option<&str>) -> Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("commerce-mesh-")
        .tempdir()
        .context("cannot create a folder for a server")?;
    if let Some(user) = user {
        let owned = collect(command("chown").arg(user).arg(folder.path()))?;
        if !owned.status.success() {
            bail!("cannot give a folder to {user}: {}", owned.text.trim());
        }
    }
    Ok(folder)
}

/// The user to run a server under: Debian's own for root, else nobody else.
fn user(name: &'static str) -> Option<&'static str> {
    debian::root_user().then_some(name)
}

/// A program under `user`, told to end when this process does.
pub fn program(path: &Path, user: Option<&str>) -> Command {
    let mut command = command("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--").arg(reachable(path.as_os_str()));
    command
}

/// The last lines of a log; a broker that crashes dumps all that it had in memory.
pub fn end_of(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
}

/// A server's process and all that it starts.
pub struct Group {
    leader: Child,
}

impl Group {
    /// Starts a program as the leader of a group of its own.
    pub fn start(command: &mut Command) -> Result<Group> {
        let leader = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", crate::process::shown(command)))?;
        Ok(Group { leader })
    }

    /// Waits until `ready`; an end before that is an error that quotes the log.
    pub fn wait_until(
        &mut self,
        limit: Duration,
        log: &Path,
        ready: impl Fn() -> bool,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.leader.try_wait()? {
                bail!("a server ended with {status}:\n{}", end_of(log));
            }
            if ready() {
                return Ok(());
            }
            if started.elapsed() > limit {
                bail!("a server was not ready after {limit:?}:\n{}", end_of(log));
            }
            thread::park_timeout(PROBE_INTERVAL);
        }
    }

    /// The leader's process id.
    pub fn id(&self) -> u32 {
        self.leader.id()
    }

    /// How the leader ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.leader.try_wait()?)
    }

    fn signal(&self, name: &str) -> Result<()> {
        let ended = collect(command("kill").args([name, &self.leader.id().to_string()]))?;
        if !ended.status.success() {
            bail!("kill {name}: {}", ended.text.trim());
        }
        Ok(())
    }

    /// Asks the leader to end, as a cluster does.
    pub fn terminate(&self) -> Result<()> {
        self.signal("-TERM")
    }

    /// Keeps the leader from doing anything, connections and all, until [`Group::resume`].
    pub fn pause(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.signal("-CONT")
    }

    /// Waits for the leader's own end, which is an error if it does not come in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            if let Some(status) = self.leader.try_wait()? {
                return Ok(status);
            }
            thread::park_timeout(PROBE_INTERVAL);
        }
        bail!("a process did not end within {STOP_TIMEOUT:?}")
    }

    /// Asks with a signal, waits, and kills what is left of the group.
    pub fn stop(&mut self, name: &str) {
        let started = Instant::now();
        let asked = matches!(self.leader.try_wait(), Ok(None)) && self.signal(name).is_ok();
        while asked
            && started.elapsed() < STOP_TIMEOUT
            && matches!(self.leader.try_wait(), Ok(None))
        {
            thread::park_timeout(PROBE_INTERVAL);
        }
        self.kill();
    }

    /// Kills all of the group at once.
    pub fn kill(&mut self) {
        let group = format!("-{}", self.leader.id());
        // Nobody left to kill is what is wanted.
        let _ = collect(command("kill").args(["-KILL", "--", &group]));
        let _ = self.leader.wait();
    }
}
