//! `cargo xtask semver`: whether the crates that others use keep what they promised (cargo-semver-checks).
//!
//! Before a release: compares the public items of each library under mesh/ with those that crates.io has, and fails where
//! the version does not say what has changed. A crate that was never published there is compared with a revision of this
//! repository instead, and that is said: the one that `--baseline` names, else the last tag. Says SKIPPED by name for what
//! cannot be compared: no tool, no such crate at that revision.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    checkout,
    process::{cargo, collect, command, watch},
};

/// The version that is installed below `target/tools`.
const VERSION: &str = "0.51.0";

/// What to compare with.
#[derive(clap::Args)]
pub struct Options {
    /// The revision that was released: a tag, a branch, a commit. Without it, what crates.io has, or the last tag.
    #[arg(long, value_name = "REF")]
    baseline: Option<String>,
    /// Only this library.
    #[arg(long, value_name = "NAME")]
    package: Option<String>,
}

/// What a library is compared with.
#[derive(Debug, PartialEq)]
enum Baseline {
    /// The newest version on crates.io.
    Registry,
    /// A revision of this repository.
    Revision(String),
    /// There is nothing: why.
    Missing(String),
}

/// Compares every library under mesh/ with its baseline.
pub fn run(options: &Options) -> Result<()> {
    if let Some(baseline) = &options.baseline {
        let revision = format!("{baseline}^{{commit}}");
        let known = git(&["rev-parse", "--verify", "--quiet", &revision])?;
        ensure!(
            known.is_some(),
            "the repository has no revision {baseline:?}"
        );
    }
    let mut libraries = libraries(&checkout::metadata()?);
    if let Some(package) = &options.package {
        libraries.retain(|(name, _)| name == package);
        ensure!(
            !libraries.is_empty(),
            "no library under mesh/ is called {package:?}"
        );
    }
    let target = checkout::target()?;
    let tool = match install(&target) {
        Ok(tool) => tool,
        Err(reason) => {
            println!("SKIPPED semver: {reason:#}");
            return Ok(());
        }
    };
    let mut broken = Vec::new();
    for (name, manifest) in libraries {
        let mut checking = command(&tool);
        checking
            .args(["semver-checks", "--package", &name])
            .env("CARGO_TARGET_DIR", target.join("semver"));
        match baseline(options, &name, &manifest)? {
            Baseline::Registry => println!("{name}: compared with crates.io"),
            Baseline::Revision(revision) => {
                println!("{name}: compared with revision {revision}");
                checking.args(["--baseline-rev", &revision]);
            }
            Baseline::Missing(reason) => {
                println!("SKIPPED {name}: {reason}");
                continue;
            }
        }
        let ended = watch(&mut checking)?;
        let outcome = if ended.status.success() {
            "ok"
        } else {
            "failed"
        };
        println!("RAN {name} … {outcome}");
        if !ended.status.success() {
            broken.push(name);
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!(
        "their version does not say what has changed: {}",
        broken.join(", ")
    )
}

/// Finds what a library is compared with, and says when that is not what crates.io has.
fn baseline(options: &Options, name: &str, manifest: &str) -> Result<Baseline> {
    let revision = match &options.baseline {
        Some(revision) => revision.clone(),
        None if is_on_crates_io(name)? => return Ok(Baseline::Registry),
        None => {
            println!("{name}: was never published on crates.io");
            let tag = git(&["describe", "--tags", "--abbrev=0"])?;
            tag.context("and this repository has no tag: name a revision by --baseline REF")?
                .trim()
                .to_owned()
        }
    };
    let then = git(&["show", &format!("{revision}:{manifest}")])?;
    Ok(at(revision, then.as_deref()))
}

/// The revision, unless the crate was not published then and so has promised nothing.
fn at(revision: String, manifest: Option<&str>) -> Baseline {
    match manifest {
        Some(manifest) if is_published(manifest) => Baseline::Revision(revision),
        Some(_) => Baseline::Missing(format!("was not to be published at {revision}")),
        None => Baseline::Missing(format!("was not there at {revision}")),
    }
}

/// Whether crates.io has the crate, asked by cargo from outside this workspace, which would answer for itself.
fn is_on_crates_io(name: &str) -> Result<bool> {
    let elsewhere = tempfile::tempdir()?;
    let mut asking = cargo();
    asking.args(["info", "--registry", "crates-io", name]);
    let answer = collect(asking.current_dir(elsewhere.path()))?;
    if answer.status.success() {
        return Ok(true);
    }
    ensure!(
        answer.text.contains("could not find"),
        "crates.io does not say whether it has {name}: {}",
        answer.text.trim()
    );
    Ok(false)
}

/// Name and manifest, from the root, of each library that may be published.
fn libraries(metadata: &Value) -> Vec<(String, String)> {
    let root = metadata["workspace_root"].as_str().unwrap_or_default();
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let wanted = packages.filter(|package| {
        let targets = package["targets"].as_array().into_iter().flatten();
        let mut kinds = targets.flat_map(|target| target["kind"].as_array().into_iter().flatten());
        package["publish"].is_null() && kinds.any(|kind| kind == "lib")
    });
    let read = |package: &Value| {
        let manifest = Path::new(package["manifest_path"].as_str()?);
        let manifest = manifest.strip_prefix(root).ok()?;
        let name = package["name"].as_str()?;
        Some((name.to_owned(), manifest.to_string_lossy().into_owned()))
    };
    wanted.filter_map(read).collect()
}

/// Whether a manifest as it was then lets others have the crate.
fn is_published(manifest: &str) -> bool {
    !manifest.lines().any(|line| line.starts_with("publish"))
}

/// What git prints; `None`: it knows no such thing.
fn git(arguments: &[&str]) -> Result<Option<String>> {
    let ended = collect(command("git").args(arguments))?;
    Ok(ended.status.success().then_some(ended.text))
}

/// The pinned cargo-semver-checks, built from source on the first call.
fn install(target: &Path) -> Result<PathBuf> {
    let folder = target.join(format!("tools/cargo-semver-checks-{VERSION}"));
    let binary = folder.join("bin/cargo-semver-checks");
    if !binary.exists() {
        let mut install = cargo();
        install.args(["install", "--locked", "--quiet", "--version", VERSION]);
        install.args(["cargo-semver-checks", "--root"]);
        if !watch(install.arg(&folder))?.status.success() {
            bail!("cannot install cargo-semver-checks {VERSION}");
        }
    }
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn libraries_that_may_be_published_are_compared() {
        let package = |name: &str, kind: &str, publish: Value| {
            let manifest = format!("/repository/mesh/{name}/Cargo.toml");
            json!({"name": name, "publish": publish, "manifest_path": manifest, "targets": [{"kind": [kind]}]})
        };
        let metadata = json!({"workspace_root": "/repository", "packages": [
            package("rpc", "lib", Value::Null),
            package("ctl", "bin", Value::Null),
            package("edge", "lib", json!([])),
        ]});
        let expected = [("rpc".to_owned(), "mesh/rpc/Cargo.toml".to_owned())];
        assert_eq!(libraries(&metadata), expected);
    }

    #[test]
    fn a_revision_without_the_crate_is_no_baseline() {
        let at = |manifest| at("v1".to_owned(), manifest);
        assert_eq!(at(Some("[package]")), Baseline::Revision("v1".to_owned()));
        let missing = |reason: &str| Baseline::Missing(reason.to_owned());
        assert_eq!(at(None), missing("was not there at v1"));
        assert_eq!(
            at(Some("publish = false\n")),
            missing("was not to be published at v1")
        );
    }

    #[test]
    fn a_crate_that_nobody_could_have_has_promised_nothing() {
        assert!(is_published("[package]\nname = \"a\"\n"));
        assert!(!is_published("[package]\npublish.workspace = true\n"));
        assert!(!is_published("[package]\npublish = false\n"));
    }
}
