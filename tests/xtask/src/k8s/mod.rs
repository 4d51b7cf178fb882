//! `cargo xtask k8s check`: what `kubectl apply -k` would send, looked at without a cluster.
//!
//! Every overlay is rendered, validated against strict schemas, checked by checkov, and by own policies that compare it
//! with the code: programs, ports, health names, configuration, calls. Each policy has mutations of the rendered
//! manifests that it must catch; the list is printed. Deliberately missing: anything that asks a cluster.

pub(crate) mod architecture;
mod checkov;
mod code;
mod config;
pub(crate) mod manifests;
mod network;
mod policies;
mod policy;
mod render;
mod schemas;

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Result, bail};

use crate::{checkout, verify};

/// What came of a check.
pub(crate) enum Outcome {
    /// Everything was looked at and nothing found; what was looked at, and the whole report.
    Passed(String, String),
    /// Something was found: the whole report.
    Failed(String),
    /// The tools cannot be had here, and why.
    Skipped(String),
}

/// How to check.
#[derive(clap::Args)]
pub struct Options {
    /// Fail where the tools cannot be had, instead of skipping: for pipelines, in which a check that has looked at nothing
    /// must not be green.
    #[arg(long)]
    no_skips: bool,
}

/// Checks and prints the report; fails when it finds something.
pub fn run(options: &Options) -> Result<()> {
    let target = checkout::target()?;
    let (tools, logs) = (target.join("tools"), target.join("k8s"));
    match check(&tools, &logs)? {
        Outcome::Passed(sum, report) => println!("{report}k8s: {sum}"),
        Outcome::Skipped(reason) if options.no_skips => bail!("nothing was checked: {reason}"),
        Outcome::Skipped(reason) => println!("SKIPPED k8s: {reason}"),
        Outcome::Failed(report) => {
            print!("{report}");
            bail!("the manifests have findings");
        }
    }
    Ok(())
}

/// Checks everything, with tools installed below `tools`; rendered manifests stay in `logs`.
pub(crate) fn check(tools: &Path, logs: &Path) -> Result<Outcome> {
    for folder in [tools, logs] {
        fs::create_dir_all(folder)?;
    }
    let pins = checkout::root().join("tests/verify/kubernetes/requirements.txt");
    let python = match verify::environment(tools, &pins) {
        Ok(python) => python,
        Err(reason) => return Ok(Outcome::Skipped(format!("{reason:#}"))),
    };
    let code = code::Code::read()?;
    let configs = config::Reader::build()?;
    let overlays = render::overlays(&python.join("kubectl"), logs)?;
    let mut report = Report::default();
    for policy in policies::all() {
        let verdict = policy::judge(policy, &overlays, &code, &configs);
        report.section(
            policy.name,
            verdict.findings,
            &verdict.caught,
            verdict.missed,
        );
    }
    let schemas = schemas::validate(&python, &overlays, logs)?;
    let caught: Vec<_> = schemas.caught.iter().map(|says| (*says, 1)).collect();
    report.section("schemas", schemas.findings, &caught, schemas.missed);
    let checkov = checkov::check(&python, &overlays)?;
    report.section("checkov", checkov.findings, &[], Vec::new());
    let sum = format!(
        "{} overlays, {} objects; {} policies and the schemas catch {} mutations; checkov: {} passed, {} kept for a reason",
        overlays.len(),
        schemas.objects,
        policies::all().len(),
        report.caught,
        checkov.passed,
        checkov.reasoned
    );
    Ok(if report.wrong == 0 {
        Outcome::Passed(sum, report.text)
    } else {
        Outcome::Failed(report.text)
    })
}

/// What is printed.
#[derive(Default)]
struct Report {
    text: String,
    /// Mutations that were caught.
    caught: usize,
    /// Findings, and mutations that were not caught.
    wrong: usize,
}

impl Report {
    fn section(
        &mut self,
        name: &str,
        findings: Vec<String>,
        caught: &[(&str, usize)],
        missed: Vec<String>,
    ) {
        self.line(format_args!("\n{name}"));
        self.wrong += findings.len() + missed.len();
        for finding in findings {
            self.line(format_args!("  FOUND   {finding}"));
        }
        for (says, overlays) in caught.iter().filter(|(_, overlays)| *overlays > 0) {
            self.caught += 1;
            self.line(format_args!("  caught  {says} ({overlays})"));
        }
        for says in missed {
            self.line(format_args!("  MISSED  {says}"));
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a String takes everything");
    }
}
