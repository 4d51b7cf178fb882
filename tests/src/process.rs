//! The shop as a process of its own, to be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::invariants::card_number;
use crate::rest::Rest;

/// Longer than a start takes on a slow machine.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// A running shop with its data in a folder of the caller's.
pub struct ShopProcess {
    child: Child,
    log: PathBuf,
    rest: Rest,
}

impl ShopProcess {
    /// Starts the program at `program` on `data` and waits until it is ready. `log`
    /// gets everything that it prints, after what is there already.
    pub async fn start(
        program: &str,
        data: &Path,
        listen: &str,
        config: &Path,
        log: &Path,
    ) -> anyhow::Result<ShopProcess> {
        ShopProcess::start_with(program, data, listen, config, log, &[]).await
    }

    /// The same with variables of the environment of its own.
    pub async fn start_with(
        program: &str,
        data: &Path,
        listen: &str,
        config: &Path,
        log: &Path,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<ShopProcess> {
        let log = log.to_owned();
        let output = File::options().create(true).append(true).open(&log)?;
        let printed_before = std::fs::metadata(&log)?.len();
        let child = Command::new(program)
            .args([
                "--listen",
                listen,
                "--admin-listen",
                "127.0.0.1:0",
                "--no-sample",
            ])
            .arg("--data-dir")
            .arg(data)
            .arg("--config")
            .arg(config)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        let mut shop = ShopProcess {
            child,
            log,
            rest: Rest::new("http://not-yet"),
        };
        let ready = tokio::time::timeout(START_TIMEOUT, shop.address(printed_before)).await;
        let base = ready.map_err(|_| anyhow::anyhow!("not ready: {}", shop.printed()))??;
        shop.rest = Rest::new(base);
        Ok(shop)
    }

    /// Waits for the line of the screen that says where the documentation is.
    async fn address(&mut self, printed_before: u64) -> anyhow::Result<String> {
        let skip = usize::try_from(printed_before)?;
        loop {
            let printed = self.printed();
            let documentation = printed
                .get(skip..)
                .and_then(|new| new.lines().find(|line| line.contains("Documentation")))
                .and_then(|line| {
                    Some(
                        line.split_once("http://")?
                            .1
                            .trim()
                            .trim_end_matches("/docs"),
                    )
                });
            if let Some(address) = documentation {
                return Ok(format!("http://{address}"));
            }
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("ended with {status}: {}", self.printed());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Its REST edge.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// All that it and those before it printed.
    pub fn printed(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        self.no_card_number_was_printed();
    }

    /// Asks it to stop as Ctrl-C does, and waits until it has.
    pub async fn interrupt(mut self) -> ExitStatus {
        let interrupt = format!("kill -INT {}", self.child.id());
        let sent = Command::new("sh")
            .args(["-c", &interrupt])
            .status()
            .expect("there is a shell");
        assert!(sent.success(), "{interrupt}");
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.no_card_number_was_printed();
                return status;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn no_card_number_was_printed(&self) {
        let found = card_number(&self.printed());
        assert_eq!(found, None, "a card number in the log");
    }
}

impl Drop for ShopProcess {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
