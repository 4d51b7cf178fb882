//! One node of RabbitMQ as a process group, and the epmd by which nodes and tools find each other.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::script;
use crate::{
    process::collect,
    servers::{Group, free_port, program, user},
};

/// Three nodes that start at once on a busy machine take their time.
const READY_TIMEOUT: Duration = Duration::from_mins(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who knows where the nodes of a broker are. In the foreground, so that it is ours to end.
pub(super) struct Epmd {
    port: u16,
    group: Group,
}

impl Epmd {
    pub(super) fn start() -> Result<Epmd> {
        let port = free_port()?;
        let mut epmd = program(Path::new("/usr/bin/epmd"), user("rabbitmq"));
        epmd.args(["-port", &port.to_string(), "-address", "127.0.0.1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let group = Group::start(&mut epmd)?;
        Ok(Epmd { port, group })
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// What stays the same when a node is started again.
pub(super) struct Place {
    /// Where the cookie is by which nodes and tools know each other.
    home: PathBuf,
    /// Where the node's own data is.
    folder: PathBuf,
    amqp: u16,
    distribution: u16,
    epmd: u16,
}

impl Place {
    /// A place below `home`, with ports that are free now.
    pub(super) fn new(home: &Path, folder: PathBuf, epmd: &Epmd) -> Result<Place> {
        Ok(Place {
            home: home.to_owned(),
            folder,
            amqp: free_port()?,
            distribution: free_port()?,
            epmd: epmd.port,
        })
    }

    /// What the node is called among nodes.
    pub(super) fn name(&self) -> String {
        format!("mesh{}@localhost", self.amqp)
    }

    pub(super) fn port(&self) -> u16 {
        self.amqp
    }

    /// Writes its configuration; `more` of it comes last.
    pub(super) fn configure(&self, more: &str) -> Result<()> {
        fs::create_dir_all(&self.folder)?;
        let text = format!(
            "listeners.tcp.local = 127.0.0.1:{}\nvm_memory_high_watermark.absolute = 1GB\n\
             disk_free_limit.absolute = 100MB\nlog.console = true\nlog.console.level = warning\n\
             log.file = false\n{more}",
            self.amqp
        );
        fs::write(self.folder.join("rabbitmq.conf"), text)?;
        fs::write(self.folder.join("enabled_plugins"), "[].\n")?;
        Ok(())
    }

    /// One of RabbitMQ's programs, for this node.
    fn script(&self, name: &str) -> Command {
        let mut command = program(&script(name), user("rabbitmq"));
        let below = |name: &str| self.folder.join(name);
        command
            .env("HOME", &self.home)
            .env("RABBITMQ_NODENAME", self.name())
            .env("RABBITMQ_NODE_PORT", self.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.distribution.to_string())
            .env("ERL_EPMD_PORT", self.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // Idle schedulers sleep: several nodes share the processors with what is tested.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
            )
            .env("RABBITMQ_CONFIG_FILE", below("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", below("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", below("mnesia"))
            .env("RABBITMQ_LOG_BASE", below("log"))
            .env("RABBITMQ_PID_FILE", below("pid"));
        command
    }
}

/// A node that runs, or did until it was killed.
pub(super) struct Node {
    place: Place,
    group: Group,
}

impl Node {
    /// Starts it and does not wait.
    pub(super) fn start(place: Place) -> Result<Node> {
        let group = run(&place)?;
        Ok(Node { place, group })
    }

    /// Waits until it lets clients in; ends it when it does not.
    pub(super) fn wait(&mut self) -> Result<()> {
        let (log, port) = (log(&self.place), self.place.amqp);
        let ready = self.group.wait_until(READY_TIMEOUT, &log, || answers(port));
        if ready.is_err() {
            self.group.kill();
        }
        ready.context("RabbitMQ")
    }

    /// Starts it on the same data and ports.
    pub(super) fn start_again(&mut self) -> Result<()> {
        self.group = run(&self.place)?;
        self.wait()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn kill(&mut self) {
        self.group.kill();
    }

    pub(super) fn stop(&mut self) {
        self.group.stop("-TERM");
    }

    /// `rabbitmqctl` with these words, on this node; what it prints.
    pub(super) fn ctl(&self, words: &[&str]) -> Result<String> {
        let mut ctl = self.place.script("rabbitmqctl");
        let ended = collect(ctl.arg("--quiet").args(words))?;
        if !ended.status.success() {
            bail!("rabbitmqctl {}: {}", words.join(" "), ended.text.trim());
        }
        Ok(ended.text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.group.kill(); // Its data goes with it: nothing to be put in order.
    }
}

fn log(place: &Place) -> PathBuf {
    place.folder.join("log.txt")
}

fn run(place: &Place) -> Result<Group> {
    let output = File::options().create(true).append(true).open(log(place))?;
    let mut server = place.script("rabbitmq-server");
    server
        .stdout(output.try_clone()?)
        .stderr(Stdio::from(output));
    Group::start(&mut server)
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
