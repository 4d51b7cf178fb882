//! `cargo xtask mutants`: breaks the code on purpose and lists what no test noticed (cargo-mutants).
//!
//! Looks at the files whose decisions cost money when they are wrong: ledger, state machines, outbox;
//! they are found by name, so that a new one is covered from its first day. A mutant that survives for
//! a good reason is listed in `tests/xtask/mutants-allowed.txt` with that reason. Takes hours for all
//! of them: `--in-diff` and `--file` narrow it down.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::{
    checkout,
    process::{cargo, command, watch},
    servers::Servers,
};

/// The version that is installed below `target/tools`.
const VERSION: &str = "27.1.0";

/// Names of files, or of the folders that hold them, whose mutants must not survive.
const SUBJECTS: [&str; 7] = [
    "ledger",
    "state",
    "attempt",
    "capture",
    "refund",
    "reservation",
    "outbox",
];

/// Where the subjects are looked for.
const ROOMS: [&str; 4] = [
    "services/payment/src",
    "services/product/src",
    "mesh/events/src",
    "mesh/store/src",
];

/// How long the tests of one mutant may take, in seconds; several times what they take unbroken.
const TIMEOUT: &str = "90";
/// Random sequences a mutant has to survive: enough to notice it, few enough for hundreds of mutants.
const SEQUENCES: [(&str, &str); 2] = [("PAYMENT_SEQUENCES", "250"), ("SHOP_SEQUENCES", "100")];

/// What to mutate.
#[derive(clap::Args)]
pub struct Options {
    /// Only mutants in lines that this diff file changes.
    #[arg(long, value_name = "FILE")]
    in_diff: Option<PathBuf>,
    /// Only files whose path contains this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    file: Vec<String>,
    /// Leave out what an earlier run caught.
    #[arg(long)]
    resume: bool,
    /// List the mutants and test none.
    #[arg(long)]
    list: bool,
}

/// Tests the mutants; fails when one survives that is not allowed to.
pub fn run(options: &Options) -> Result<()> {
    let root = checkout::root();
    let target = checkout::target()?;
    let files = chosen(subjects(&root)?, &options.file);
    if files.is_empty() {
        bail!("no file is named like one of {}", SUBJECTS.join(", "));
    }
    if options.list {
        return pass(options, &files, &target, &["--list"], &[]);
    }
    // The stores' tests on PostgreSQL are among those that have to notice.
    let servers = Servers::start()?;
    let variables = servers.variables();
    // The tests beside the code are built in no time and notice most; only the rest is put before all tests.
    let again: &[&str] = if options.resume { &["--iterate"] } else { &[] };
    pass(
        options,
        &files,
        &target,
        &[again, &["--", "--lib"]].concat(),
        &variables,
    )?;
    pass(options, &files, &target, &["--iterate"], &variables)?;

    let read = |list| fs::read_to_string(target.join("mutants.out").join(list)).unwrap_or_default();
    for mutant in read("timeout.txt").lines() {
        println!("TIMED OUT {mutant}");
    }
    let caught = read("caught.txt") + &read("previously_caught.txt");
    let allowed = fs::read_to_string(root.join("tests/xtask/mutants-allowed.txt"))?;
    let whole = options.in_diff.is_none() && options.file.is_empty();
    judge(
        &caught,
        &read("missed.txt"),
        &allowed_mutants(&allowed)?,
        whole,
    )
}

/// Puts mutants of the files before tests.
fn pass(
    options: &Options,
    files: &[String],
    target: &Path,
    arguments: &[&str],
    variables: &[(&str, String)],
) -> Result<()> {
    let mut mutants = command(install(target)?);
    // Sources are copied and built apart; the copy's build folder stays, so that the next run is warm.
    // The whole workspace is listed, and each mutant is put before the tests of its own package.
    mutants.args(["mutants", "--workspace", "--no-shuffle", "--colors=never"]);
    mutants.args(["--timeout", TIMEOUT, "--test-tool"]);
    mutants.arg(if crate::process::installed("cargo-nextest") {
        "nextest"
    } else {
        "cargo"
    });
    mutants.arg("--output").arg(target);
    for file in files {
        mutants.arg("--file").arg(file);
    }
    if let Some(diff) = &options.in_diff {
        mutants.arg("--in-diff").arg(std::path::absolute(diff)?);
    }
    mutants
        .args(arguments)
        .env("CARGO_TARGET_DIR", target.join("mutants"))
        .envs(SEQUENCES)
        .envs(variables.iter().map(|(name, value)| (*name, value)));
    let ended = watch(&mut mutants)?;
    // 0: all caught. 2: some survived. 3: some timed out: a loop without end, or a machine that was too busy.
    if matches!(ended.status.code(), Some(0 | 2 | 3)) {
        Ok(())
    } else {
        bail!("cargo-mutants ended with {}", ended.status)
    }
}

/// The Rust files below the rooms that are subjects, relative to the root, in order.
fn subjects(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = ROOMS.iter().map(|room| root.join(room)).collect();
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
        {
            let path = entry?.path();
            let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if is_subject(&relative) {
                files.push(relative);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn is_subject(file: &str) -> bool {
    let Some(stem) = file.strip_suffix(".rs") else {
        return false;
    };
    let inside = ROOMS
        .iter()
        .find_map(|room| stem.strip_prefix(room))
        .unwrap_or_default();
    let mut names = inside.split('/').filter(|name| !name.is_empty());
    !stem.ends_with("/tests")
        && !stem.ends_with("_tests")
        && names.any(|name| SUBJECTS.contains(&name))
}

fn chosen(files: Vec<String>, texts: &[String]) -> Vec<String> {
    let wanted = |file: &String| texts.is_empty() || texts.iter().any(|text| file.contains(text));
    files.into_iter().filter(wanted).collect()
}

/// The pinned cargo-mutants, built from source on the first call.
fn install(target: &Path) -> Result<PathBuf> {
    let folder = target.join(format!("tools/cargo-mutants-{VERSION}"));
    let binary = folder.join("bin/cargo-mutants");
    if !binary.exists() {
        let mut install = cargo();
        install.args([
            "install",
            "--locked",
            "--quiet",
            "--version",
            VERSION,
            "cargo-mutants",
            "--root",
        ]);
        if !watch(install.arg(&folder))?.status.success() {
            bail!("cannot install cargo-mutants {VERSION}");
        }
    }
    Ok(binary)
}

/// A mutant without its line and column, which move: `src/a.rs: replace f -> bool with true`.
fn name(mutant: &str) -> String {
    let mut parts = mutant.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(file), Some(line), Some(column), Some(what))
            if line.parse::<u32>().is_ok() && column.parse::<u32>().is_ok() =>
        {
            format!("{file}:{what}")
        }
        _ => mutant.to_owned(),
    }
}

/// The mutants of the list that may survive, each with its reason: a line for the mutant, without line
/// and column, and below it an indented one that begins with `because`.
fn allowed_mutants(list: &str) -> Result<BTreeMap<String, String>> {
    let mut allowed = BTreeMap::new();
    let mut open: Option<String> = None;
    let lines = list
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    for line in lines {
        match (line.trim_start().strip_prefix("because "), open.take()) {
            (Some(reason), Some(mutant)) if line.starts_with(' ') => {
                allowed.insert(mutant, reason.to_owned());
            }
            (None, None) if !line.starts_with(' ') => open = Some(line.trim_end().to_owned()),
            (_, Some(mutant)) => bail!("no reason is given for {mutant:?}"),
            (_, None) => bail!("a reason belongs to no mutant: {line:?}"),
        }
    }
    match open {
        Some(mutant) => bail!("no reason is given for {mutant:?}"),
        None => Ok(allowed),
    }
}

/// Prints the survivors; fails for one that is not allowed, and after a whole run for an allowance that
/// nothing needs.
fn judge(
    caught: &str,
    missed: &str,
    allowed: &BTreeMap<String, String>,
    whole: bool,
) -> Result<()> {
    let caught = caught.lines().filter(|line| !line.is_empty()).count();
    let missed: Vec<_> = missed.lines().filter(|line| !line.is_empty()).collect();
    if whole && caught == 0 {
        bail!("no mutant was caught: nothing was tested");
    }
    let mut survivors = 0;
    for mutant in &missed {
        if let Some(reason) = allowed.get(&name(mutant)) {
            println!("allowed   {mutant}\n          because {reason}");
        } else {
            survivors += 1;
            println!("SURVIVED  {mutant}");
        }
    }
    let names: Vec<_> = missed.iter().map(|mutant| name(mutant)).collect();
    let stale: Vec<_> = allowed
        .keys()
        .filter(|mutant| whole && !names.contains(mutant))
        .collect();
    for mutant in &stale {
        println!("STALE     {mutant}");
    }
    println!(
        "mutants: {caught} caught, {} survived, {} of them allowed",
        missed.len(),
        missed.len() - survivors
    );
    match (survivors, stale.len()) {
        (0, 0) => Ok(()),
        (0, stale) => bail!("{stale} allowances are not needed any more"),
        (survivors, _) => bail!("{survivors} mutants survived that no reason allows"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_found_by_file_and_by_folder() {
        assert!(is_subject("services/payment/src/ledger.rs"));
        assert!(is_subject("services/product/src/reservation/place.rs"));
        assert!(is_subject("mesh/store/src/outbox.rs"));
        assert!(!is_subject("services/payment/src/config.rs"));
        assert!(!is_subject("services/payment/src/ledger/tests.rs"));
        assert!(!is_subject("services/payment/src/ledger.sql"));
        assert!(!is_subject("services/edge/src/ledger.rs"));
    }

    #[test]
    fn the_tree_has_subjects() {
        let files = subjects(&checkout::root()).unwrap();
        assert!(
            files.iter().any(|file| file.contains("outbox")),
            "{files:?}"
        );
    }

    #[test]
    fn a_mutant_is_named_without_its_place() {
        assert_eq!(
            name("mesh/store/src/outbox.rs:12:5: replace lease -> Vec<Event> with vec![]"),
            "mesh/store/src/outbox.rs: replace lease -> Vec<Event> with vec![]"
        );
    }

    #[test]
    fn survivors_need_a_reason_and_reasons_a_survivor() {
        let list = "# why\n\na.rs: replace f with ()\n    because it only logs\n";
        let allowed = allowed_mutants(list).unwrap();
        let caught = "b.rs:1:2: replace h with ()\n";
        assert!(judge(caught, "a.rs:1:2: replace f with ()\n", &allowed, true).is_ok());
        assert!(judge("", "", &allowed, false).is_ok());
        let error = judge(caught, "", &allowed, true).unwrap_err();
        assert!(error.to_string().contains("not needed"), "{error}");
        let error = judge("", "a.rs:1:2: replace f with ()\n", &allowed, true).unwrap_err();
        assert!(error.to_string().contains("nothing was tested"), "{error}");
        let error = judge(caught, "a.rs:1:2: replace g with ()\n", &allowed, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 mutants survived that no reason allows"
        );
    }

    #[test]
    fn an_allowance_without_a_reason_is_refused() {
        assert!(allowed_mutants("a.rs: replace f with ()\n").is_err());
        assert!(allowed_mutants("a.rs: x\nb.rs: y\n    because z\n").is_err());
        assert!(allowed_mutants("    because z\n").is_err());
    }
}
