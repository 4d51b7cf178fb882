//! Where things are: the checkout's root, its build folder, its packages.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{process, test};

/// The root of the checkout that cargo was called for; without cargo, of the one that this was built from.
/// The two differ when several checkouts share a build folder.
pub fn root() -> PathBuf {
    let called = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    called
        .iter()
        .flat_map(|folder| folder.ancestors())
        .chain(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors())
        .find(|folder| folder.join("tests/xtask/Cargo.toml").is_file())
        .expect("xtask lies in a checkout")
        .to_owned()
}

/// What `cargo metadata` says about the workspace, without its dependencies.
pub fn metadata() -> Result<Value> {
    let answer = process::output(process::cargo().args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version=1",
    ]))?;
    serde_json::from_str(&answer).context("cargo metadata answers JSON")
}

/// Cargo's build folder; all that xtask installs or writes lies below it.
pub fn target() -> Result<PathBuf> {
    match metadata()?["target_directory"].as_str() {
        Some(folder) => Ok(folder.into()),
        None => bail!("cargo metadata names no target_directory"),
    }
}

/// Builds a binary of the workspace (debug) and answers where it lies.
pub fn build(binary: &str) -> Result<PathBuf> {
    Ok(build_all(&[binary], false)?.remove(0))
}

/// Builds binaries of the workspace and answers where they lie. Debug ones are selected like the tests are,
/// with one of them beside: their dependencies then have the features that they have there, and what
/// `cargo xtask test` has compiled is not compiled again.
pub fn build_all(binaries: &[&str], release: bool) -> Result<Vec<PathBuf>> {
    let mut build = process::cargo();
    build.args([
        "build",
        "--workspace",
        "--message-format=json-render-diagnostics",
    ]);
    build.args(if release {
        &["--release"][..]
    } else {
        &["--test", test::HOUSE_RULES]
    });
    build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    places(&mut build, binaries)
}

/// Builds optimised binaries of these packages alone: the whole workspace, optimised, takes long, and nobody looks
/// at the rest of it. Answers where they lie. They name no place of the machine that built them, so that another one
/// builds the same bytes.
pub fn build_released(packages: &[&str], binaries: &[&str]) -> Result<Vec<PathBuf>> {
    let mut build = process::cargo();
    build.args([
        "build",
        "--release",
        "--locked", // What is released was reviewed.
        "--message-format=json-render-diagnostics",
    ]);
    let flags: Vec<_> = builders_places()?
        .iter()
        .map(|(place, name)| format!("--remap-path-prefix={}={name}", place.display()))
        .collect();
    build
        .arg("--config")
        .arg(format!("build.rustflags = {flags:?}"));
    build.args(packages.iter().flat_map(|package| ["--package", package]));
    build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
    places(&mut build, binaries)
}

/// The folders of this machine whose files a compiler names in programs, for panics and backtraces, and what released
/// programs call them. Where one lies in another, the inner one comes later: rustc takes the last that fits.
pub fn builders_places() -> Result<Vec<(PathBuf, &'static str)>> {
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let cargo_home = cargo_home.context("neither CARGO_HOME nor HOME is set")?;
    Ok(vec![
        (root(), "/source"),
        (target()?, "/target"),
        (cargo_home, "/cargo"),
    ])
}

/// Builds, and finds the binaries among what cargo says.
fn places(build: &mut Command, binaries: &[&str]) -> Result<Vec<PathBuf>> {
    let messages = process::output(build)?;
    let artifacts: Vec<_> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .collect();
    let place = |binary: &&str| {
        let mut built = artifacts
            .iter()
            .filter(|message| message["target"]["name"] == **binary);
        built
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("no package has a binary {binary:?}"))
    };
    binaries.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[workspace]"));
    }

    #[test]
    fn the_build_folder_is_known() {
        assert!(target().unwrap().is_absolute());
    }
}
