//! The pipelines below `.github` against what they call: commands of xtask, the toolchain, the branch rules.
//!
//! Whether they are safe is zizmor's affair: `cargo xtask verify --only workflows`.

use std::{collections::BTreeSet, fs};

use clap::Parser as _;
use serde_json::Value;
use xtask::checkout;

use crate::Arguments;

/// Name and text of every pipeline.
fn workflows() -> Vec<(String, String)> {
    let folder = checkout::root().join(".github/workflows");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    let files: Vec<_> = files.map(read).collect();
    assert!(files.len() >= 3, "light, heavy and release");
    files
}

/// The words after `cargo xtask`, command by command. A variable stands for one word.
fn commands(workflow: &str) -> Vec<Vec<String>> {
    let lines = workflow
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let calls = lines.filter_map(|line| line.split_once("cargo xtask ").map(|(_, words)| words));
    calls
        .map(|words| {
            words
                .split_whitespace()
                .map(|word| {
                    word.trim_matches('"')
                        .replace("${GITHUB_SHA::12}", "3f2a9c1d0b7e")
                })
                .collect()
        })
        .collect()
}

fn parses(words: &[String]) -> Result<(), String> {
    let words = ["xtask"]
        .into_iter()
        .chain(words.iter().map(String::as_str));
    Arguments::try_parse_from(words)
        .map(drop)
        .map_err(|error| error.to_string())
}

#[test]
fn every_command_of_the_pipelines_is_one_that_xtask_has() {
    let mut seen = 0;
    for (name, text) in workflows() {
        for words in commands(&text) {
            seen += 1;
            if let Err(error) = parses(&words) {
                panic!("{name}: cargo xtask {}\n{error}", words.join(" "));
            }
        }
    }
    assert!(seen > 10, "{seen} commands");
}

#[test]
fn a_command_that_xtask_has_not_is_found() {
    let workflow = "      - run: cargo xtask test --heavy\n      # cargo xtask comment\n        cargo xtask faults --minutes \"$M\"\n";
    let found = commands(workflow);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|words| parses(words).is_err()));
    assert!(parses(&["test".to_owned(), "--light".to_owned()]).is_ok());
}

#[test]
fn every_pipeline_uses_the_toolchain_that_the_workspace_names() {
    let manifest = fs::read_to_string(checkout::root().join("Cargo.toml")).unwrap();
    let line = manifest
        .lines()
        .find(|line| line.starts_with("rust-version"))
        .unwrap();
    let version = line.split('"').nth(1).unwrap();
    for (name, text) in workflows() {
        assert!(
            text.contains(&format!("RUSTUP_TOOLCHAIN: \"{version}.")),
            "{name} uses another Rust than {version}"
        );
    }
}

#[test]
fn the_branch_rules_wait_for_checks_that_exist() {
    let file = checkout::root().join(".github/rulesets/main.json");
    let rules: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let rule = |kind: &str| {
        let rules = rules["rules"].as_array().unwrap();
        rules
            .iter()
            .find(|rule| rule["type"] == kind)
            .unwrap_or_else(|| panic!("no rule {kind}"))
    };
    for kind in [
        "deletion",
        "non_fast_forward",
        "required_linear_history",
        "pull_request",
    ] {
        rule(kind);
    }
    let checks = &rule("required_status_checks")["parameters"]["required_status_checks"];
    let wanted: BTreeSet<_> = checks
        .as_array()
        .unwrap()
        .iter()
        .map(|check| check["context"].as_str().unwrap())
        .collect();
    assert_eq!(wanted, BTreeSet::from(["pr-heavy", "pr-light"]));
    let workflows = workflows();
    for check in wanted {
        let job = format!("    name: {check}\n");
        assert!(
            workflows.iter().any(|(_, text)| text.contains(&job)),
            "no job is called {check}"
        );
    }
}
