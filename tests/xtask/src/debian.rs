//! Installing what a check needs from Debian, where that is allowed.
//!
//! Only as root and only where `apt-get` is; everybody else is told the package's name. Rust itself
//! links through `cc`, so a machine without a C compiler cannot even build xtask: `.ci/run` sees to it.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use crate::process::{self, collect, command, installed};

/// Makes sure of a program; `package` is what holds it on Debian.
pub fn ensure(program: &str, package: &str) -> Result<()> {
    if installed(program) {
        Ok(())
    } else {
        install(program, package)
    }
}

/// Makes sure that Python can make virtual environments, which Debian packages apart.
pub fn ensure_python() -> Result<()> {
    let able = |minimum: &str| {
        let script = format!("import sys, venv, ensurepip; sys.exit(sys.version_info < {minimum})");
        collect(command("python3").args(["-c", &script])).is_ok_and(|ended| ended.status.success())
    };
    if able("(3, 11)") {
        return Ok(());
    }
    install("python3 (3.11 or later) with venv", "python3-venv")?;
    if able("(3, 11)") {
        Ok(())
    } else {
        bail!("python3 is older than 3.11 or lacks venv")
    }
}

fn install(program: &str, package: &str) -> Result<()> {
    static UPDATED: AtomicBool = AtomicBool::new(false);
    if !installed("apt-get") || !root_user() {
        bail!("{program} is missing (Debian package {package})");
    }
    println!("installing Debian package {package}");
    if !UPDATED.swap(true, Ordering::Relaxed) {
        apt_get(&["update", "-qq"])?;
    }
    apt_get(&[
        "install",
        "-qq",
        "--yes",
        "--no-install-recommends",
        package,
    ])
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut apt_get = command("apt-get");
    let ended = collect(
        apt_get
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    if ended.status.success() {
        return Ok(());
    }
    let last = ended.text.lines().last().unwrap_or_default();
    bail!("{} failed: {last}", process::shown(&apt_get))
}

/// Whether this process may install and may change users.
pub fn root_user() -> bool {
    process::output(command("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}
