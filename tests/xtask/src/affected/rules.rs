//! What a change of a file means: the one table, and the crates that read what no dependency tells of.
//!
//! Deliberately without a rule that guesses: a file that no rule knows affects everything.

use std::collections::BTreeSet;

use super::graph::Graph;

/// A part of the repository that is no crate, or has checks of its own besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// The contracts: buf's lint and breaking changes.
    Proto,
    /// Manifests: `cargo xtask k8s check`.
    K8s,
    /// Pipelines and what they are made of: `cargo xtask verify --only workflows`.
    Workflows,
    /// The pinned tools of `cargo xtask verify`.
    Tools,
    /// Words for people.
    Docs,
}

impl Area {
    /// The name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Area::Proto => "proto",
            Area::K8s => "k8s",
            Area::Workflows => "workflows",
            Area::Tools => "tools",
            Area::Docs => "docs",
        }
    }
}

/// Which crates a change of a file affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// All of them.
    Everything,
    /// The one that the file lies in, and what is built with it.
    Crate,
    /// Those whose resolved dependencies are others than before.
    Lock,
    /// The tests of this one, which read the file.
    ReadBy(&'static str),
    /// None.
    Nothing,
}

/// The rules; the first one with a pattern that fits counts. A pattern is a path from the root, a folder
/// (`k8s/`), or the end of a name (`*.md`).
const RULES: [(&[&str], Effect, Option<Area>); 11] = [
    (
        &[
            "Cargo.toml",
            "clippy.toml",
            "rustfmt.toml",
            "rust-toolchain",
            "rust-toolchain.toml",
            ".cargo/",
            ".config/",
        ],
        Effect::Everything,
        None,
    ),
    (&["Cargo.lock"], Effect::Lock, None),
    (
        &["proto/commerce/", "mesh/proto/proto/"],
        Effect::Crate,
        Some(Area::Proto),
    ),
    (&["buf.yaml"], Effect::Nothing, Some(Area::Proto)),
    (&["k8s/"], Effect::Nothing, Some(Area::K8s)),
    // The commands in there are parsed by xtask itself.
    (
        &[".github/"],
        Effect::ReadBy("xtask"),
        Some(Area::Workflows),
    ),
    (&[".ci/"], Effect::Nothing, Some(Area::Workflows)),
    // What the provider's own library sends and accepts; payment's tests compare.
    (
        &["tests/verify/stripe/"],
        Effect::ReadBy("payment"),
        Some(Area::Tools),
    ),
    (&["tests/verify/"], Effect::Nothing, Some(Area::Tools)),
    // One is compared with the types that it is made from, one with the stacks, the third one's commands are run.
    (
        &[
            "docs/configuration.md",
            "ARCHITECTURE.md",
            "docs/operations.md",
        ],
        Effect::ReadBy(HOUSE_RULES),
        Some(Area::Docs),
    ),
    (
        &[
            "docs/",
            "*.md",
            "LICENSE-APACHE",
            "LICENSE-MIT",
            ".gitignore",
        ],
        Effect::Nothing,
        Some(Area::Docs),
    ),
];

/// The crate whose house rules read the sources of every other one.
const HOUSE_RULES: &str = "tests";

/// Folders of a crate from which nothing is built that another one could use.
const TESTS_ONLY: [&str; 3] = ["tests/", "benches/", "examples/"];

/// What files say directly, before the dependents are looked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) everything: bool,
    /// Whether `Cargo.lock` is among them.
    pub(super) lock: bool,
    /// Crates that are built differently.
    pub(super) built: BTreeSet<String>,
    /// Crates whose own tests are to run again.
    pub(super) tested: BTreeSet<String>,
    pub(super) areas: BTreeSet<Area>,
}

/// Applies the rules to each file.
pub(super) fn judge<'a>(graph: &Graph, files: impl IntoIterator<Item = &'a str>) -> Verdict {
    let mut verdict = Verdict::default();
    for file in files {
        let rule = RULES
            .iter()
            .find(|(patterns, ..)| patterns.iter().any(|pattern| fits(pattern, file)));
        let (effect, area) =
            rule.map_or((Effect::Crate, None), |(_, effect, area)| (*effect, *area));
        verdict.areas.extend(area);
        match effect {
            Effect::Everything => verdict.everything = true,
            Effect::Lock => verdict.lock = true,
            Effect::ReadBy(name) => _ = verdict.tested.insert(name.to_owned()),
            Effect::Nothing => {}
            Effect::Crate => match graph.owner(file) {
                None => verdict.everything = true,
                Some((name, inside)) => {
                    let tests_only = TESTS_ONLY.iter().any(|folder| inside.starts_with(folder));
                    let crates = if tests_only {
                        &mut verdict.tested
                    } else {
                        &mut verdict.built
                    };
                    crates.insert(name.to_owned());
                    verdict.tested.insert(HOUSE_RULES.to_owned());
                }
            },
        }
    }
    verdict
}

fn fits(pattern: &str, file: &str) -> bool {
    if let Some(end) = pattern.strip_prefix('*') {
        file.ends_with(end)
    } else if pattern.ends_with('/') {
        file.starts_with(pattern)
    } else {
        file == pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_paths_folders_and_ends() {
        for (pattern, file, expected) in [
            ("Cargo.toml", "Cargo.toml", true),
            ("Cargo.toml", "mesh/rpc/Cargo.toml", false),
            ("k8s/", "k8s/base/edge/deployment.yaml", true),
            ("k8s/", "k8s.rs", false),
            ("*.md", "mesh/rpc/README.md", true),
            ("*.md", "mesh/rpc/src/md.rs", false),
        ] {
            assert_eq!(fits(pattern, file), expected, "{pattern} {file}");
        }
    }

    #[test]
    fn every_rule_can_apply() {
        for (index, (patterns, ..)) in RULES.iter().enumerate() {
            for pattern in *patterns {
                let earlier = RULES[..index].iter().flat_map(|(patterns, ..)| *patterns);
                let sample = pattern.replace('*', "sample");
                let hidden = earlier.clone().find(|other| fits(other, &sample));
                assert_eq!(hidden, None, "{pattern} is hidden by an earlier rule");
            }
        }
    }
}
