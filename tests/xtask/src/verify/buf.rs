//! The contracts by buf: its lint rules, and whether they break those of an earlier commit.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use super::{Place, Verdict, tools};
use crate::process::{collect, command, output};

/// What buf reads: its configuration and the modules that it names.
const CONTRACTS: [&str; 3] = ["buf.yaml", "proto", "mesh/proto/proto"];

pub(super) fn lint(place: &Place) -> Result<Verdict> {
    let python = match tools::python(place) {
        Ok(python) => python,
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let files = output(command(python.join("buf")).arg("ls-files"))?
        .lines()
        .count();
    Ok(Verdict::of(
        collect(command(python.join("buf")).arg("lint"))?,
        format!("{files} files"),
    ))
}

pub(super) fn breaking(place: &Place) -> Result<Verdict> {
    let python = match tools::python(place) {
        Ok(python) => python,
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let root = crate::checkout::root();
    let Some(earlier) = earlier(&root)? else {
        return Ok(Verdict::Skipped(
            "no earlier commit here that has a buf.yaml".to_owned(),
        ));
    };
    // A copy instead of buf's own git input: that one clones, which a shallow checkout refuses.
    let copy = place.log("contracts-before");
    extract(&root, &earlier.commit, &copy)?;
    let ended = collect(
        command(python.join("buf"))
            .args(["breaking", "--against"])
            .arg(&copy),
    )?;
    Ok(Verdict::of(
        ended,
        format!("against {} ({:.12})", earlier.name, earlier.commit),
    ))
}

#[derive(Debug, PartialEq)]
struct Earlier {
    name: &'static str,
    commit: String,
}

/// What the contracts are compared with: the main branch as published, else the local one, else the
/// commit before. HEAD itself says nothing, unless the contracts were changed since.
fn earlier(root: &Path) -> Result<Option<Earlier>> {
    let head = commit(root, "HEAD")?;
    let changed = !collect(
        git(root)
            .args(["diff", "--quiet", "HEAD", "--"])
            .args(CONTRACTS),
    )?
    .status
    .success();
    for name in ["origin/main", "main", "HEAD~1"] {
        let Some(commit) = commit(root, name)? else {
            continue;
        };
        let has_contracts =
            collect(git(root).args(["cat-file", "-e", &format!("{commit}:buf.yaml")]))?
                .status
                .success();
        if has_contracts && (changed || Some(&commit) != head.as_ref()) {
            return Ok(Some(Earlier { name, commit }));
        }
    }
    Ok(None)
}

fn commit(root: &Path, name: &str) -> Result<Option<String>> {
    let ended = collect(git(root).args([
        "rev-parse",
        "--verify",
        "--quiet",
        &format!("{name}^{{commit}}"),
    ]))?;
    Ok(ended.status.success().then(|| ended.text.trim().to_owned()))
}

fn extract(root: &Path, commit: &str, into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::create_dir_all(into)?;
    let mut archive = git(root)
        .args(["archive", commit])
        .args(CONTRACTS)
        .stdout(Stdio::piped())
        .spawn()?;
    let contracts = archive.stdout.take().expect("standard output is piped");
    let unpacked = command("tar")
        .arg("-x")
        .arg("-C")
        .arg(into)
        .stdin(contracts)
        .status()?;
    if !(archive.wait()?.success() && unpacked.success()) {
        bail!("cannot take the contracts of {commit} out of git");
    }
    Ok(())
}

fn git(root: &Path) -> Command {
    let mut git = command("git");
    git.arg("-C").arg(root);
    git
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A repository with one commit that has no contracts.
    fn repository() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        run(
            &folder,
            "git init -q -b main && git commit -q --allow-empty -m start",
        );
        folder
    }

    fn run(folder: &TempDir, script: &str) {
        let mut shell = command("sh");
        shell.args(["-ec", script]).current_dir(folder);
        for role in ["AUTHOR", "COMMITTER"] {
            shell
                .env(format!("GIT_{role}_NAME"), "t")
                .env(format!("GIT_{role}_EMAIL"), "t@localhost");
        }
        let ended = collect(&mut shell).unwrap();
        assert!(ended.status.success(), "{}", ended.text);
    }

    const CONTRACTS_OF_1: &str = "mkdir -p proto mesh/proto/proto && echo 1 >buf.yaml \
        && echo 1 >proto/a.proto && echo 1 >mesh/proto/proto/b.proto && git add . && git commit -qm contracts";

    #[test]
    fn a_history_without_contracts_has_nothing_to_compare_with() {
        let folder = repository();
        run(&folder, CONTRACTS_OF_1);
        assert_eq!(earlier(folder.path()).unwrap(), None);
    }

    #[test]
    fn the_commit_before_serves_on_the_main_branch() {
        let folder = repository();
        run(&folder, CONTRACTS_OF_1);
        run(&folder, "echo 2 >proto/a.proto && git commit -qam change");
        assert_eq!(earlier(folder.path()).unwrap().unwrap().name, "HEAD~1");
    }

    #[test]
    fn a_branch_and_an_edit_are_compared_with_main() {
        let folder = repository();
        run(&folder, CONTRACTS_OF_1);
        run(&folder, "echo 2 >proto/a.proto");
        assert_eq!(earlier(folder.path()).unwrap().unwrap().name, "main");
        run(&folder, "git switch -qc topic && git commit -qam change");
        assert_eq!(earlier(folder.path()).unwrap().unwrap().name, "main");
    }

    #[test]
    fn the_earlier_contracts_are_copied_as_they_were() {
        let folder = repository();
        run(&folder, CONTRACTS_OF_1);
        run(&folder, "echo 2 >proto/a.proto && git commit -qam change");
        let copy = folder.path().join("copy");
        fs::create_dir_all(copy.join("left-over")).unwrap();
        extract(folder.path(), "HEAD~1", &copy).unwrap();
        assert_eq!(
            fs::read_to_string(copy.join("proto/a.proto")).unwrap(),
            "1\n"
        );
        assert!(!copy.join("left-over").exists());
    }
}
