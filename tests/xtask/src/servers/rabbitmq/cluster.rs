//! Three nodes of RabbitMQ on one machine that form a cluster, so that a queue has a leader to be killed.

use std::{
    fs::{self, File, Permissions},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{Epmd, Node, Place, address};
use crate::{
    process::{collect, command},
    servers::{folder, user},
};

const NODES: usize = 3;
/// How long nodes may take to find each other, a queue to elect a leader, a member to come back.
const AGREEMENT_TIMEOUT: Duration = Duration::from_mins(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// A running cluster with the user `guest`, whom it lets in from this machine. Needs about 150 MB a node.
pub struct Cluster {
    nodes: Vec<Node>, // They end before their epmd and their folder do.
    _epmd: Epmd,
    folder: TempDir,
}

/// Who serves a quorum queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Members {
    leader: usize,
    online: usize,
}

impl Cluster {
    /// Starts the nodes at once, and waits until they are one broker.
    pub fn start() -> Result<Cluster> {
        let folder = folder(user("rabbitmq"))?;
        let epmd = Epmd::start()?;
        let place = |number| {
            let below = folder.path().join(format!("node{number}"));
            Place::new(folder.path(), below, &epmd)
        };
        let places = (1..=NODES).map(place).collect::<Result<Vec<_>>>()?;
        let discovery = discovery(&places);
        for place in &places {
            place.configure(&discovery)?;
        }
        share_cookie(folder.path())?;
        let mut nodes = places
            .into_iter()
            .map(Node::start)
            .collect::<Result<Vec<_>>>()?;
        for node in &mut nodes {
            node.wait()?;
        }
        let cluster = Cluster {
            nodes,
            _epmd: epmd,
            folder,
        };
        wait_for("nodes that know each other", || {
            cluster.running(0).is_ok_and(|running| running == NODES)
        })?;
        Ok(cluster)
    }

    /// Where its data is; gone with the value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients connect who bring the user and the password themselves: each node, with commas between.
    pub fn addresses(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(address).collect();
        addresses.join(",")
    }

    /// `rabbitmqctl` with these words, on one of the nodes; what it prints.
    pub fn ctl(&self, node: usize, words: &[&str]) -> Result<String> {
        self.nodes[node].ctl(words)
    }

    /// Ends a node at once, as a crash of its machine would.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node on the same data and ports.
    pub fn start_again(&mut self, node: usize) -> Result<()> {
        self.nodes[node].start_again()
    }

    /// The node that leads a quorum queue, once all of its members are there.
    pub fn leader(&self, queue: &str) -> Result<usize> {
        let mut found = None;
        wait_for("a leader and all members", || {
            let members = self.members(0, queue);
            found = members.ok().filter(|members| members.online == NODES);
            found.is_some()
        })?;
        Ok(found.context("a leader was found")?.leader)
    }

    /// Kills the node that leads a quorum queue, and waits until another one leads it. Which it was.
    pub fn kill_leader(&mut self, queue: &str) -> Result<usize> {
        let killed = self.leader(queue)?;
        self.kill(killed);
        let survivor = (killed + 1) % NODES;
        wait_for("another leader", || {
            let members = self.members(survivor, queue);
            members.is_ok_and(|members| members.leader != killed)
        })?;
        Ok(killed)
    }

    fn members(&self, asked: usize, queue: &str) -> Result<Members> {
        let listed = self.ctl(asked, &["list_queues", "name", "leader", "online"])?;
        let line = listed
            .lines()
            .find(|line| line.split('\t').next() == Some(queue));
        let line = line.with_context(|| format!("no queue {queue:?} in {listed:?}"))?;
        let mut columns = line.split('\t').skip(1);
        let leader = columns.next().unwrap_or_default();
        let leader = self
            .nodes
            .iter()
            .position(|node| node.place().name() == leader);
        Ok(Members {
            leader: leader.with_context(|| format!("no leader in {line:?}"))?,
            online: columns.next().map_or(0, |names| names.matches('@').count()),
        })
    }

    fn running(&self, asked: usize) -> Result<usize> {
        let running = self.ctl(asked, &["eval", "length(rabbit_nodes:all_running())."])?;
        Ok(running.trim().parse()?)
    }
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let started = Instant::now();
    while !holds() {
        if started.elapsed() > AGREEMENT_TIMEOUT {
            bail!("never within {AGREEMENT_TIMEOUT:?}: {what}");
        }
        thread::park_timeout(PROBE_INTERVAL);
    }
    Ok(())
}

/// Who belongs together, for nodes that start without data.
fn discovery(places: &[Place]) -> String {
    let mut lines = vec!["cluster_formation.peer_discovery_backend = classic_config\n".to_owned()];
    for (number, place) in (1..).zip(places) {
        let name = place.name();
        lines.push(format!(
            "cluster_formation.classic_config.nodes.{number} = {name}\n"
        ));
    }
    lines.concat()
}

/// Nodes that start at once would each make a cookie of their own.
fn share_cookie(folder: &Path) -> Result<()> {
    let cookie = folder.join(".erlang.cookie");
    let mut secret = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    fs::write(&cookie, format!("{:032x}", u128::from_ne_bytes(secret)))?;
    fs::set_permissions(&cookie, Permissions::from_mode(0o400))?;
    if let Some(user) = user("rabbitmq") {
        let owned = collect(command("chown").args(["-R", user]).arg(folder))?;
        ensure!(owned.status.success(), "cannot give a cluster to {user}");
    }
    Ok(())
}
