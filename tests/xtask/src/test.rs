//! `cargo xtask test`: formatting, lints, light tests, heavy tests; in this order.
//!
//! Light tests need nothing but the code: unit and contract tests of every crate and the house rules.
//! Heavy ones are the scenarios of crate `tests` (whole shops over REST and real gRPC) and every test target
//! whose name ends in `_postgres` or `_rabbitmq`: those get private servers, which are installed where they are
//! missing and that is allowed, and are SKIPPED by name where it is not. Besides them nothing but Rust and a C
//! compiler (SQLite is built from source) has to be there; cargo-nextest is used when it is.
//! A step that fails does not keep the later ones from running; the exit status tells of all. One file, for every step
//! is counted, timed and told of in the same way.

use std::{
    collections::BTreeSet,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use serde_json::Value;

use crate::{
    checkout, faults,
    process::{cargo, installed, plain, watch},
    servers::{self, Servers},
};

/// The package whose integration tests are heavy.
const SCENARIOS: &str = "tests";
/// How the names of test targets end that need a server.
const SERVED: [&str; 2] = ["_postgres", "_rabbitmq"];
/// The one of them that reads sources instead of running a shop.
pub(crate) const HOUSE_RULES: &str = "house_rules";

/// What to test.
#[derive(clap::Args)]
pub struct Options {
    /// Leave out the heavy tests.
    #[arg(long)]
    light: bool,
    /// Fail where the servers are missing, instead of skipping what needs them: for pipelines.
    #[arg(long, conflicts_with = "light")]
    no_skips: bool,
}

/// Runs the steps, then prints what each took and the sum of all tests.
pub fn run(options: &Options) -> Result<()> {
    let mut suites = Suites::read(&checkout::metadata()?);
    let mut skipped = Vec::new();
    if options.light {
        suites = suites.light_only();
    } else if let Err(error) = servers::install() {
        if options.no_skips {
            return Err(error.context("the servers are missing"));
        }
        skipped = std::mem::take(&mut suites.served);
        skipped.append(&mut suites.faults);
        println!("the servers are missing: {error:#}");
    }
    run_steps(&suites, &Selection::Workspace, skipped)
}

/// Formatting, lints and light tests of some crates only.
pub(crate) fn run_light(crates: &BTreeSet<String>) -> Result<()> {
    let metadata = checkout::metadata()?;
    let selection = Selection::of(&metadata, crates);
    let suites = Suites::read(&selection.within(metadata)).light_only();
    run_steps(&suites, &selection, Vec::new())
}

fn run_steps(suites: &Suites, selection: &Selection, skipped: Vec<String>) -> Result<()> {
    let mut ended = Vec::new();
    for (name, mut command) in steps(installed("cargo-nextest"), suites, selection) {
        println!("\n== {name}");
        let started = Instant::now();
        let servers = match name {
            HEAVY | ON_SERVERS if !suites.served.is_empty() => Some(Servers::start()?),
            _ => None,
        };
        command.envs(servers.iter().flat_map(Servers::variables));
        if name == FAULTS {
            let programs = checkout::build_all(&faults::PROGRAMS, false)?;
            let folder = faults::folder_of(&programs[0])?;
            command.env(faults::PROGRAMS_VARIABLE, folder);
        }
        let step = watch(&mut command)?;
        ended.push(Ended {
            name,
            succeeded: step.status.success(),
            counts: Counts::read(&plain(&step.text)),
            took: started.elapsed(),
        });
    }
    for suite in skipped {
        println!("SKIPPED {suite}: no server");
    }
    report(&ended)
}

/// The steps that servers are started for.
const HEAVY: &str = "heavy tests";
const ON_SERVERS: &str = "on servers";
/// The step that kills and restarts processes.
const FAULTS: &str = "faults";
/// Its test targets: the fault harness, and rolling restarts.
const KILLING: [&str; 2] = [FAULTS, "roll"];
/// The suite that runs once on embedded storage and once on servers.
const SCENARIO_SUITE: &str = "scenarios";
/// What of it plants bugs into files, meddles while a provider thinks (a copy of a database takes longer), or
/// needs the faults of the bus in memory.
const EMBEDDED_ONLY: [&str; 4] = [
    "planted_bugs",
    "a_commit_that_fails_after_a_one_step_charge_is_refunded",
    "trace_and_principal_arrive_at_the_far_end",
    "a_bus_that_loses_repeats_delays_and_reorders_changes_no_figure",
];

/// The names of the integration tests of the workspace.
#[derive(Debug, Default, PartialEq)]
struct Suites {
    light: Vec<String>,
    heavy: Vec<String>,
    /// Heavy ones that need a server.
    served: Vec<String>,
    /// Those of [`KILLING`], which have servers of their own.
    faults: Vec<String>,
}

/// Which packages cargo is told to look at.
enum Selection {
    /// All.
    Workspace,
    /// These, and which of them have a library.
    Packages {
        names: Vec<String>,
        libraries: Vec<String>,
    },
}

impl Selection {
    fn of(metadata: &Value, crates: &BTreeSet<String>) -> Selection {
        let has_library = |package: &&Value| {
            let targets = package["targets"].as_array().into_iter().flatten();
            targets.into_iter().any(|target| target["kind"][0] == "lib")
        };
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let name = |package: &Value| package["name"].as_str().unwrap_or_default().to_owned();
        let packages = packages.filter(|package| crates.contains(&name(package)));
        Selection::Packages {
            libraries: packages.clone().filter(has_library).map(name).collect(),
            names: packages.map(name).collect(),
        }
    }

    /// The same metadata with the selected packages only.
    fn within(&self, mut metadata: Value) -> Value {
        if let (Selection::Packages { names, .. }, Some(packages)) =
            (self, metadata["packages"].as_array_mut())
        {
            packages.retain(|package| names.iter().any(|name| package["name"] == **name));
        }
        metadata
    }

    /// The arguments that say so; `whole` where all are meant.
    fn arguments(&self, whole: &'static str) -> Vec<&str> {
        match self {
            Selection::Workspace => vec![whole],
            Selection::Packages { names, .. } => packages(names),
        }
    }

    /// The same for what only libraries have; none where there is no library.
    fn libraries(&self) -> Option<Vec<&str>> {
        match self {
            Selection::Workspace => Some(vec!["--workspace"]),
            Selection::Packages { libraries, .. } => {
                (!libraries.is_empty()).then(|| packages(libraries))
            }
        }
    }
}

fn packages(names: &[String]) -> Vec<&str> {
    names.iter().flat_map(|name| ["--package", name]).collect()
}

impl Suites {
    /// Without those that start a shop or need a server.
    fn light_only(self) -> Suites {
        Suites {
            light: self.light,
            ..Suites::default()
        }
    }

    fn read(metadata: &Value) -> Suites {
        let mut suites = Suites::default();
        for package in metadata["packages"].as_array().into_iter().flatten() {
            let targets = package["targets"].as_array().into_iter().flatten();
            // What wants a feature that nobody else has is run by a check of its own (`verify`).
            let builds = |target: &&Value| {
                target["required-features"]
                    .as_array()
                    .is_none_or(Vec::is_empty)
            };
            let tests = targets.filter(|target| target["kind"][0] == "test");
            for target in tests.filter(builds) {
                let name = target["name"].as_str().unwrap_or_default().to_owned();
                if KILLING.contains(&name.as_str()) {
                    suites.faults.push(name);
                } else if SERVED.iter().any(|end| name.ends_with(end)) {
                    suites.served.push(name);
                } else if package["name"] == SCENARIOS && name != HOUSE_RULES {
                    suites.heavy.push(name);
                } else {
                    suites.light.push(name);
                }
            }
        }
        suites
    }
}

/// Each step's name and command. The whole workspace is selected as one: with fewer packages cargo would
/// choose fewer features for what they depend on, and compile it again.
fn steps(nextest: bool, suites: &Suites, selection: &Selection) -> Vec<(&'static str, Command)> {
    let step = |name, arguments: &[&str], selected: &[&str], more: &[&str]| {
        let mut command = cargo();
        command.args(arguments).args(selected).args(more);
        (name, command)
    };
    let selected = selection.arguments("--workspace");
    let runner: &[&str] = if nextest {
        &["nextest", "run", "--no-fail-fast", "--no-tests=pass"]
    } else {
        &["test", "--no-fail-fast"]
    };
    let tests = |name, targets: &[&str], suites: &mut dyn Iterator<Item = &String>| {
        let suites = suites.flat_map(|suite| ["--test", suite]);
        let targets: Vec<_> = targets.iter().copied().chain(suites).collect();
        step(name, runner, &selected, &targets)
    };
    let clippy = ["--all-targets", "--", "-D", "warnings"];
    let libraries = selection.libraries();
    let units: &[&str] = if libraries.is_some() {
        &["--lib", "--bins"]
    } else {
        &["--bins"]
    };
    let mut steps = vec![
        step(
            "format",
            &["fmt", "--check"],
            &selection.arguments("--all"),
            &[],
        ),
        step("clippy", &["clippy"], &selected, &clippy),
        tests("light tests", units, &mut suites.light.iter()),
    ];
    if let Some(libraries) = &libraries {
        let doc = ["test", "--doc", "--no-fail-fast"];
        steps.push(step("doc tests", &doc, libraries, &[]));
    }
    let mut heavy = suites.heavy.iter().chain(&suites.served).peekable();
    if heavy.peek().is_some() {
        steps.push(tests(HEAVY, &[], &mut heavy));
    }
    if !suites.served.is_empty() {
        let suite = SCENARIO_SUITE.to_owned();
        let (name, mut again) = tests(ON_SERVERS, &[], &mut [&suite].into_iter());
        again.env("SHOP_BACKING", "servers");
        again.arg("--");
        again.args(EMBEDDED_ONLY.iter().flat_map(|test| ["--skip", test]));
        steps.push((name, again));
    }
    if !suites.faults.is_empty() {
        let (name, mut faults) = tests(FAULTS, &[], &mut suites.faults.iter());
        // One after the other: each has servers of its own. What they print is what they are run for.
        let alone: &[&str] = if nextest {
            &["--no-capture"]
        } else {
            &["--", "--test-threads=1", "--nocapture"]
        };
        faults.args(alone);
        steps.push((name, faults));
    }
    steps
}

struct Ended {
    name: &'static str,
    succeeded: bool,
    counts: Counts,
    took: Duration,
}

fn report(ended: &[Ended]) -> Result<()> {
    println!();
    let mut sum = Counts::default();
    for step in ended {
        let verdict = if step.succeeded { "ok" } else { "FAILED" };
        println!(
            "{:<12} {verdict:<6} {:>6.1} s  {}",
            step.name,
            step.took.as_secs_f64(),
            step.counts
        );
        sum.passed += step.counts.passed;
        sum.failed += step.counts.failed;
    }
    let took: Duration = ended.iter().map(|step| step.took).sum();
    println!("{:<19} {:>6.1} s", "all", took.as_secs_f64());
    println!("{} passed, {} failed", sum.passed, sum.failed);
    let failed: Vec<_> = ended
        .iter()
        .filter(|step| !step.succeeded)
        .map(|step| step.name)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failed.join(", "))
    }
}

/// How many tests passed and how many did not.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    passed: usize,
    failed: usize,
}

impl Counts {
    /// Adds up the closing lines of nextest (`Summary [ 0.1s] 3 tests run: 2 passed, 1 failed`) and of
    /// cargo test (`test result: ok. 3 passed; 0 failed; 0 ignored; …`).
    fn read(output: &str) -> Counts {
        let mut counts = Counts::default();
        for line in output.lines() {
            let closing = if line.trim_start().starts_with("Summary [") {
                line.split_once("run:").map(|(_, closing)| closing)
            } else {
                // Indented, it is what nextest quotes of a test that failed, which its own line counts.
                line.strip_prefix("test result: ")
                    .and_then(|rest| rest.split_once(". "))
                    .map(|(_, c)| c)
            };
            for part in closing.unwrap_or_default().split([',', ';']) {
                let mut words = part.split_whitespace();
                let Some(Ok(number)) = words.next().map(str::parse::<usize>) else {
                    continue;
                };
                match words.next() {
                    Some("passed") => counts.passed += number,
                    // nextest counts a test that could not start or did not end apart.
                    Some("failed" | "timed" | "exec") => counts.failed += number,
                    _ => {}
                }
            }
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if *self == Counts::default() {
            return Ok(());
        }
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_of_nextest_are_added_up() {
        let output = "
        PASS [   0.004s] (1/9) xtask process::tests::colours
     Summary [   1.503s] 9/10 tests run: 4 passed (1 slow, 1 flaky), 2 failed, 2 timed out, 1 exec failed, 3 skipped
";
        assert_eq!(
            Counts::read(output),
            Counts {
                passed: 4,
                failed: 5
            }
        );
    }

    #[test]
    fn a_failed_test_counts_once_though_nextest_quotes_it() {
        let output = "
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 54 filtered out; finished in 0.37s

     Summary [  51.001s] 49 tests run: 48 passed, 1 failed, 6 skipped
";
        assert_eq!(
            Counts::read(output),
            Counts {
                passed: 48,
                failed: 1
            }
        );
    }

    #[test]
    fn closing_lines_of_cargo_test_are_added_up() {
        let output = "
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 5 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.10s
";
        assert_eq!(
            Counts::read(output),
            Counts {
                passed: 8,
                failed: 1
            }
        );
    }

    #[test]
    fn scenarios_are_heavy_and_house_rules_are_not() {
        let metadata = serde_json::json!({"packages": [
            {"name": "mesh", "targets": [{"kind": ["lib"], "name": "mesh"}, {"kind": ["test"], "name": "wire"},
                {"kind": ["test"], "name": "featured", "required-features": ["tls"]}]},
            {"name": "tests", "targets": [
                {"kind": ["test"], "name": "house_rules"}, {"kind": ["test"], "name": "purchase"},
                {"kind": ["test"], "name": "faults"}, {"kind": ["test"], "name": "roll"}
            ]},
            {"name": "store", "targets": [{"kind": ["test"], "name": "store_postgres"}]},
        ]});
        let suites = Suites::read(&metadata);
        assert_eq!(
            (
                suites.light.join(" "),
                suites.heavy.join(" "),
                suites.served.join(" ")
            ),
            (
                "wire house_rules".into(),
                "purchase".into(),
                "store_postgres".into()
            )
        );

        let shown = |suites: &Suites| {
            let steps = steps(true, suites, &Selection::Workspace);
            steps
                .iter()
                .map(|(_, command)| crate::process::shown(command))
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert!(shown(&suites).contains("--lib --bins --test wire --test house_rules\n"));
        assert!(shown(&suites).contains("--workspace --test purchase --test store_postgres\n"));
        assert!(shown(&suites).contains("--test scenarios -- --skip planted_bugs --skip"));
        assert!(shown(&suites).ends_with("--test faults --test roll --no-capture"));
        assert!(!shown(&suites.light_only()).contains("purchase"));
    }

    #[test]
    fn some_crates_are_tested_without_the_others() {
        let metadata = serde_json::json!({"packages": [
            {"name": "mesh", "targets": [{"kind": ["lib"], "name": "mesh"}, {"kind": ["test"], "name": "wire"}]},
            {"name": "ctl", "targets": [{"kind": ["bin"], "name": "ctl"}]},
            {"name": "edge", "targets": [{"kind": ["lib"], "name": "edge"}, {"kind": ["test"], "name": "edge"}]},
        ]});
        let shown = |crates: &[&str]| {
            let crates = crates.iter().map(ToString::to_string).collect();
            let selection = Selection::of(&metadata, &crates);
            let suites = Suites::read(&selection.within(metadata.clone())).light_only();
            let steps = steps(true, &suites, &selection);
            let steps = steps
                .iter()
                .map(|(_, command)| crate::process::shown(command));
            steps.collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&["ctl", "mesh"]),
            [
                "cargo fmt --check --package mesh --package ctl",
                "cargo clippy --package mesh --package ctl --all-targets -- -D warnings",
                "cargo nextest run --no-fail-fast --no-tests=pass --package mesh --package ctl --lib --bins --test wire",
                "cargo test --doc --no-fail-fast --package mesh",
            ]
        );
        // Cargo refuses `--lib` and `--doc` where there is no library at all.
        assert_eq!(
            shown(&["ctl"])[2..],
            ["cargo nextest run --no-fail-fast --no-tests=pass --package ctl --bins"]
        );
    }

    #[test]
    fn a_failed_step_fails_the_whole() {
        let step = |succeeded| Ended {
            name: "clippy",
            succeeded,
            counts: Counts::default(),
            took: Duration::ZERO,
        };
        assert!(report(&[step(true)]).is_ok());
        assert_eq!(
            report(&[step(true), step(false)]).unwrap_err().to_string(),
            "failed: clippy"
        );
    }
}
