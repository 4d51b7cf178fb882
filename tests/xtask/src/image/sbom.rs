//! The bill of materials of a program in CycloneDX 1.5: its crates as `cargo metadata` resolves them, and the shared
//! libraries of its image with the Debian packages that they come from.
//!
//! Crates are those of normal dependencies, not of build scripts and tests, with the features that the workspace
//! chooses as a whole: none is missing, and one that only another program uses may be listed too.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{layer::digest, libraries::Library, provenance::Provenance};
use crate::process::{cargo, collect, command, output};

/// Where the bill lies in an image: where scanners look for it.
pub(super) const FOLDER: &str = "/usr/local/share/sbom";

/// What `cargo metadata` says of all crates of the workspace.
pub(super) struct Dependencies {
    /// Name, version, licence by id.
    packages: BTreeMap<String, Value>,
    /// What each one needs.
    needs: BTreeMap<String, Vec<String>>,
}

impl Dependencies {
    /// Of this workspace, as locked.
    pub(super) fn read() -> Result<Dependencies> {
        let target = host()?;
        let said = output(cargo().args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--filter-platform",
            &target,
        ]))?;
        Self::of(&serde_json::from_str(&said)?)
    }

    fn of(metadata: &Value) -> Result<Dependencies> {
        let id = |value: &Value| {
            let id = value.as_str().map(str::to_owned);
            id.context("cargo metadata names every package")
        };
        let mut all = Dependencies {
            packages: BTreeMap::new(),
            needs: BTreeMap::new(),
        };
        for package in metadata["packages"].as_array().into_iter().flatten() {
            all.packages.insert(id(&package["id"])?, package.clone());
        }
        let nodes = metadata["resolve"]["nodes"].as_array();
        for node in nodes.into_iter().flatten() {
            let mut needs = Vec::new();
            for dependency in node["deps"].as_array().into_iter().flatten() {
                let mut kinds = dependency["dep_kinds"].as_array().into_iter().flatten();
                if kinds.any(|kind| kind["kind"].is_null()) {
                    needs.push(id(&dependency["pkg"])?);
                }
            }
            all.needs.insert(id(&node["id"])?, needs);
        }
        Ok(all)
    }

    /// The ids of a package of the workspace and of everything that goes into it.
    fn below(&self, package: &str) -> Result<(&str, BTreeSet<&str>)> {
        let own =
            |(id, found): &(&String, &Value)| found["name"] == package && id.contains("path+file");
        let root = self.packages.iter().find(own);
        let root = root.with_context(|| format!("no package {package:?}"))?.0;
        let (mut found, mut open) = (BTreeSet::new(), vec![root.as_str()]);
        while let Some(id) = open.pop() {
            if found.insert(id) {
                let needs = self.needs.get(id).into_iter().flatten();
                open.extend(needs.map(String::as_str));
            }
        }
        Ok((root, found))
    }
}

/// What rustc builds for here.
fn host() -> Result<String> {
    let said = output(command("rustc").arg("-vV"))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names its host")?.to_owned())
}

/// The bill of one program, as JSON that is the same each time.
pub(super) fn bill(
    provenance: &Provenance,
    dependencies: &Dependencies,
    package: &str,
    libraries: &[Library],
) -> Result<Vec<u8>> {
    let (root, ids) = dependencies.below(package)?;
    let mut components = Vec::new();
    let mut graph = Vec::new();
    for id in &ids {
        let package = &dependencies.packages[*id];
        let mut crate_ = json!({"type": "library", "bom-ref": reference(package)});
        describe(&mut crate_, package);
        if *id != root {
            components.push(crate_);
        }
        let needs = dependencies.needs.get(*id).into_iter().flatten();
        let needs: BTreeSet<_> = needs
            .map(|id| reference(&dependencies.packages[id]))
            .collect();
        graph.push(json!({"ref": reference(package), "dependsOn": needs}));
    }
    let mut debian = BTreeMap::new();
    for library in libraries {
        let mut file = json!({
            "type": "file",
            "bom-ref": library.path,
            "name": library.path,
            "hashes": [{"alg": "SHA-256", "content": digest(&library.content)["sha256:".len()..]}],
        });
        if let Some((name, version)) = packaged(&library.path) {
            let purl = format!("pkg:deb/debian/{name}@{version}");
            file["properties"] = json!([{"name": "package", "value": purl}]);
            debian.insert(purl, (name, version));
        }
        components.push(file);
    }
    for (purl, (name, version)) in debian {
        components.push(json!({
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        }));
    }
    let mut own =
        json!({"type": "application", "bom-ref": reference(&dependencies.packages[root])});
    describe(&mut own, &dependencies.packages[root]);
    own["name"] = json!(provenance.title);
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": provenance.created, "component": own},
        "components": components,
        "dependencies": graph,
    });
    Ok(serde_json::to_vec_pretty(&bill)?)
}

fn describe(component: &mut Value, package: &Value) {
    component["name"] = package["name"].clone();
    component["version"] = package["version"].clone();
    component["purl"] = json!(reference(package));
    if let Some(licence) = package["license"].as_str() {
        // An old spelling of "or" that is no SPDX expression.
        let expression = licence.replace('/', " OR ");
        component["licenses"] = json!([{"expression": expression}]);
    }
}

/// The package URL, which also names a crate inside the bill.
fn reference(package: &Value) -> String {
    let field = |name: &str| package[name].as_str().unwrap_or_default();
    format!("pkg:cargo/{}@{}", field("name"), field("version"))
}

/// The Debian package of a file, with its version; `None` where dpkg knows none.
fn packaged(path: &str) -> Option<(String, String)> {
    // Files of merged folders are recorded under one of their two names.
    let usr = format!("/usr{path}");
    let own = std::fs::canonicalize(path).ok()?;
    let own = own.to_str()?;
    let names = [path, &usr, own, own.strip_prefix("/usr").unwrap_or(own)];
    let said = names
        .iter()
        .find_map(|name| asked(&["-S", name]).filter(|said| !said.contains("diversion")))?;
    let package = said.split_once(": ")?.0;
    let version = asked(&["-W", "-f", "${Version}", package])?;
    let name = package.split(':').next().unwrap_or(package);
    Some((name.to_owned(), version))
}

fn asked(arguments: &[&str]) -> Option<String> {
    let ended = collect(command("dpkg-query").args(arguments)).ok()?;
    ended.status.success().then(|| ended.text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_program_is_listed_and_what_only_builds_it_is_not() {
        let package = |id: &str, name: &str| json!({"id": id, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0"});
        let needs = |id: &str, kind: Value| json!({"pkg": id, "dep_kinds": [{"kind": kind}]});
        let metadata = json!({
            "packages": [
                package("path+file:///a#a@1.0.0", "a"), package("registry#b@1.0.0", "b"),
                package("registry#c@1.0.0", "c"), package("registry#d@1.0.0", "d"),
                package("registry#a@1.0.0", "a"),
            ],
            "resolve": {"nodes": [
                {"id": "path+file:///a#a@1.0.0", "deps": [
                    needs("registry#b@1.0.0", Value::Null), needs("registry#d@1.0.0", json!("build")),
                ]},
                {"id": "registry#b@1.0.0", "deps": [needs("registry#c@1.0.0", Value::Null)]},
            ]},
        });
        let dependencies = Dependencies::of(&metadata).unwrap();
        let provenance = super::super::tests::provenance();
        let bill = bill(&provenance, &dependencies, "a", &[]).unwrap();
        let bill: Value = serde_json::from_slice(&bill).unwrap();
        let names = bill["components"].as_array().unwrap().iter();
        let names: Vec<_> = names.map(|component| &component["purl"]).collect();
        assert_eq!(names, ["pkg:cargo/b@1.0.0", "pkg:cargo/c@1.0.0"]);
        assert_eq!(
            bill["components"][0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(bill["metadata"]["component"]["purl"], "pkg:cargo/a@1.0.0");
        assert_eq!(
            bill["dependencies"][0],
            json!({"ref": "pkg:cargo/a@1.0.0", "dependsOn": ["pkg:cargo/b@1.0.0"]})
        );
        assert!(dependencies.below("e").is_err());
    }
}
