//! A private RabbitMQ: one node with a name, ports and folders of its own, known to an epmd of its own.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{Group, folder, free_port, program, user};
use crate::{debian, process::collect};

/// Debian's scripts without the wrapper that asks who runs them.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";
const READY_TIMEOUT: Duration = Duration::from_mins(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running RabbitMQ with the user `guest`, whom it lets in from this machine.
pub struct RabbitMq {
    folder: TempDir,
    ports: Ports,
    epmd: Group,
    group: Group,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
}

impl RabbitMq {
    /// Starts a node.
    pub fn start() -> Result<RabbitMq> {
        let folder = folder(user("rabbitmq"))?;
        let ports = Ports {
            amqp: free_port()?,
            distribution: free_port()?,
            epmd: free_port()?,
        };
        fs::write(folder.path().join("rabbitmq.conf"), configuration(ports))?;
        fs::write(folder.path().join("enabled_plugins"), "[].\n")?;
        let mut epmd = program(Path::new("/usr/bin/epmd"), user("rabbitmq"));
        // In the foreground, so that it is ours to end.
        epmd.args(["-port", &ports.epmd.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut epmd = Group::start(&mut epmd)?;
        match run(&folder, ports) {
            Ok(group) => Ok(RabbitMq {
                folder,
                ports,
                epmd,
                group,
            }),
            Err(error) => {
                epmd.kill();
                Err(error)
            }
        }
    }

    /// Where its data is; gone with the value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.ports.amqp
    }

    /// Ends the node at once, as a crash of its machine's process would.
    pub fn kill(&mut self) {
        self.group.kill();
    }

    /// Stops the node in good order.
    pub fn stop(&mut self) {
        self.group.stop("-TERM");
    }

    /// Starts the node on the same data and ports.
    pub fn start_again(&mut self) -> Result<()> {
        self.group = run(&self.folder, self.ports)?;
        Ok(())
    }

    /// Where the broker is, for those who bring the user and the password themselves.
    pub fn address(&self) -> String {
        format!("amqp://127.0.0.1:{}/%2f", self.ports.amqp)
    }

    /// `rabbitmqctl` with these words, on this node; what it prints.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        let mut ctl = environment(
            program(&script("rabbitmqctl"), user("rabbitmq")),
            self.folder.path(),
            self.ports,
        );
        let ended = collect(ctl.arg("--quiet").args(words))?;
        if !ended.status.success() {
            bail!("rabbitmqctl {}: {}", words.join(" "), ended.text.trim());
        }
        Ok(ended.text)
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.group.kill(); // Its data goes with it: nothing to be put in order.
        self.epmd.kill();
    }
}

/// Makes sure that it is installed.
pub fn install() -> Result<()> {
    if script("rabbitmq-server").is_file() {
        return Ok(());
    }
    debian::ensure("rabbitmq-server", "rabbitmq-server")
}

fn script(name: &str) -> PathBuf {
    Path::new(SCRIPTS).join(name)
}

fn configuration(ports: Ports) -> String {
    format!(
        "listeners.tcp.local = 127.0.0.1:{}\nvm_memory_high_watermark.absolute = 1GB\n\
         disk_free_limit.absolute = 100MB\nlog.console = true\nlog.console.level = warning\n\
         log.file = false\n",
        ports.amqp
    )
}

fn environment(mut command: Command, folder: &Path, ports: Ports) -> Command {
    command
        .env("HOME", folder) // The cookie by which the node knows its tools.
        .env("RABBITMQ_NODENAME", format!("mesh{}@localhost", ports.amqp))
        .env("RABBITMQ_NODE_PORT", ports.amqp.to_string())
        .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
        .env("ERL_EPMD_PORT", ports.epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}")
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_PID_FILE", folder.join("pid"));
    command
}

fn run(folder: &TempDir, ports: Ports) -> Result<Group> {
    let log = folder.path().join("log.txt");
    let output = File::options().create(true).append(true).open(&log)?;
    let mut server = environment(
        program(&script("rabbitmq-server"), user("rabbitmq")),
        folder.path(),
        ports,
    );
    server
        .stdout(output.try_clone()?)
        .stderr(Stdio::from(output));
    let mut group = Group::start(&mut server)?;
    if let Err(error) = group.wait_until(READY_TIMEOUT, &log, || answers(ports.amqp)) {
        group.kill();
        return Err(error).context("RabbitMQ");
    }
    Ok(group)
}

/// Whether somebody there begins to speak AMQP 0-9-1: a method frame (type 1) on channel 0.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let mut first = [0; 3];
    stream.set_read_timeout(Some(PROBE_TIMEOUT)).is_ok()
        && stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
        && stream.read_exact(&mut first).is_ok()
        && first == [1, 0, 0]
}
