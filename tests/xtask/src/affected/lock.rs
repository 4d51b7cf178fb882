//! Two lock files compared: which crates are built with something else than before.
//!
//! A lock file names what each package was resolved to. A dependency of a crate has changed when anything below
//! it has: another version, another source, another checksum, one more or one less. Features do not stand in a
//! lock file; they stand in the root's `Cargo.toml`, which affects everything.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use toml::{Table, Value};

use super::graph::Graph;

/// A lock file.
#[derive(Debug)]
pub struct Lock {
    packages: Vec<Package>,
    by_name: BTreeMap<String, Vec<usize>>,
}

#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    /// Where it comes from; empty for a crate of this workspace.
    source: String,
    checksum: String,
    /// As the file spells them: `name`, `name version` or `name version (source)`, whatever is unambiguous.
    dependencies: Vec<String>,
}

impl Lock {
    /// Reads a `Cargo.lock`.
    pub fn parse(text: &str) -> Result<Lock> {
        let table: Table = text.parse().context("the lock file is no TOML")?;
        let packages = table.get("package").and_then(Value::as_array);
        let packages: Vec<_> = packages
            .into_iter()
            .flatten()
            .map(|package| {
                let text = |key| {
                    package
                        .get(key)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned()
                };
                let dependencies = package.get("dependencies").and_then(Value::as_array);
                let dependencies = dependencies.into_iter().flatten();
                Package {
                    name: text("name"),
                    version: text("version"),
                    source: text("source"),
                    checksum: text("checksum"),
                    dependencies: dependencies
                        .filter_map(|name| Some(name.as_str()?.to_owned()))
                        .collect(),
                }
            })
            .collect();
        let mut by_name: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, package) in packages.iter().enumerate() {
            by_name.entry(package.name.clone()).or_default().push(index);
        }
        Ok(Lock { packages, by_name })
    }

    fn find(&self, dependency: &str) -> Option<usize> {
        let mut words = dependency.split(' ');
        let candidates = self.by_name.get(words.next()?)?;
        let (version, source) = (words.next(), words.next());
        candidates.iter().copied().find(|index| {
            let package = &self.packages[*index];
            version.is_none_or(|version| package.version == version)
                && source.is_none_or(|source| package.source == source.trim_matches(['(', ')']))
        })
    }

    fn member(&self, name: &str) -> Option<&Package> {
        let candidates = self.by_name.get(name)?;
        let mut packages = candidates.iter().map(|index| &self.packages[*index]);
        packages.find(|package| package.source.is_empty())
    }

    /// All that a crate gets from the registry by a dependency of this name, as lines that differ when it differs.
    fn resolved(&self, member: &str, dependency: &str) -> BTreeSet<String> {
        let spelled = self
            .member(member)
            .into_iter()
            .flat_map(|package| &package.dependencies);
        let spelled = spelled.filter(|spelled| spelled.split(' ').next() == Some(dependency));
        let mut open: Vec<_> = spelled.filter_map(|spelled| self.find(spelled)).collect();
        let mut seen = BTreeSet::new();
        while let Some(index) = open.pop() {
            // Crates of this workspace are compared by themselves.
            if !self.packages[index].source.is_empty() && seen.insert(index) {
                let below = &self.packages[index].dependencies;
                open.extend(below.iter().filter_map(|below| self.find(below)));
            }
        }
        let line = |index| {
            let Package {
                name,
                version,
                source,
                checksum,
                ..
            } = &self.packages[index];
            format!("{name} {version} {source} {checksum}")
        };
        seen.into_iter().map(line).collect()
    }
}

/// Crates that are built with something else now, and crates of which only the tests are.
pub(super) fn differences(
    before: &Lock,
    now: &Lock,
    graph: &Graph,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut built, mut tested) = (BTreeSet::new(), BTreeSet::new());
    for name in graph.names() {
        if before.member(name).is_none() {
            built.insert(name.to_owned());
            continue;
        }
        for (dependency, builds) in graph.dependencies(name) {
            if before.resolved(name, dependency) != now.resolved(name, dependency) {
                let differ = if builds { &mut built } else { &mut tested };
                differ.insert(name.to_owned());
            }
        }
    }
    (built, tested)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"
        [[package]]
        name = "app"
        version = "0.1.0"
        dependencies = ["rand 0.8.0", "tool"]
        [[package]]
        name = "tool"
        version = "0.1.0"
        dependencies = ["rand 0.9.0"]
        [[package]]
        name = "rand"
        version = "0.8.0"
        source = "registry"
        checksum = "8"
        dependencies = ["libc"]
        [[package]]
        name = "rand"
        version = "0.9.0"
        source = "registry"
        checksum = "9"
        [[package]]
        name = "libc"
        version = "1.0.0"
        source = "registry"
        checksum = "c"
    "#;

    fn changed(from: &str, to: &str) -> (Vec<String>, Vec<String>) {
        let package = |name: &str, dependencies: serde_json::Value| serde_json::json!({"name": name, "manifest_path": format!("/w/{name}/Cargo.toml"), "dependencies": dependencies});
        let graph = Graph::read(&serde_json::json!({"workspace_root": "/w", "packages": [
            package("app", serde_json::json!([{"name": "rand", "kind": null}, {"name": "tool", "kind": null}])),
            package("tool", serde_json::json!([{"name": "rand", "kind": "dev"}])),
        ]}));
        let (before, now) = (
            Lock::parse(LOCK).unwrap(),
            Lock::parse(&LOCK.replace(from, to)).unwrap(),
        );
        let (built, tested) = differences(&before, &now, &graph.unwrap());
        (built.into_iter().collect(), tested.into_iter().collect())
    }

    #[test]
    fn the_same_lock_changes_nothing() {
        assert_eq!(changed("x", "x"), (vec![], vec![]));
    }

    #[test]
    fn what_lies_deep_below_a_dependency_counts() {
        assert_eq!(changed("\"c\"", "\"d\""), (vec!["app".to_owned()], vec![]));
    }

    #[test]
    fn the_version_that_a_crate_was_resolved_to_counts_and_no_other() {
        assert_eq!(
            changed("\"9\"", "\"10\""),
            (vec![], vec!["tool".to_owned()])
        );
    }

    #[test]
    fn a_crate_that_was_not_there_is_built_differently() {
        let before = LOCK.replace("name = \"tool\"", "name = \"other\"");
        let graph = Graph::read(&serde_json::json!({"workspace_root": "/w", "packages": [
            {"name": "tool", "manifest_path": "/w/tool/Cargo.toml", "dependencies": []},
        ]}));
        let (built, _) = differences(
            &Lock::parse(&before).unwrap(),
            &Lock::parse(LOCK).unwrap(),
            &graph.unwrap(),
        );
        assert_eq!(built, BTreeSet::from(["tool".to_owned()]));
    }
}
