//! The servers and sidecars of the contestants: each has its own, and all of them stay up for a round.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use xtask::{
    process::shown,
    servers::{Group, free_address, program},
};

use super::{
    certificates::Certificates,
    contestant::{Contestant, Security},
    envoy, haproxy,
    server::Kind,
};

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A process that ends with the value.
pub(crate) struct Process(Group);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Process> {
        Ok(Process(Group::start(command)?))
    }

    /// Waits until it takes connections.
    pub(crate) fn listening(
        command: &mut Command,
        address: SocketAddr,
        log: &Path,
    ) -> Result<Process> {
        let output = File::create(log)?;
        command.stdout(output.try_clone()?).stderr(output);
        let mut process = Process::start(command)?;
        let ready = || TcpStream::connect(address).is_ok();
        process
            .0
            .wait_until(READY_TIMEOUT, log, ready)
            .with_context(|| shown(command))?;
        Ok(process)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// What a program that ends by itself writes to standard output; its log goes into a file, which an error quotes.
pub(crate) fn said(command: &mut Command, log: &str) -> Result<String> {
    let ended = command.stderr(File::create(log)?).output()?;
    if !ended.status.success() {
        let log = fs::read_to_string(log)?;
        bail!("{} ended with {}:\n{log}", shown(command), ended.status);
    }
    Ok(String::from_utf8(ended.stdout)?)
}

/// Which side of a sidecar speaks TLS.
#[derive(Clone, Copy)]
pub(crate) enum Hop<'a> {
    /// Neither.
    Plain,
    /// The one that calls come in at: it stands before a server.
    Into(&'a Certificates),
    /// The one that calls go out at: it stands behind a client.
    OutOf(&'a Certificates),
}

/// What a contestant needs besides the loader.
pub(crate) struct Party {
    /// Where the loader calls.
    pub(crate) address: SocketAddr,
    /// Whether the loader itself speaks TLS.
    pub(crate) client_tls: bool,
    server: Process,
    sidecars: Vec<Process>,
}

impl Party {
    /// Its processes: the server, then the sidecars.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let all = std::iter::once(&self.server).chain(&self.sidecars);
        all.map(Process::id).collect()
    }
}

/// Who can be measured here, with the sidecar of those that have one; and why others cannot.
pub(crate) struct Cast {
    ready: Vec<(Contestant, PathBuf)>,
    pub(crate) skipped: Vec<String>,
}

impl Cast {
    /// Installs what is missing for `wanted`.
    pub(crate) fn of(wanted: impl Iterator<Item = Contestant>) -> Cast {
        let (mut ready, mut skipped) = (Vec::new(), Vec::new());
        for contestant in wanted {
            let sidecar = match contestant {
                Contestant::Haproxy => haproxy::install().map(|()| PathBuf::from("haproxy")),
                Contestant::Envoy => envoy::install(),
                Contestant::Tonic | Contestant::TonicMany | Contestant::Mesh => Ok(PathBuf::new()),
            };
            match sidecar {
                Ok(sidecar) => ready.push((contestant, sidecar)),
                Err(reason) => skipped.push(format!("SKIPPED {}: {reason:#}", contestant.name())),
            }
        }
        for line in &skipped {
            println!("{line}");
        }
        Cast { ready, skipped }
    }
}

/// Everybody's processes.
pub(crate) struct Stage {
    pub(crate) parties: BTreeMap<Contestant, Party>,
}

/// How the parties of a stage are started.
struct Builder<'a> {
    folder: &'a Path,
    security: Security,
    certificates: &'a Certificates,
}

impl Stage {
    /// Starts what the cast needs.
    pub(crate) fn set(
        cast: &Cast,
        security: Security,
        certificates: &Certificates,
        folder: &Path,
    ) -> Result<Stage> {
        let builder = Builder {
            folder,
            security,
            certificates,
        };
        let mut parties = BTreeMap::new();
        for (contestant, sidecar) in &cast.ready {
            let party = builder.party(*contestant, sidecar);
            let party = party.with_context(|| contestant.name())?;
            parties.insert(*contestant, party);
        }
        Ok(Stage { parties })
    }
}

impl Builder<'_> {
    fn party(&self, contestant: Contestant, binary: &Path) -> Result<Party> {
        let tls = self.security == Security::Mtls;
        let (kind, sidecars) = match contestant {
            Contestant::Mesh => (Kind::Mesh, false),
            Contestant::Tonic | Contestant::TonicMany => (Kind::Tonic, false),
            Contestant::Haproxy | Contestant::Envoy => (Kind::Tonic, true),
        };
        let server_address = free_address()?;
        let name = format!("{contestant:?}-{:?}", self.security).to_lowercase();
        let server = self.server(kind, server_address, tls && !sidecars, &name)?;
        if !sidecars {
            return Ok(Party {
                address: server_address,
                client_tls: tls,
                server,
                sidecars: Vec::new(),
            });
        }
        let (address, between) = (free_address()?, free_address()?);
        let [into, out_of] = if tls {
            [Hop::Into(self.certificates), Hop::OutOf(self.certificates)]
        } else {
            [Hop::Plain; 2]
        };
        let sidecar = |side: &str, addresses: [SocketAddr; 2], hop| {
            let name = format!("{name}-{side}");
            let mut command = match contestant {
                Contestant::Envoy => envoy::command(binary, self.folder, &name, addresses, hop)?,
                _ => haproxy::command(self.folder, &name, addresses, hop)?,
            };
            Process::listening(&mut command, addresses[0], &self.log(&name))
        };
        Ok(Party {
            address,
            client_tls: false,
            server,
            sidecars: vec![
                sidecar("server", [between, server_address], into)?,
                sidecar("client", [address, between], out_of)?,
            ],
        })
    }

    fn server(&self, kind: Kind, address: SocketAddr, tls: bool, name: &str) -> Result<Process> {
        let itself = std::env::current_exe()?;
        let mut server = program(&itself, None);
        server.args(["mesh-server", "--kind", kind.name()]);
        server.args(["--listen", &address.to_string()]);
        if tls {
            server.arg("--certificates").arg(self.certificates.folder());
        }
        Process::listening(&mut server, address, &self.log(name))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}
