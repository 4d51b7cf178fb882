//! The configuration that a workload would run with: its ConfigMap and environment, read by the program itself.
//!
//! So a key that the program does not know, or a value that it does not take, is an error here and not at the start
//! of a pod.

use std::{cell::RefCell, collections::BTreeMap, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::architecture::SERVICES;
use super::manifests::{Manifests, Workload, at, list, text};
use crate::{
    checkout,
    process::{collect, command, output},
};

/// Programs with a configuration beside the services, and the one that makes certificates.
const OTHERS: [&str; 2] = ["simulator", MESHCTL];
const MESHCTL: &str = "meshctl";
/// What a certificate is issued for here: a check asks whether the program can use it, not whose it is.
const ANYBODY: &str = "anybody";

/// Reads configurations by the programs of this workspace.
pub(super) struct Reader {
    programs: BTreeMap<&'static str, PathBuf>,
    /// Where the files of ConfigMaps are put, and certificates in place of those that a cluster issues.
    folder: tempfile::TempDir,
    /// What was read before, by everything that went in.
    known: RefCell<BTreeMap<Input, Result<Value, String>>>,
}

/// Everything that goes into a configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Input {
    program: String,
    environment: Vec<(String, String)>,
    file: Option<String>,
    flags: Vec<String>,
    /// The rules of authorisation, where the program reads some.
    policy: Option<String>,
}

impl Reader {
    /// Builds the programs.
    pub(super) fn build() -> Result<Self> {
        let services = SERVICES.iter().map(|service| service.name);
        let names: Vec<_> = services.chain(OTHERS).collect();
        let built = checkout::build_all(&names, false)?;
        let programs: BTreeMap<_, _> = names.into_iter().zip(built).collect();
        let folder = tempfile::tempdir()?;
        let mut issuing = command(&programs[MESHCTL]);
        issuing.args(["certs", "new", "--trust-domain", "shop.example"]);
        issuing.args(["--service", ANYBODY, "--out"]);
        output(issuing.arg(folder.path()))?;
        Ok(Self {
            programs,
            folder,
            known: RefCell::default(),
        })
    }

    /// What the program of this workload would run with; an error says what it refuses.
    pub(super) fn read(&self, manifests: &Manifests, workload: Workload<'_>) -> Result<Value> {
        let program = workload
            .program()
            .context("it runs no program of this workspace")?;
        let environment = environment(manifests, workload)?;
        let arguments: Vec<_> = list(workload.container(), "/args")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let file = config_file(manifests, workload, &arguments)?;
        let policy = policy(manifests, workload, file.as_deref())?;
        let input = Input {
            program: program.to_owned(),
            environment,
            file,
            flags: flags(&arguments),
            policy,
        };
        let mut known = self.known.borrow_mut();
        let read = known
            .entry(input.clone())
            .or_insert_with(|| self.ask(&input).map_err(|error| format!("{error:#}")));
        read.clone().map_err(anyhow::Error::msg)
    }

    fn ask(&self, input: &Input) -> Result<Value> {
        let program = &input.program;
        let binary = self.programs.get(program.as_str());
        let binary = binary.with_context(|| format!("no program {program}"))?;
        let asking = || -> Result<Command> {
            let mut asking = command(binary);
            if let Some(content) = &input.file {
                let path = self.folder.path().join("config.toml");
                fs::write(&path, content)?;
                asking.arg("--config").arg(path);
            }
            asking.args(&input.flags);
            asking.envs(input.environment.iter().cloned());
            Ok(asking)
        };
        let mut checking = asking()?;
        checking.envs(self.mounted(input)?);
        let checked = collect(checking.arg("--check-config"))?;
        if !checked.status.success() {
            bail!(
                "{program} refuses its configuration: {}",
                checked.text.trim()
            );
        }
        // The same again, printed.
        let printed = collect(asking()?.arg("--print-config"))?;
        toml::from_str(&printed.text).with_context(|| format!("{program} prints no TOML"))
    }

    /// The variables that lead to what a cluster mounts and this machine has elsewhere: a certificate, and the policy.
    fn mounted(&self, input: &Input) -> Result<Vec<(String, PathBuf)>> {
        let prefix = format!("{}__MESH__IDENTITY__", input.program.to_uppercase());
        let mut variables = Vec::new();
        if stated(input.file.as_deref(), "/mesh/identity/files")?.is_object() {
            let own = self.folder.path().join(ANYBODY);
            let files = [
                ("CERTIFICATE", own.join("certificate.pem")),
                ("KEY", own.join("key.pem")),
                ("BUNDLE", self.folder.path().join("bundle.pem")),
            ];
            variables.extend(files.map(|(key, path)| (format!("{prefix}FILES__{key}"), path)));
        }
        if let Some(policy) = &input.policy {
            let path = self.folder.path().join("policy.toml");
            fs::write(&path, policy)?;
            variables.push((format!("{prefix}POLICY__FILE"), path));
        }
        Ok(variables)
    }
}

/// What stands at a place of a configuration file.
fn stated(file: Option<&str>, pointer: &str) -> Result<Value> {
    let parsed: Value = toml::from_str(file.unwrap_or_default())?;
    Ok(at(&parsed, pointer).clone())
}

/// The rules of authorisation that a configuration file names, through the volume that is mounted there.
fn policy(
    manifests: &Manifests,
    workload: Workload<'_>,
    file: Option<&str>,
) -> Result<Option<String>> {
    // What is no TOML is for the program to refuse.
    let Ok(path) = stated(file, "/mesh/identity/policy/file") else {
        return Ok(None);
    };
    path.as_str()
        .map(|path| mounted_text(manifests, workload, path))
        .transpose()
}

/// Flags that change the configuration; what else stands among the arguments does other work.
fn flags(arguments: &[String]) -> Vec<String> {
    arguments
        .iter()
        .filter(|argument| *argument == "--insecure")
        .cloned()
        .collect()
}

/// The content of the file that `--config` names, through the volume that is mounted there.
fn config_file(
    manifests: &Manifests,
    workload: Workload<'_>,
    arguments: &[String],
) -> Result<Option<String>> {
    let Some(index) = arguments.iter().position(|argument| argument == "--config") else {
        return Ok(None);
    };
    let path = arguments.get(index + 1).context("--config names no file")?;
    mounted_text(manifests, workload, path).map(Some)
}

/// The content of a file that a ConfigMap holds, by the path at which the workload finds it.
fn mounted_text(manifests: &Manifests, workload: Workload<'_>, path: &str) -> Result<String> {
    let mounted = || format!("nothing is mounted at {path}");
    let (volume, key) = workload.volume_of(path).with_context(mounted)?;
    let map = text(volume, "/configMap/name");
    let map = manifests
        .find("ConfigMap", map)
        .with_context(|| format!("no ConfigMap {map}"))?;
    let content = at(map, "/data").get(key).and_then(Value::as_str);
    let content =
        content.with_context(|| format!("{} has no {key}", super::manifests::title(map)))?;
    Ok(content.to_owned())
}

/// The variables of a workload's container. What comes from a Secret has some value.
fn environment(manifests: &Manifests, workload: Workload<'_>) -> Result<Vec<(String, String)>> {
    let mut variables = Vec::new();
    for source in list(workload.container(), "/envFrom") {
        let map = text(source, "/configMapRef/name");
        let map = manifests
            .find("ConfigMap", map)
            .with_context(|| format!("no ConfigMap {map}"))?;
        let data = at(map, "/data").as_object().into_iter().flatten();
        variables.extend(
            data.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())),
        );
    }
    for variable in list(workload.container(), "/env") {
        let secret = !at(variable, "/valueFrom/secretKeyRef").is_null();
        let value = if secret {
            "from-a-secret"
        } else {
            text(variable, "/value")
        };
        variables.push((text(variable, "/name").to_owned(), value.to_owned()));
    }
    Ok(variables)
}
