//! A disk whose power can be cut: what a test needs to see whether acknowledged means on disk.
//!
//! `kill -9` does not test durability: the kernel keeps what was written and writes it out later, even with
//! SQLite's `synchronous=OFF`. So this is a file system of our own, mounted through `/dev/fuse`, that keeps
//! apart what was written and what was synced, and forgets the difference when the power is cut:
//!
//! - a file's bytes last once `fsync` or `fdatasync` on it has returned;
//! - a directory's entries (creation, rename, removal) last once `fsync` on the directory has returned.
//!
//! That is what POSIX promises and less than ext4 gives (ext4 also saves the entry of a new file that is
//! synced), so what survives here survives there. [`Loss::Everything`] is the strict reading; a real disk
//! may have written any part of the rest on its own account, which [`Loss::Some`] draws from a seed, block
//! by block.
//!
//! The file system is served by a process of its own (`power-cut-disk`). Served from inside the test, a
//! test that dies would wait for its own answers while the kernel closes its files, for ever.
//!
//! Deliberately absent: permissions, links, extended attributes, bytes on a medium (all is in memory), and
//! reordering of directory changes. Locks and shared mappings are the kernel's own and need nothing here.

mod fuse;
mod volume;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub use fuse::serve;
pub use volume::{Loss, Volume};

use anyhow::{Context, bail};

/// A mounted disk. Dropping it unmounts it and forgets everything.
pub struct Disk {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    mount_point: tempfile::TempDir,
}

/// Why this machine cannot mount one; printed with SKIPPED.
pub type Unavailable = String;

impl Disk {
    /// Mounts an empty disk, served by the binary `power-cut-disk` at `server`.
    pub fn mount(server: &str) -> Result<Disk, Unavailable> {
        if !Path::new("/dev/fuse").exists() {
            return Err("there is no /dev/fuse".to_owned());
        }
        Disk::start(server).map_err(|error| format!("{error:#}"))
    }

    fn start(server: &str) -> anyhow::Result<Disk> {
        let mount_point = tempfile::Builder::new().prefix("power-cut-").tempdir()?;
        let mut child = Command::new(server)
            .arg(mount_point.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {server}"))?;
        let requests = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let mut disk = Disk {
            child,
            requests,
            answers,
            mount_point,
        };
        disk.answer().context("mount")?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.mount_point.path().to_owned()
    }

    /// Cuts the power: from now on every operation fails, and what was not synced is gone. Returns how many
    /// syncs there were since the power came on.
    pub fn cut(&mut self, loss: Loss) -> anyhow::Result<u64> {
        let answer = match loss {
            Loss::Everything => self.ask("cut")?,
            Loss::Some { seed } => self.ask(&format!("cut {seed}"))?,
        };
        Ok(answer.parse()?)
    }

    /// Mounts what has survived at the same place. All files on it must be closed.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        self.ask("on").map(drop)
    }

    fn ask(&mut self, request: &str) -> anyhow::Result<String> {
        let requests = self.requests.as_mut().context("open until dropped")?;
        writeln!(requests, "{request}").with_context(|| format!("ask the disk to {request}"))?;
        self.answer().with_context(|| format!("disk: {request}"))
    }

    fn answer(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        match line.trim_end().split_once(' ') {
            Some(("ok", rest)) => Ok(rest.to_owned()),
            Some(("failed", why)) => bail!("{why}"),
            _ => bail!("the server of the disk has stopped"),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.requests.take()); // End of input: it unmounts and exits.
        drop(self.child.wait());
    }
}
