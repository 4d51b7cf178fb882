//! The configuration that a workload would run with: its ConfigMap and environment, read by the program itself.
//!
//! So a key that the program does not know, or a value that it does not take, is an error here and not at the start
//! of a pod.

use std::{cell::RefCell, collections::BTreeMap, fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::manifests::{Manifests, Workload, at, list, text};
use crate::{
    checkout,
    process::{collect, command},
};

/// Programs with a configuration of their own.
const PROGRAMS: [&str; 4] = ["product", "payment", "edge", "simulator"];

/// Reads configurations by the programs of this workspace.
pub(super) struct Reader {
    programs: BTreeMap<&'static str, PathBuf>,
    /// Where the files of ConfigMaps are put.
    folder: tempfile::TempDir,
    /// What was read before, by everything that went in.
    known: RefCell<BTreeMap<Input, Result<Value, String>>>,
}

type Input = (String, Vec<(String, String)>, Option<String>, Vec<String>);

impl Reader {
    /// Builds the programs.
    pub(super) fn build() -> Result<Self> {
        let built = checkout::build_all(&PROGRAMS, false)?;
        Ok(Self {
            programs: PROGRAMS.into_iter().zip(built).collect(),
            folder: tempfile::tempdir()?,
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
        let input = (program.to_owned(), environment, file, flags(&arguments));
        let mut known = self.known.borrow_mut();
        let read = known
            .entry(input.clone())
            .or_insert_with(|| self.ask(&input).map_err(|error| format!("{error:#}")));
        read.clone().map_err(anyhow::Error::msg)
    }

    fn ask(&self, (program, environment, file, flags): &Input) -> Result<Value> {
        let binary = self.programs.get(program.as_str());
        let mut asking = command(binary.with_context(|| format!("no program {program}"))?);
        if let Some(content) = file {
            let path = self.folder.path().join("config.toml");
            fs::write(&path, content)?;
            asking.arg("--config").arg(path);
        }
        asking.args(flags).envs(environment.iter().cloned());
        let checked = collect(asking.arg("--check-config"))?;
        if !checked.status.success() {
            bail!(
                "{program} refuses its configuration: {}",
                checked.text.trim()
            );
        }
        // The same again, printed.
        let mut printing = command(asking.get_program());
        let arguments = asking
            .get_args()
            .filter(|argument| *argument != "--check-config");
        printing.args(arguments).envs(environment.iter().cloned());
        let printed = collect(printing.arg("--print-config"))?;
        toml::from_str(&printed.text).with_context(|| format!("{program} prints no TOML"))
    }
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
    let mounted = || format!("nothing is mounted at {path}");
    let (volume, key) = workload.volume_of(path).with_context(mounted)?;
    let map = text(volume, "/configMap/name");
    let map = manifests
        .find("ConfigMap", map)
        .with_context(|| format!("no ConfigMap {map}"))?;
    let content = at(map, "/data").get(key).and_then(Value::as_str);
    let content =
        content.with_context(|| format!("{} has no {key}", super::manifests::title(map)))?;
    Ok(Some(content.to_owned()))
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
