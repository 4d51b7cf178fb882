//! The house rules as tests: who may import whom, the shape of files and functions, what a contract must
//! state, what documentation must name. `ARCHITECTURE.md` says why.
//!
//! Each rule is a function from sources to violations; it is run on the whole tree and on a planted
//! violation that it must find. Deliberately without rules that clippy, rustfmt or buf already enforce.

mod contract;
mod crates;
mod modules;
mod shape;
mod source;
mod sql;
mod stacks;

use std::fmt;

/// A rule that is broken somewhere.
#[derive(Debug, PartialEq)]
struct Violation {
    /// The file, with the line where one is known, or the name of what breaks the rule.
    place: String,
    /// What is wrong with it.
    what: String,
}

impl Violation {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Violation {
        Violation {
            place: place.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.what)
    }
}

/// Fails with one line for each violation.
#[track_caller]
fn none(violations: &[Violation]) {
    let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

/// Fails unless there is exactly one violation, whose line contains `expected`.
#[track_caller]
fn one(violations: &[Violation], expected: &str) {
    let [violation] = violations else {
        panic!("expected one violation: {violations:?}");
    };
    assert!(violation.to_string().contains(expected), "{violation}");
}

#[test]
fn every_configuration_key_is_documented() {
    // Of each key: a doc comment, a readable default that no comment contradicts, a line in the page.
    // The plants of these rules stand with the code, in xtask's module `docs`.
    xtask::docs::check(&xtask::checkout::root()).expect("the page is up to date");
}
