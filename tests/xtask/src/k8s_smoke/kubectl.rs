//! kubectl on one cluster: commands are shown as one would type them, and on a dry run nothing else happens.

use std::{
    cell::RefCell,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process::command;

/// One cluster.
pub(super) struct Kubectl {
    context: String,
    /// What would have been typed; `None` where it is done.
    dry: Option<RefCell<String>>,
}

impl Kubectl {
    pub(super) fn new(context: &str, dry_run: bool) -> Kubectl {
        Kubectl {
            context: context.to_owned(),
            dry: dry_run.then(RefCell::default),
        }
    }

    /// Whether nothing is done.
    pub(super) fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// The commands of a dry run.
    #[cfg(test)]
    pub(super) fn typed(&self) -> String {
        self.dry
            .as_ref()
            .map(|dry| dry.borrow().clone())
            .unwrap_or_default()
    }

    /// Says what happens beside kubectl.
    pub(super) fn note(&self, text: &str) {
        self.show(&format!("# {text}"));
    }

    /// Runs a command; an error quotes what it said.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<()> {
        self.ask(arguments, "").map(drop)
    }

    /// Runs a command and shows what it printed.
    pub(super) fn tell(&self, arguments: &[&str]) -> Result<()> {
        let said = self.ask(arguments, "")?;
        if !self.is_dry() {
            println!("{said}");
        }
        Ok(())
    }

    /// Runs a command and answers what it printed; on a dry run, what stands for it.
    pub(super) fn ask(&self, arguments: &[&str], dry: &str) -> Result<String> {
        let mut kubectl = self.command(arguments);
        self.show(&shown(&kubectl));
        if self.is_dry() {
            return Ok(dry.to_owned());
        }
        let output = kubectl.output().context("cannot start kubectl")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} ended with {}: {}",
                shown(&kubectl),
                output.status,
                said.trim()
            );
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Applies manifests.
    pub(super) fn apply(&self, manifests: &[Value]) -> Result<()> {
        for manifest in manifests {
            let mut kubectl = self.command(&["apply", "--filename=-"]);
            let (kind, name) = (&manifest["kind"], &manifest["metadata"]["name"]);
            let of = [kind, name].map(|text| text.as_str().unwrap_or_default());
            self.show(&format!("{} # {} {}", shown(&kubectl), of[0], of[1]));
            if self.is_dry() {
                continue;
            }
            let mut child = kubectl.stdin(Stdio::piped()).spawn()?;
            let mut stdin = child.stdin.take().expect("standard input is piped");
            stdin.write_all(manifest.to_string().as_bytes())?;
            drop(stdin);
            let status = child.wait()?;
            if !status.success() {
                bail!(
                    "{} of {} {} ended with {status}",
                    shown(&kubectl),
                    of[0],
                    of[1]
                );
            }
        }
        Ok(())
    }

    /// Forwards a port of this machine to one of a Service for as long as the value lives.
    pub(super) fn forward(&self, namespace: &str, service: &str, port: u16) -> Result<Forward> {
        let namespace = format!("--namespace={namespace}");
        let ports = format!(":{port}");
        let mut kubectl = self.command(&[&namespace, "port-forward", service, &ports]);
        self.show(&format!("{} &", shown(&kubectl)));
        if self.is_dry() {
            return Ok(Forward {
                process: None,
                address: "127.0.0.1:PORT".to_owned(),
            });
        }
        let mut process = kubectl.stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().expect("standard output is piped");
        let mut forward = Forward {
            process: Some(process),
            address: String::new(),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        // "Forwarding from 127.0.0.1:40513 -> 8080"
        let address = line.strip_prefix("Forwarding from ");
        let address = address.and_then(|rest| rest.split(' ').next());
        address
            .with_context(|| format!("kubectl port-forward says {line:?}"))?
            .clone_into(&mut forward.address);
        Ok(forward)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = command("kubectl");
        kubectl.arg(format!("--context={}", self.context));
        kubectl.args(arguments);
        kubectl
    }

    fn show(&self, line: &str) {
        println!("{line}");
        if let Some(dry) = &self.dry {
            writeln!(dry.borrow_mut(), "{line}").expect("a String takes everything");
        }
    }
}

/// The command as one would type it, quoted where a shell would take it for something else.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        if word.contains(|c: char| c.is_whitespace() || "(){}[]?*!'@".contains(c)) {
            format!("'{word}'")
        } else {
            word.into_owned()
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A forwarded port.
pub(super) struct Forward {
    process: Option<Child>,
    /// Where it is on this machine: `host:port`.
    pub(super) address: String,
}

impl Drop for Forward {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself; either way it is gone.
            let _ = process.kill().and_then(|()| process.wait());
        }
    }
}
