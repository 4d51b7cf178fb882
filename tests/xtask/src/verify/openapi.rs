//! The OpenAPI document: well-formed by spectral, and kept by a running shop by schemathesis.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Place, Verdict, tools};
use crate::{
    process::{collect, command, plain},
    shop::Shop,
};

pub(super) fn spectral(place: &Place) -> Result<Verdict> {
    let (npm, path) = match tools::npm(place) {
        Ok(tools) => tools,
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let shop = Shop::start(&place.logs, "spectral")?;
    let text = shop.get("/openapi.json")?;
    let document: Value = serde_json::from_str(&text).context("/openapi.json is not JSON")?;
    let file = place.log("openapi.json");
    fs::write(&file, serde_json::to_string_pretty(&document)?)?;
    let ended = collect(
        command(npm.join("spectral"))
            .args(["lint", "--fail-severity=error", "--ruleset"])
            .arg(Place::config("spectral.yaml"))
            .arg(&file)
            .env("PATH", path),
    )?;
    fs::write(place.log("spectral.txt"), &ended.text)?;
    let warnings = warnings(&plain(&ended.text));
    Ok(Verdict::of(
        ended,
        format!("{} operations, {warnings} warnings", operations(&document)),
    ))
}

pub(super) fn schemathesis(place: &Place) -> Result<Verdict> {
    let python = match tools::python(place) {
        Ok(python) => python,
        Err(reason) => return Ok(Verdict::Skipped(format!("{reason:#}"))),
    };
    let shop = Shop::start(&place.logs, "schemathesis")?;
    let ended = collect(
        command(python.join("schemathesis"))
            .arg("--config-file")
            .arg(Place::config("schemathesis.toml"))
            .args(["run", &format!("{}/openapi.json", shop.url())])
            .arg("--no-color")
            .current_dir(&place.logs),
    )?;
    fs::write(place.log("schemathesis.txt"), &ended.text)?;
    let sum = cases(&ended.text).to_owned();
    Ok(Verdict::of(ended, sum))
}

/// The line below `Test cases:` in the summary: `2797 generated, 2797 passed`.
fn cases(output: &str) -> &str {
    let mut lines = output
        .lines()
        .skip_while(|line| line.trim() != "Test cases:");
    lines.nth(1).unwrap_or_default().trim()
}

/// How many operations an OpenAPI document describes.
fn operations(document: &Value) -> usize {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let paths = document["paths"]
        .as_object()
        .into_iter()
        .flat_map(|paths| paths.values());
    paths
        .map(|path| {
            METHODS
                .iter()
                .filter(|method| path.get(**method).is_some())
                .count()
        })
        .sum()
}

/// The number of warnings in spectral's closing line: `✖ 3 problems (0 errors, 3 warnings, …)`.
fn warnings(output: &str) -> usize {
    let closing = output
        .lines()
        .find(|line| line.contains(" problem"))
        .unwrap_or_default();
    let count = closing
        .split([',', '('])
        .find(|part| part.contains("warning"));
    count
        .and_then(|part| part.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_counted() {
        let document = serde_json::json!({
            "paths": {"/a": {"get": {}, "post": {}, "parameters": []}, "/b": {"delete": {}}}
        });
        assert_eq!(operations(&document), 3);
    }

    #[test]
    fn test_cases_are_read_from_the_summary() {
        let output = "Warnings:\n  one\n\nTest cases:\n  7 generated, 7 passed\n\nSeed: 1\n";
        assert_eq!(cases(output), "7 generated, 7 passed");
        assert_eq!(cases("nothing"), "");
    }

    #[test]
    fn warnings_are_read_from_the_closing_line() {
        assert_eq!(
            warnings("x\n✖ 13 problems (1 error, 12 warnings, 0 infos, 0 hints)\n"),
            12
        );
        assert_eq!(warnings("No results with a severity of 'error' found!"), 0);
    }
}
