//! What an endpoint costs that is configured and not called: the memory of a process that knows many of them, beside
//! one that knows fewer. (Beside one that knows a single one, the first hundreds would cost nothing: they find room in
//! what was used and freed when the process started.)

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use xtask::process::command;

use super::{DESTINATION, full, stage::said};

/// How many the two processes know.
const FEWER: usize = 1_000;
const MANY: usize = 9_000;
/// Processes of each kind; what is reported is their median.
const PROCESSES: usize = 5;

/// The process that holds endpoints.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A file of endpoints.
    #[arg(long)]
    endpoints: PathBuf,
}

/// What was measured.
pub(crate) struct Memory {
    pub(crate) bytes_per_endpoint: f64,
}

/// Knows the endpoints, and says how much memory it has, in kibibytes.
pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let file = fs::canonicalize(&options.endpoints)?;
        let expected = fs::read_to_string(&file)?.lines().count();
        let mesh = full::knowing(&format!("file://{}", file.display())).await?;
        let _client = mesh.client(DESTINATION);
        let known = || {
            mesh.endpoints()
                .iter()
                .map(|known| known.endpoints.len())
                .sum::<usize>()
        };
        while known() != expected {
            tokio::task::yield_now().await;
        }
        println!("{}", resident_kib()?);
        Ok(())
    })
}

/// Starts processes of both kinds, in turn.
pub(crate) fn measure(folder: &Path) -> Result<Memory> {
    let (few, many) = (list(folder, FEWER)?, list(folder, MANY)?);
    let mut differences = Vec::with_capacity(PROCESSES);
    for _ in 0..PROCESSES {
        differences.push(hold(&many)? - hold(&few)?);
    }
    differences.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "it is small")]
    let bytes_per_endpoint = differences[PROCESSES / 2] * 1024.0 / (MANY - FEWER) as f64;
    Ok(Memory { bytes_per_endpoint })
}

/// So many endpoints that nobody calls.
fn list(folder: &Path, count: usize) -> Result<PathBuf> {
    let first = u32::from(Ipv4Addr::new(127, 1, 0, 0));
    let address = |index: usize| {
        let ip = Ipv4Addr::from(first + u32::try_from(index).expect("they are few"));
        format!("http://{}\n", SocketAddr::from((ip, 1)))
    };
    let path = folder.join(format!("endpoints-{count}"));
    fs::write(&path, (0..count).map(address).collect::<String>())?;
    Ok(path)
}

/// The memory of a process that knows these, in kibibytes.
fn hold(endpoints: &Path) -> Result<f64> {
    let mut holder = command(std::env::current_exe()?);
    holder.arg("mesh-memory").arg("--endpoints").arg(endpoints);
    let log = endpoints.with_extension("log").display().to_string();
    let kibibytes = said(&mut holder, &log)?;
    kibibytes.trim().parse().context("the memory is no number")
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    match line.and_then(|line| line.trim().strip_suffix("kB")) {
        Some(kibibytes) => Ok(kibibytes.trim().parse()?),
        None => bail!("VmRSS is not there"),
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "An endpoint that is known and not called: {:.0} bytes ({MANY} of them beside {FEWER}, median of \
             {PROCESSES} processes).",
            self.bytes_per_endpoint
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_different_and_on_loopback() {
        let folder = tempfile::tempdir().unwrap();
        let text = fs::read_to_string(list(folder.path(), 300).unwrap()).unwrap();
        assert_eq!(text.lines().count(), 300);
        assert_eq!(text.lines().nth(256), Some("http://127.1.1.0:1"));
    }

    #[test]
    fn the_memory_of_a_process_is_read() {
        assert!(resident_kib().unwrap() > 0);
    }
}
