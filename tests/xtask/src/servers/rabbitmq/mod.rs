//! A private RabbitMQ: one node, or a cluster, with names, ports and folders of its own, known to an epmd of its own.

mod cluster;
mod node;

use std::path::{Path, PathBuf};

use anyhow::Result;
use tempfile::TempDir;

use super::{folder, user};
use crate::debian;

pub use cluster::Cluster;
use node::{Epmd, Node, Place};

/// Debian's scripts without the wrapper that asks who runs them.
const SCRIPTS: &str = "/usr/lib/rabbitmq/bin";

/// A running RabbitMQ with the user `guest`, whom it lets in from this machine.
pub struct RabbitMq {
    node: Node, // It ends before its epmd and its folder do.
    _epmd: Epmd,
    folder: TempDir,
}

impl RabbitMq {
    /// Starts a node.
    pub fn start() -> Result<RabbitMq> {
        let folder = folder(user("rabbitmq"))?;
        let epmd = Epmd::start()?;
        let place = Place::new(folder.path(), folder.path().to_owned(), &epmd)?;
        place.configure("")?;
        let mut node = Node::start(place)?;
        node.wait()?;
        Ok(RabbitMq {
            node,
            _epmd: epmd,
            folder,
        })
    }

    /// Where its data is; gone with the value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!(
            "amqp://guest:guest@127.0.0.1:{}/%2f",
            self.node.place().port()
        )
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.node.place().port()
    }

    /// Where the broker is, for those who bring the user and the password themselves.
    pub fn address(&self) -> String {
        address(&self.node)
    }

    /// Ends the node at once, as a crash of its machine's process would.
    pub fn kill(&mut self) {
        self.node.kill();
    }

    /// Stops the node in good order.
    pub fn stop(&mut self) {
        self.node.stop();
    }

    /// Starts the node on the same data and ports.
    pub fn start_again(&mut self) -> Result<()> {
        self.node.start_again()
    }

    /// `rabbitmqctl` with these words, on this node; what it prints.
    pub fn ctl(&self, words: &[&str]) -> Result<String> {
        self.node.ctl(words)
    }
}

/// Where clients connect who bring the user and the password themselves.
fn address(node: &Node) -> String {
    format!("amqp://127.0.0.1:{}/%2f", node.place().port())
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
