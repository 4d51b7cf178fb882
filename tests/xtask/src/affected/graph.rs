//! The crates of the workspace and who is built with whom, as `cargo metadata` has it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

/// The workspace.
#[derive(Debug)]
pub struct Graph {
    crates: BTreeMap<String, Crate>,
}

#[derive(Debug, Default)]
struct Crate {
    /// From the root, with a slash at the end.
    folder: String,
    /// What it is built with: names of this workspace and of the registry.
    built_with: BTreeSet<String>,
    /// What only its tests, benches and examples are built with.
    tested_with: BTreeSet<String>,
}

impl Graph {
    /// Reads the answer of `cargo metadata --no-deps`.
    pub fn read(metadata: &Value) -> Result<Graph> {
        let root = metadata["workspace_root"]
            .as_str()
            .context("cargo metadata names no workspace_root")?;
        let packages = metadata["packages"]
            .as_array()
            .context("cargo metadata lists no packages")?;
        let mut crates = BTreeMap::new();
        for package in packages {
            let name = text(package, "name")?;
            let manifest = text(package, "manifest_path")?;
            let folder = manifest
                .strip_prefix(root)
                .and_then(|inside| inside.strip_prefix('/')?.strip_suffix("Cargo.toml"))
                .with_context(|| format!("{manifest} does not lie below {root}"))?;
            let mut member = Crate {
                folder: folder.to_owned(),
                ..Crate::default()
            };
            let dependencies = package["dependencies"].as_array();
            for dependency in dependencies.into_iter().flatten() {
                let with = match dependency["kind"].as_str() {
                    Some("dev") => &mut member.tested_with,
                    _ => &mut member.built_with,
                };
                with.insert(text(dependency, "name")?.to_owned());
            }
            crates.insert(name.to_owned(), member);
        }
        Ok(Graph { crates })
    }

    /// The names of all crates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.crates.keys().map(String::as_str)
    }

    /// The crate that a file belongs to, the innermost where one lies in another, and the path inside it.
    pub fn owner<'a, 'b>(&'a self, file: &'b str) -> Option<(&'a str, &'b str)> {
        let owners = self.crates.iter().filter_map(|(name, member)| {
            Some((name.as_str(), file.strip_prefix(&*member.folder)?))
        });
        owners.min_by_key(|(_, inside)| inside.len())
    }

    /// What a crate names in its manifest: (name, whether it is built with it and not only tested).
    pub(super) fn dependencies(&self, name: &str) -> impl Iterator<Item = (&str, bool)> {
        let member = self.crates.get(name).into_iter();
        member.flat_map(|member| {
            let built = member.built_with.iter().map(|name| (name.as_str(), true));
            let tested = member.tested_with.difference(&member.built_with);
            built.chain(tested.map(|name| (name.as_str(), false)))
        })
    }

    /// All crates that have to be built or tested again when `built` are built differently: whatever is built
    /// with one of them, at any distance, and whatever is tested with one of those.
    pub fn dependents(&self, built: &BTreeSet<String>) -> BTreeSet<String> {
        let mut differ = built.clone();
        loop {
            let more: Vec<_> = self
                .crates
                .iter()
                .filter(|(name, member)| {
                    !differ.contains(*name) && !member.built_with.is_disjoint(&differ)
                })
                .map(|(name, _)| name.clone())
                .collect();
            if more.is_empty() {
                break;
            }
            differ.extend(more);
        }
        let tested = self
            .crates
            .iter()
            .filter(|(_, member)| !member.tested_with.is_disjoint(&differ))
            .map(|(name, _)| name.clone());
        differ.iter().cloned().chain(tested).collect()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key]
        .as_str()
        .with_context(|| format!("cargo metadata answers no {key:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `app` is built with `lib`, `lib`'s tests with `tool`, `tool` with `base`; `inner` lies in `app`.
    fn sample() -> Graph {
        let package = |name: &str, folder: &str, dependencies: Value| json!({"name": name, "manifest_path": format!("/w/{folder}/Cargo.toml"), "dependencies": dependencies});
        let metadata = json!({"workspace_root": "/w", "packages": [
            package("app", "app", json!([{"name": "lib", "kind": null}])),
            package("inner", "app/inner", json!([])),
            package("lib", "lib", json!([{"name": "tool", "kind": "dev"}, {"name": "serde", "kind": null}])),
            package("tool", "tool", json!([{"name": "base", "kind": "build"}])),
            package("base", "base", json!([])),
        ]});
        Graph::read(&metadata).unwrap()
    }

    fn dependents(name: &str) -> Vec<String> {
        let built = BTreeSet::from([name.to_owned()]);
        sample().dependents(&built).into_iter().collect()
    }

    #[test]
    fn whatever_is_built_with_a_crate_depends_on_it_at_any_distance() {
        assert_eq!(dependents("lib"), ["app", "lib"]);
        assert_eq!(dependents("serde"), ["app", "lib", "serde"]);
        assert_eq!(dependents("app"), ["app"]);
    }

    #[test]
    fn what_only_tests_are_built_with_reaches_those_tests_and_nobody_behind_them() {
        assert_eq!(dependents("base"), ["base", "lib", "tool"]);
    }

    #[test]
    fn a_file_belongs_to_the_innermost_crate() {
        let graph = sample();
        assert_eq!(graph.owner("app/src/main.rs"), Some(("app", "src/main.rs")));
        assert_eq!(graph.owner("app/inner/a.rs"), Some(("inner", "a.rs")));
        assert_eq!(graph.owner("application/a.rs"), None);
    }
}
