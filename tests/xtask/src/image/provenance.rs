//! Where an image comes from: what its labels say.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Make, Program};
use crate::{
    checkout,
    process::{command, output},
};

/// Where an image comes from.
#[derive(Clone, Debug)]
pub(super) struct Provenance {
    /// The program's name.
    pub(super) title: String,
    /// What it is.
    pub(super) about: String,
    /// Of the workspace.
    pub(super) version: String,
    /// The commit; `-dirty` behind it where the checkout differs from it.
    pub(super) revision: String,
    /// An SPDX expression.
    pub(super) licences: String,
    /// Where the source is published, if that was said.
    pub(super) source: Option<String>,
    /// The time of everything, in seconds.
    pub(super) epoch: u64,
    /// The same as RFC 3339.
    pub(super) created: String,
}

impl Provenance {
    /// Of a program of this checkout.
    pub(super) fn of(program: &Program, make: &Make) -> Result<Provenance> {
        let metadata = checkout::metadata()?;
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let package = packages
            .clone()
            .find(|package| package["name"] == program.package);
        let package = package.with_context(|| format!("no package {:?}", program.package))?;
        let field = |name: &str| {
            let text = package[name].as_str().map(str::to_owned);
            text.with_context(|| format!("package {:?} states no {name}", program.package))
        };
        let epoch = match make.epoch {
            Some(epoch) => epoch,
            None => git(&["log", "-1", "--format=%ct"])?.parse()?,
        };
        Ok(Provenance {
            title: program.name.to_owned(),
            about: program.about.to_owned(),
            version: field("version")?,
            revision: revision()?,
            licences: field("license")?,
            source: make.source.clone(),
            epoch,
            created: rfc3339(epoch)?,
        })
    }

    /// By the names of OCI's predefined annotations.
    pub(super) fn annotations(&self) -> Map<String, Value> {
        let mut all = Map::new();
        let mut add = |name: &str, value: &str| {
            all.insert(format!("org.opencontainers.image.{name}"), json!(value));
        };
        add("created", &self.created);
        add("description", &self.about);
        add("licenses", &self.licences);
        add("revision", &self.revision);
        if let Some(source) = &self.source {
            add("source", source);
        }
        add("title", &self.title);
        add("version", &self.version);
        all
    }
}

fn revision() -> Result<String> {
    let commit = git(&["rev-parse", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let dirty = if changed.is_empty() { "" } else { "-dirty" };
    Ok(format!("{commit}{dirty}"))
}

fn git(arguments: &[&str]) -> Result<String> {
    let answer = output(command("git").args(arguments))?;
    match answer.trim() {
        "" if arguments[0] != "status" => bail!("git {} says nothing", arguments.join(" ")),
        answer => Ok(answer.to_owned()),
    }
}

fn rfc3339(epoch: u64) -> Result<String> {
    let moment = OffsetDateTime::from_unix_timestamp(epoch.try_into()?)?;
    Ok(moment.format(&Rfc3339)?)
}
