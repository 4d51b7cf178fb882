//! A fresh shop for a check: `standalone --ephemeral` on a free port, as a process of its own.
//!
//! It is asked to stop when the value is dropped, and killed if it does not.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    checkout,
    process::{collect, command},
};

const READY_TIMEOUT: Duration = Duration::from_mins(1);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running shop.
pub struct Shop {
    process: Child,
    address: SocketAddr,
    screen: PathBuf,
    log: PathBuf,
}

impl Shop {
    /// Builds and starts a shop and waits until it is ready. Its ready screen goes to `NAME.screen.txt` in
    /// the folder, all else that it prints to `NAME.log.txt`.
    pub fn start(folder: &Path, name: &str) -> Result<Shop> {
        Shop::run(&checkout::build("standalone")?, folder, name)
    }

    /// The same with a binary that was built already.
    pub fn run(binary: &Path, folder: &Path, name: &str) -> Result<Shop> {
        let create = |path: &Path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        };
        let screen = folder.join(format!("{name}.screen.txt"));
        let log = folder.join(format!("{name}.log.txt"));
        // The port is free now; should somebody else take it first, the shop says so and ends.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = command(binary)
            .args(["--ephemeral", "--listen", &address.to_string()])
            .args(["--admin-listen", "127.0.0.1:0"])
            .stdout(create(&screen)?)
            .stderr(create(&log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let mut shop = Shop {
            process,
            address,
            screen,
            log,
        };
        shop.wait_until_ready()?;
        Ok(shop)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens, as a URL without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The ready screen, as printed.
    pub fn ready_screen(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.screen)?)
    }

    /// The body of a resource that must be there.
    pub fn get(&self, path: &str) -> Result<String> {
        let (status, body) = get(self.address, path)?;
        if status != 200 {
            bail!("GET {path} answered {status}: {body}");
        }
        Ok(body)
    }

    /// Ready is a shop that answers so and has said so: the screen comes after the answer.
    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let log = || fs::read_to_string(&self.log);
            if let Some(status) = self.process.try_wait()? {
                bail!("the shop ended with {status}:\n{}", log()?);
            }
            let answers = get(self.address, "/healthz").is_ok_and(|(status, _)| status == 200);
            if answers && fs::metadata(&self.screen)?.len() > 0 {
                return Ok(());
            }
            if started.elapsed() > READY_TIMEOUT {
                bail!(
                    "the shop was not ready after {READY_TIMEOUT:?}:\n{}",
                    log()?
                );
            }
            thread::park_timeout(PROBE_INTERVAL);
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let asked = collect(command("kill").args(["-TERM", &self.process.id().to_string()]));
        let started = Instant::now();
        while asked.is_ok() && started.elapsed() < DRAIN_TIMEOUT {
            if self.process.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::park_timeout(PROBE_INTERVAL);
        }
        eprintln!("warning: the shop did not stop within {DRAIN_TIMEOUT:?} and is killed");
        // It may have ended in this moment; either way it is gone.
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A GET by HTTP/1.0, so that the answer ends with the connection and is never chunked.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    let status = head.split(' ').nth(1).context("the answer has no status")?;
    Ok((status.parse()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn a_get_answers_status_and_body() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let reader = BufReader::new(stream.try_clone().unwrap());
            let request: Vec<_> = reader
                .lines()
                .map(Result::unwrap)
                .take_while(|line| !line.is_empty())
                .collect();
            stream
                .write_all(b"HTTP/1.0 503 Service Unavailable\r\nA: b\r\n\r\nlater")
                .unwrap();
            request[0].clone()
        });
        assert_eq!(get(address, "/healthz").unwrap(), (503, "later".to_owned()));
        assert_eq!(server.join().unwrap(), "GET /healthz HTTP/1.0");
    }
}
