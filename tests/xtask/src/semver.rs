//! `cargo xtask semver`: whether the crates that others use keep what they promised (cargo-semver-checks).
//!
//! Before a release: `cargo xtask semver --baseline v0.1.0` compares the public items of each library under mesh/
//! with those at that revision and fails where the version does not say what has changed. Says SKIPPED by name
//! for what cannot be compared: no tool, no such crate at the baseline.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
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
    /// The revision that was released: a tag, a branch, a commit.
    #[arg(long, value_name = "REF")]
    baseline: String,
}

/// Compares every library under mesh/ with the baseline.
pub fn run(options: &Options) -> Result<()> {
    let baseline = &options.baseline;
    let known = git(&[
        "rev-parse",
        "--verify",
        "--quiet",
        &format!("{baseline}^{{commit}}"),
    ])?;
    ensure!(
        known.is_some(),
        "the repository has no revision {baseline:?}"
    );
    let target = checkout::target()?;
    let tool = match install(&target) {
        Ok(tool) => tool,
        Err(reason) => {
            println!("SKIPPED semver: {reason:#}");
            return Ok(());
        }
    };
    let mut broken = Vec::new();
    for (name, manifest) in libraries(&checkout::metadata()?) {
        // A crate that was not published then has promised nothing.
        let then = git(&["show", &format!("{baseline}:{manifest}")])?;
        if !then.is_some_and(|text| is_published(&text)) {
            println!("SKIPPED {name}: not published at {baseline}");
            continue;
        }
        let mut checking = command(&tool);
        checking
            .args(["semver-checks", "--package", &name])
            .args(["--baseline-rev", baseline])
            .env("CARGO_TARGET_DIR", target.join("semver"));
        let ended = watch(&mut checking)?;
        println!(
            "RAN {name} … {}",
            if ended.status.success() {
                "ok"
            } else {
                "failed"
            }
        );
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
    fn a_crate_that_nobody_could_have_has_promised_nothing() {
        assert!(is_published("[package]\nname = \"a\"\n"));
        assert!(!is_published("[package]\npublish.workspace = true\n"));
        assert!(!is_published("[package]\npublish = false\n"));
    }
}
