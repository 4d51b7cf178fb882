//! What git says has changed since a branch left another one, edits that are not committed included.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context, Result, bail};

use crate::process::{collect, command, output};

/// The commit at which this branch left `base`.
pub(super) fn merge_base(root: &Path, base: &str) -> Result<String> {
    let ended = collect(git(root).args(["merge-base", base, "HEAD"]))?;
    if !ended.status.success() {
        bail!(
            "no common commit of {base:?} and HEAD is known here (a shallow clone?): {}",
            ended.text.trim()
        );
    }
    Ok(ended.text.trim().to_owned())
}

/// The files that are others than at `commit`, from the root; of a renamed one both names.
pub(super) fn files(root: &Path, commit: &str) -> Result<Vec<String>> {
    let changed =
        output(git(root).args(["diff", "--name-only", "--no-renames", "-z", commit, "--"]))?;
    let new = output(git(root).args(["ls-files", "--others", "--exclude-standard", "-z"]))?;
    let names = changed
        .split('\0')
        .chain(new.split('\0'))
        .filter(|name| !name.is_empty());
    let names: BTreeSet<_> = names.map(str::to_owned).collect();
    Ok(names.into_iter().collect())
}

/// What a file held at `commit`; empty where there was none.
pub(super) fn content(root: &Path, commit: &str, file: &str) -> Result<String> {
    let object = format!("{commit}:{file}");
    let there = collect(git(root).args(["cat-file", "-e", &object]))?;
    if !there.status.success() {
        return Ok(String::new());
    }
    output(git(root).args(["show", &object])).with_context(|| format!("reading {object}"))
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

    #[test]
    fn commits_edits_new_files_and_both_names_of_a_renamed_one_are_changes() {
        let folder = tempfile::tempdir().unwrap();
        run(
            &folder,
            "git init -q -b main; echo target >.gitignore; for f in a b c same; do echo $f >$f; done; \
             git add .; git commit -qm one; git branch topic; echo x >later; git add .; git commit -qm later; \
             git switch -q topic; echo 2 >a; git commit -qam two; git mv b moved; git commit -qm three; \
             echo 3 >c; echo 4 >new; echo 5 >target",
        );
        let base = merge_base(folder.path(), "main").unwrap();
        assert_eq!(
            files(folder.path(), &base).unwrap(),
            ["a", "b", "c", "moved", "new"]
        );
        assert_eq!(content(folder.path(), &base, "a").unwrap(), "a\n");
        assert_eq!(content(folder.path(), &base, "new").unwrap(), "");
    }

    #[test]
    fn an_unknown_base_is_named() {
        let folder = tempfile::tempdir().unwrap();
        run(
            &folder,
            "git init -q -b main; git commit -q --allow-empty -m one",
        );
        let error = merge_base(folder.path(), "nowhere")
            .unwrap_err()
            .to_string();
        assert!(error.contains("\"nowhere\""), "{error}");
    }
}
