//! The pipelines by zizmor: no finding, whatever its severity.

use std::fs;

use anyhow::Result;

use super::{Place, Verdict, tools};
use crate::process::{collect, command};

/// The strictest set of rules; without GitHub's API, so that the answer is the same everywhere.
const ARGUMENTS: [&str; 5] = [
    "--offline",
    "--persona=auditor",
    "--strict-collection",
    "--no-progress",
    "--color=never",
];

pub(super) fn run(place: &Place) -> Result<Verdict> {
    let python = match tools::environment(&place.tools, &Place::config("workflows.txt")) {
        Ok(python) => python,
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let ended = collect(
        command(python.join("zizmor"))
            .args(ARGUMENTS)
            .arg(".github"),
    )?;
    fs::write(place.log("workflows.txt"), &ended.text)?;
    let sum = ended.text.lines().last().unwrap_or_default().to_owned();
    Ok(Verdict::of(ended, sum))
}
