//! A private PostgreSQL: durable as in production, so that what is measured and killed is the real thing.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{Group, folder, free_port, program, user};
use crate::{
    debian,
    process::{collect, installed},
};

/// Where Debian puts each version's programs.
const VERSIONS: &str = "/usr/lib/postgresql";
const READY_TIMEOUT: Duration = Duration::from_mins(1);

/// A running PostgreSQL with a superuser `postgres` and no password.
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    group: Group,
}

impl Postgres {
    /// Creates a cluster and starts it.
    pub fn start() -> Result<Postgres> {
        let programs = newest().with_context(|| format!("no PostgreSQL below {VERSIONS}"))?;
        let folder = folder(user("postgres"))?;
        let data = folder.path().join("data");
        let created = collect(
            program(&programs.join("initdb"), user("postgres"))
                .arg("--pgdata")
                .arg(&data)
                .args(["--username=postgres", "--auth=trust"])
                // Without it pg_trgm takes nothing out of Korean.
                .args(["--encoding=UTF8", "--locale=C.UTF-8"]),
        )?;
        if !created.status.success() {
            bail!("initdb failed: {}", created.text.trim());
        }
        let port = free_port()?;
        let group = run(&programs, &folder, port)?;
        Ok(Postgres {
            folder,
            programs,
            port,
            group,
        })
    }

    /// Where it is, as its superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// Where a database is, as some role.
    pub fn url_of(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Stops without finishing anything and starts again, as after a crash: connections break, the log is
    /// replayed.
    pub fn restart_immediately(&mut self) -> Result<()> {
        self.stop_immediately();
        self.start_again()
    }

    /// Stops in good order, without waiting for clients to go.
    pub fn stop(&mut self) {
        self.group.stop("-INT");
    }

    /// One of its programs, run by the user that owns its data: pg_basebackup, pg_resetwal.
    pub fn tool(&self, name: &str) -> Command {
        program(&self.programs.join(name), user("postgres"))
    }

    /// Stops without finishing anything.
    pub fn stop_immediately(&mut self) {
        self.group.stop("-QUIT");
    }

    /// Starts on the same data and port.
    pub fn start_again(&mut self) -> Result<()> {
        self.group = run(&self.programs, &self.folder, self.port)?;
        Ok(())
    }

    /// Where its data is; gone with the value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where its programs are: psql, pgbench, pg_dump.
    pub fn programs(&self) -> &Path {
        &self.programs
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(programs: &Path, folder: &TempDir, port: u16) -> Result<Group> {
    let log = folder.path().join("log.txt");
    let output = File::options().create(true).append(true).open(&log)?;
    let mut server = program(&programs.join("postgres"), user("postgres"));
    server
        .arg("-D")
        .arg(folder.path().join("data"))
        .args(["-p", &port.to_string()])
        .args(["-c", "listen_addresses=127.0.0.1"])
        .args(["-c", "unix_socket_directories="])
        .args(["-c", "max_connections=200"])
        .stdout(output.try_clone()?)
        .stderr(Stdio::from(output));
    let mut group = Group::start(&mut server)?;
    let probe = || {
        let arguments = ["-q", "-h", "127.0.0.1", "-p", &port.to_string()];
        let mut ready = crate::process::command(programs.join("pg_isready"));
        collect(ready.args(arguments)).is_ok_and(|ended| ended.status.success())
    };
    if let Err(error) = group.wait_until(READY_TIMEOUT, &log, probe) {
        group.kill();
        return Err(error).context("PostgreSQL");
    }
    Ok(group)
}

/// Makes sure that it is installed.
pub fn install() -> Result<()> {
    match newest() {
        Some(_) => Ok(()),
        None => debian::ensure("postgres", "postgresql"),
    }
}

/// The newest version's programs.
fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let numbered = versions.filter_map(|version| {
        let number: u32 = version.file_name().to_str()?.parse().ok()?;
        let programs = version.path().join("bin");
        programs
            .join("postgres")
            .is_file()
            .then_some((number, programs))
    });
    let debian = numbered.max().map(|(_, programs)| programs);
    debian.or_else(|| {
        // Elsewhere they are on the PATH.
        let path = std::env::var_os("PATH").filter(|_| installed("postgres"))?;
        std::env::split_paths(&path).find(|folder| folder.join("postgres").is_file())
    })
}
