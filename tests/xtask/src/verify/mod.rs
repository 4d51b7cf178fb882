//! `cargo xtask verify`: checks from outside, each by name.
//!
//! Every check prints one line, `RAN name … ok`, `RAN name … failed` or `SKIPPED name: reason`; what a
//! failed one had to say follows. Skipped is only what this machine cannot run: a tool that cannot be
//! installed, or nothing to compare with. What a check prints is also kept in `target/verify/`.
//!
//! The tools are Python and npm packages, pinned with their hashes in `tests/verify/` and installed
//! below `target/tools`; Python, Chromium and its driver are Debian packages.

mod browser;
mod buf;
mod image;
mod interop;
mod k8s;
mod new_service;
mod openapi;
mod packages;
mod stripe;
mod tools;
mod workflows;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context, Result, bail};

pub use tools::environment;

use crate::{checkout, process::Ended};

/// What to check.
#[derive(clap::Args)]
pub struct Options {
    /// Run only the check of this name; may be given several times.
    #[arg(long, value_name = "NAME", value_parser = CHECKS.map(|check| check.name))]
    only: Vec<String>,
    /// List the checks and run none.
    #[arg(long)]
    list: bool,
}

struct Check {
    name: &'static str,
    about: &'static str,
    run: fn(&Place) -> Result<Verdict>,
}

const CHECKS: [Check; 13] = [
    Check {
        name: "buf-lint",
        about: "the contracts follow buf.yaml's rules",
        run: buf::lint,
    },
    Check {
        name: "buf-breaking",
        about: "the contracts break nobody who uses those of the main branch",
        run: buf::breaking,
    },
    Check {
        name: "workflows",
        about: "zizmor finds nothing in the pipelines of .github",
        run: workflows::run,
    },
    Check {
        name: "grpc-interop",
        about: "gRPC's interoperability tests pass between the mesh and grpcio, both ways",
        run: interop::run,
    },
    Check {
        name: "tonic-tls",
        about: "certificates that change: tonic's own TLS goes on with the old one, the mesh does not",
        run: interop::tonic_tls,
    },
    Check {
        name: "packages",
        about: "RouteGuide builds and runs outside the workspace, from archives of the mesh",
        run: packages::run,
    },
    Check {
        name: "k8s",
        about: "the manifests in k8s/ fit their schemas, the policies and the code",
        run: k8s::run,
    },
    Check {
        name: "image",
        about: "each program starts from its image with runc, without any right, and is healthy",
        run: image::run,
    },
    Check {
        name: "new-service",
        about: "a service that new-service writes builds, passes its tests and answers over REST",
        run: new_service::run,
    },
    Check {
        name: "openapi-spectral",
        about: "the OpenAPI document has no error by spectral's oas rules",
        run: openapi::spectral,
    },
    Check {
        name: "browser",
        about: "landing page and Swagger UI work in Chromium without a network",
        run: browser::run,
    },
    Check {
        name: "schemathesis",
        about: "a running shop keeps what its OpenAPI document says",
        run: openapi::schemathesis,
    },
    Check {
        name: "stripe",
        about: "the Stripe adapter does as Stripe's own client, and buys from a stand-in for Stripe",
        run: stripe::run,
    },
];

/// Checks that run only when they are named, for what they have to build.
const BY_NAME: [&str; 3] = ["packages", "image", "new-service"];

/// What became of a check. An error of the check itself counts as failed.
#[derive(Debug)]
enum Verdict {
    /// It ran and found nothing; with a word about what it looked at.
    Ok(String),
    /// It ran and found something.
    Failed(String),
    /// It could not run here, and why.
    Skipped(String),
}

impl Verdict {
    /// By the exit status of the tool that did the work.
    fn of(ended: Ended, looked_at: impl Into<String>) -> Verdict {
        if ended.status.success() {
            Verdict::Ok(looked_at.into())
        } else {
            Verdict::Failed(format!("{}\n{}", ended.text.trim_end(), ended.status))
        }
    }
}

/// Where checks read and write.
struct Place {
    /// `target/tools`: what is installed stays.
    tools: PathBuf,
    /// `target/verify`: what the checks of this run leave behind.
    logs: PathBuf,
}

impl Place {
    /// The configuration of a tool, below `tests/verify`.
    fn config(name: &str) -> PathBuf {
        checkout::root().join("tests/verify").join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(name)
    }
}

/// Runs the checks; fails when one failed.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        for check in CHECKS {
            println!("{:<18}{}", check.name, check.about);
        }
        return Ok(());
    }
    let only: Vec<_> = options.only.iter().map(String::as_str).collect();
    run_only(&only)
}

/// Runs the checks of these names, or all when none is given.
pub(crate) fn run_only(names: &[&str]) -> Result<()> {
    let target = checkout::target()?;
    let place = Place {
        tools: target.join("tools"),
        logs: target.join("verify"),
    };
    for folder in [&place.tools, &place.logs] {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut tally = Tally::default();
    for check in CHECKS {
        if names.is_empty() || names.contains(&check.name) {
            let started = Instant::now();
            let verdict = if names.is_empty() && BY_NAME.contains(&check.name) {
                Verdict::Skipped(format!(
                    "builds for minutes; `cargo xtask verify --only {}` runs it",
                    check.name
                ))
            } else {
                (check.run)(&place).unwrap_or_else(|error| Verdict::Failed(format!("{error:#}")))
            };
            println!(
                "{}",
                line(check.name, &verdict, started.elapsed().as_secs_f64())
            );
            tally.count(check.name, &verdict, &place.logs)?;
        }
    }
    tally.close()
}

/// The line by which a reader, or a script, learns of a check.
fn line(name: &str, verdict: &Verdict, seconds: f64) -> String {
    match verdict {
        Verdict::Ok(looked_at) => format!("RAN {name} … ok ({looked_at}, {seconds:.1} s)"),
        Verdict::Failed(_) => format!("RAN {name} … failed ({seconds:.1} s)"),
        Verdict::Skipped(reason) => format!("SKIPPED {name}: {reason}"),
    }
}

#[derive(Default)]
struct Tally {
    ok: usize,
    failed: Vec<&'static str>,
    skipped: usize,
}

impl Tally {
    fn count(&mut self, name: &'static str, verdict: &Verdict, logs: &Path) -> Result<()> {
        match verdict {
            Verdict::Ok(_) => self.ok += 1,
            Verdict::Skipped(_) => self.skipped += 1,
            Verdict::Failed(said) => {
                self.failed.push(name);
                println!("{said}");
                fs::write(logs.join(format!("{name}.failed.txt")), said)?;
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        println!(
            "verify: {} passed, {} failed, {} skipped",
            self.ok,
            self.failed.len(),
            self.skipped
        );
        if self.failed.is_empty() {
            Ok(())
        } else {
            bail!("failed: {}", self.failed.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_has_its_line() {
        let ok = Verdict::Ok("4 files".to_owned());
        assert_eq!(
            line("buf-lint", &ok, 0.25),
            "RAN buf-lint … ok (4 files, 0.2 s)"
        );
        let failed = Verdict::Failed("long story".to_owned());
        assert_eq!(
            line("buf-lint", &failed, 0.25),
            "RAN buf-lint … failed (0.2 s)"
        );
        let skipped = Verdict::Skipped("no network".to_owned());
        assert_eq!(
            line("buf-lint", &skipped, 0.25),
            "SKIPPED buf-lint: no network"
        );
    }

    #[test]
    fn one_failure_fails_the_run_and_a_skip_does_not() {
        let logs = tempfile::tempdir().unwrap();
        let mut tally = Tally::default();
        tally
            .count("a", &Verdict::Ok(String::new()), logs.path())
            .unwrap();
        tally
            .count("b", &Verdict::Skipped(String::new()), logs.path())
            .unwrap();
        assert_eq!((tally.ok, tally.skipped), (1, 1));
        assert!(
            Tally {
                ok: 1,
                skipped: 1,
                failed: vec![]
            }
            .close()
            .is_ok()
        );
        tally
            .count("c", &Verdict::Failed("why".to_owned()), logs.path())
            .unwrap();
        assert_eq!(
            fs::read_to_string(logs.path().join("c.failed.txt")).unwrap(),
            "why"
        );
        assert_eq!(tally.close().unwrap_err().to_string(), "failed: c");
    }
}
