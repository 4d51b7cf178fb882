//! Installing the tools of the checks: one Python environment and one folder of npm packages.
//!
//! Both are pinned (`requirements.txt` with hashes, `package-lock.json` with integrity sums), lie below
//! `target/tools` in a folder named after their pins, and are installed once. Node.js comes as a Python
//! package too, so that the machine needs none.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::Place;
use crate::{
    debian,
    process::{collect, command},
};

/// Written last: a folder without it was left half installed.
const COMPLETE: &str = ".complete";

/// The folder of the Python environment's programs: buf, node, schemathesis, python.
pub(super) fn python(place: &Place) -> Result<PathBuf> {
    environment(&place.tools, &Place::config("requirements.txt"))
}

/// The folder of the programs of a Python environment below `tools` that holds what `pins`, a
/// `requirements.txt` with hashes, names.
pub fn environment(tools: &Path, pins: &Path) -> Result<PathBuf> {
    let folder = install(tools, "python", pins, |folder| {
        debian::ensure_python()?;
        quietly(
            command("python3")
                .args(["-m", "venv", "--clear"])
                .arg(folder),
        )?;
        quietly(
            command(folder.join("bin/python"))
                .args([
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                ])
                .args(["--require-hashes", "--only-binary=:all:", "--requirement"])
                .arg(pins),
        )
    })?;
    Ok(folder.join("bin"))
}

/// The folder of the npm packages' programs, and a PATH on which they find Node.js.
pub(super) fn npm(place: &Place) -> Result<(PathBuf, std::ffi::OsString)> {
    let python = python(place)?;
    let path = std::env::join_paths(std::iter::once(python.clone()).chain(std::env::split_paths(
        &std::env::var_os("PATH").unwrap_or_default(),
    )))?;
    let lock = Place::config("package-lock.json");
    let folder = install(&place.tools, "npm", &lock, |folder| {
        fs::create_dir_all(folder)?;
        for name in ["package.json", "package-lock.json"] {
            fs::copy(Place::config(name), folder.join(name))?;
        }
        // No package gets to run a script of its own while it is installed.
        quietly(
            command(python.join("npm"))
                .args([
                    "ci",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                    "--no-update-notifier",
                ])
                .current_dir(folder)
                .env("PATH", &path),
        )
    })?;
    Ok((folder.join("node_modules/.bin"), path))
}

/// Fills a folder named after the content of `pins`, unless an earlier run has.
fn install(
    tools: &Path,
    kind: &str,
    pins: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let content = fs::read(pins).with_context(|| format!("cannot read {}", pins.display()))?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let folder = tools.join(format!("{kind}-{:016x}", hasher.finish()));
    if !folder.join(COMPLETE).exists() {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        println!("installing the {kind} tools below {}", tools.display());
        fill(&folder).with_context(|| format!("cannot install the {kind} tools"))?;
        fs::write(folder.join(COMPLETE), "")?;
    }
    Ok(folder)
}

fn quietly(command: &mut Command) -> Result<()> {
    let ended = collect(command)?;
    if ended.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    // The first line that speaks of an error says what is wrong; later ones say what to read.
    let said = ended
        .text
        .lines()
        .find(|line| line.to_lowercase().contains("error"));
    bail!(
        "{program} failed: {}",
        said.or(ended.text.lines().last())
            .unwrap_or_default()
            .trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_are_installed_once_and_again_when_pins_change() {
        let tools = tempfile::tempdir().unwrap();
        let pins = tools.path().join("pins.txt");
        let mut times = 0;
        for (content, expected) in [("a==1", 1), ("a==1", 1), ("a==2", 2)] {
            fs::write(&pins, content).unwrap();
            let fill = |folder: &Path| {
                times += 1;
                Ok(fs::create_dir_all(folder)?)
            };
            install(tools.path(), "python", &pins, fill).unwrap();
            assert_eq!(times, expected);
        }
    }

    #[test]
    fn a_half_installed_folder_is_begun_anew() {
        let tools = tempfile::tempdir().unwrap();
        let pins = tools.path().join("pins.txt");
        fs::write(&pins, "a==1").unwrap();
        let broken = |folder: &Path| {
            fs::create_dir_all(folder)?;
            fs::write(folder.join("left-over"), "")?;
            bail!("no network")
        };
        let error = install(tools.path(), "python", &pins, broken).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "cannot install the python tools: no network"
        );
        let folder = install(tools.path(), "python", &pins, |folder| {
            Ok(fs::create_dir_all(folder)?)
        })
        .unwrap();
        assert!(!folder.join("left-over").exists());
    }

    #[test]
    fn a_failing_installer_is_quoted() {
        let script =
            "echo start; echo 'ERROR: no matching distribution'; echo see the manual; exit 1";
        let error = quietly(command("sh").args(["-c", script])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "sh failed: ERROR: no matching distribution"
        );
    }
}
