//! The shared libraries that a program needs, as the loader of this machine finds them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use crate::process::{command, output};

/// A file that the program cannot start without.
#[derive(Clone, Debug)]
pub(super) struct Library {
    /// Where the loader looks for it.
    pub(super) path: String,
    /// What is there.
    pub(super) content: Vec<u8>,
}

/// All that the program names, what those name, and the loader itself.
pub(super) fn needed_by(binary: &Path) -> Result<Vec<Library>> {
    let said = output(command("ldd").arg(binary))?;
    let paths = paths(&said).with_context(|| format!("ldd {}", binary.display()))?;
    let read = |path: &str| {
        let content = fs::read(path).with_context(|| format!("cannot read {path}"))?;
        let path = path.to_owned();
        Ok(Library { path, content })
    };
    paths.into_iter().map(read).collect()
}

/// What ldd says, line by line: `name => path (address)`, the loader as `path (address)`, and the kernel's own
/// (`linux-vdso.so.1`), which is no file.
fn paths(said: &str) -> Result<Vec<&str>> {
    let mut paths = Vec::new();
    for line in said.lines().map(str::trim) {
        if line.contains("not found") {
            bail!("{line}");
        }
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        let path = place.split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    if paths.is_empty() {
        bail!("no library at all: {}", said.trim());
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_found_and_the_kernel_is_not() {
        let said = "
            linux-vdso.so.1 (0x00007ffc1)
            libgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f1)
            libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2)
            /lib64/ld-linux-x86-64.so.2 (0x00007f3)
        ";
        let expected = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(paths(said).unwrap(), expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = paths("libssl.so.3 => not found").unwrap_err().to_string();
        assert_eq!(error, "libssl.so.3 => not found");
        let error = paths("\tstatically linked\n").unwrap_err().to_string();
        assert_eq!(error, "no library at all: statically linked");
    }
}
