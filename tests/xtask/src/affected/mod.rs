//! `cargo xtask affected`: which crates and areas a change affects, from its files and the dependency graph.
//!
//! `rules` says what a file means, `graph` who is built with whom, `lock` which resolved dependencies differ.
//! Light tests of a change need no more than what is named here; the heavy ones beside the review ask nothing
//! and run everything.

mod changes;
mod graph;
mod lock;
mod rules;

use std::collections::BTreeSet;

use anyhow::Result;

pub use self::{graph::Graph, lock::Lock, rules::Area};
use crate::checkout;

/// Since when.
#[derive(clap::Args)]
pub struct Options {
    /// The branch that the change goes to, such as origin/main; what came there later does not count.
    #[arg(long, value_name = "REF")]
    base: String,
    /// Answer as JSON.
    #[arg(long)]
    json: bool,
}

/// What a change affects.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Crates to lint and to test.
    pub crates: BTreeSet<String>,
    /// Areas with checks of their own.
    pub areas: BTreeSet<Area>,
}

/// Prints what is affected.
pub fn run(options: &Options) -> Result<()> {
    let (files, affected) = since(&options.base)?;
    let crates: Vec<_> = affected.crates.iter().map(String::as_str).collect();
    let areas: Vec<_> = affected.areas.iter().map(|area| area.name()).collect();
    if options.json {
        let answer = serde_json::json!({"files": files, "crates": crates, "areas": areas});
        println!("{answer:#}");
    } else {
        println!("files changed since {}: {}", options.base, files.len());
        println!("crates: {}", or_none(&crates));
        println!("areas: {}", or_none(&areas));
    }
    Ok(())
}

/// The files that were changed since this branch left `base`, and what that affects.
pub fn since(base: &str) -> Result<(Vec<String>, Affected)> {
    let root = checkout::root();
    let graph = Graph::read(&checkout::metadata()?)?;
    let commit = changes::merge_base(&root, base)?;
    let files = changes::files(&root, &commit)?;
    let locks = || -> Result<(Lock, Lock)> {
        let before = Lock::parse(&changes::content(&root, &commit, "Cargo.lock")?)?;
        Ok((
            before,
            Lock::parse(&std::fs::read_to_string(root.join("Cargo.lock"))?)?,
        ))
    };
    let affected = affected(&graph, files.iter().map(String::as_str), locks)?;
    Ok((files, affected))
}

/// What a change of `files` affects; `locks` are the lock file before and now, asked for when it is among them.
pub fn affected<'a>(
    graph: &Graph,
    files: impl IntoIterator<Item = &'a str>,
    locks: impl FnOnce() -> Result<(Lock, Lock)>,
) -> Result<Affected> {
    let mut verdict = rules::judge(graph, files);
    if verdict.everything {
        let crates = graph.names().map(str::to_owned).collect();
        return Ok(Affected {
            crates,
            areas: verdict.areas,
        });
    }
    if verdict.lock {
        let (before, now) = locks()?;
        let (built, tested) = lock::differences(&before, &now, graph);
        verdict.built.extend(built);
        verdict.tested.extend(tested);
    }
    let mut crates = graph.dependents(&verdict.built);
    crates.append(&mut verdict.tested);
    Ok(Affected {
        crates,
        areas: verdict.areas,
    })
}

fn or_none(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}
