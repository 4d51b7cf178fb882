//! Who may depend on whom, by the manifests of the workspace.

use serde_json::Value;

use crate::{Violation, none, one, source};

/// A package: its folder, and what it depends on (for building, testing and running alike).
struct Package {
    folder: String,
    /// Folders of this workspace.
    inside: Vec<String>,
    /// Names in the registry.
    outside: Vec<String>,
}

/// By folder: what a package may depend on in this workspace; the first line that fits counts.
const INSIDE: [(&str, &[&str]); 13] = [
    ("mesh/proto", &[]),
    // Its tests kill a broker of their own, which xtask starts.
    ("mesh/rabbitmq", &["mesh/", "tests/xtask"]),
    ("mesh/", &["mesh/"]),
    ("proto", &["mesh/proto"]),
    ("services/kernel", &[]),
    // What services have in common besides values: no contract and no domain.
    ("services/chassis", &["mesh/", "services/kernel"]),
    ("services/edge", &["mesh/", "proto"]),
    ("services/standalone", &["mesh/", "proto", "services/"]),
    // The services: nothing of each other, nor of the edge.
    (
        "services/",
        &["mesh/", "proto", "services/kernel", "services/chassis"],
    ),
    // It measures the services from outside, and knows none of them.
    (
        "tests/bench",
        &["mesh/", "proto", "tests/interop", "tests/xtask"],
    ),
    // A stranger to the shop, as whoever takes the mesh alone.
    ("tests/interop", &["mesh/"]),
    ("tests/xtask", &[]),
    ("tests", &["mesh/", "proto", "services/", "tests/xtask"]),
];

const SQL: &[&str] = &[
    "sqlx",
    "libsqlite3-sys",
    "rusqlite",
    "postgres",
    "tokio-postgres",
];
const BROKER: &[&str] = &["lapin", "amqprs"];
const IO: &[&str] = &[
    "tokio",
    "hyper",
    "hyper-util",
    "axum",
    "reqwest",
    "tonic",
    "tower-http",
];

/// By folder: what a package must not depend on in the registry, and why.
const OUTSIDE: [(&str, &[&[&str]], &str); 10] = [
    ("mesh/proto", &[SQL, BROKER], "annotations only"),
    (
        "mesh/rpc",
        &[SQL, BROKER],
        "the mesh knows no SQL and no broker",
    ),
    (
        "mesh/runtime",
        &[SQL, BROKER],
        "every process has it, not every process a database",
    ),
    (
        "mesh/events",
        &[SQL, BROKER],
        "SQL is what mesh/store is for, a broker what mesh/rabbitmq is for",
    ),
    ("mesh/store", &[BROKER], "a database needs no broker"),
    ("mesh/rabbitmq", &[SQL], "SQL is what mesh/store is for"),
    ("mesh/transcode", &[SQL, BROKER, IO], "it does no I/O"),
    ("proto", &[SQL, BROKER], "generated types only"),
    (
        "services/kernel",
        &[SQL, BROKER, IO, &["prost", "async-trait"]],
        "it is pure",
    ),
    ("services/edge", &[SQL, BROKER], "the edge has no database"),
];

fn inside(packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages {
        let Some((_, allowed)) = INSIDE
            .iter()
            .find(|(folder, _)| fits(&package.folder, folder))
        else {
            violations.push(Violation::new(
                &package.folder,
                "no rule says what it may depend on",
            ));
            continue;
        };
        for dependency in &package.inside {
            if dependency != &package.folder
                && !allowed.iter().any(|folder| fits(dependency, folder))
            {
                violations.push(Violation::new(
                    &package.folder,
                    format!("must not depend on {dependency}"),
                ));
            }
        }
    }
    violations
}

/// Whether a folder is the named one or, for a name that ends with a slash, lies in it.
fn fits(folder: &str, rule: &str) -> bool {
    folder == rule || (rule.ends_with('/') && folder.starts_with(rule))
}

fn outside(packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages {
        let rules = OUTSIDE
            .iter()
            .filter(|(folder, _, _)| fits(&package.folder, folder));
        for (_, banned, reason) in rules {
            let banned = banned.concat();
            for dependency in package
                .outside
                .iter()
                .filter(|name| banned.contains(&name.as_str()))
            {
                let what = format!("must not depend on {dependency}: {reason}");
                violations.push(Violation::new(&package.folder, what));
            }
        }
    }
    violations
}

fn packages() -> Vec<Package> {
    let metadata = xtask::checkout::metadata().expect("cargo metadata answers");
    let root = metadata["workspace_root"]
        .as_str()
        .expect("it names the root")
        .to_owned()
        + "/";
    let relative = |path: &str| path.strip_prefix(&root).unwrap_or(path).to_owned();
    let packages = metadata["packages"].as_array().expect("it lists packages");
    let read = |package: &Value| {
        let manifest = relative(
            package["manifest_path"]
                .as_str()
                .expect("a package has a manifest"),
        );
        let dependencies = package["dependencies"]
            .as_array()
            .expect("a package lists dependencies");
        let paths = dependencies
            .iter()
            .filter_map(|dependency| dependency["path"].as_str());
        let registry = dependencies
            .iter()
            .filter(|dependency| dependency["path"].is_null());
        Package {
            folder: manifest.trim_end_matches("/Cargo.toml").to_owned(),
            inside: paths.map(relative).collect(),
            outside: registry
                .filter_map(|dependency| Some(dependency["name"].as_str()?.to_owned()))
                .collect(),
        }
    };
    packages.iter().map(read).collect()
}

/// Every member takes lints, versions and features from the workspace.
fn manifests(files: &[(String, String)]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (path, text) in files {
        let mut lints = false;
        let mut section = "";
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
            } else if section == "lints" {
                lints |= line == "workspace = true";
            } else if section.ends_with("dependencies")
                && !line.is_empty()
                && !line.starts_with('#')
                && (!line.contains("workspace = true") || line.contains("features"))
            {
                let what = format!("version and features belong into the workspace: {line}");
                violations.push(Violation::new(path, what));
            }
        }
        if !lints {
            violations.push(Violation::new(path, "does not take the workspace's lints"));
        }
    }
    violations
}

#[test]
fn packages_depend_only_on_whom_they_may() {
    let packages = packages();
    assert!(
        packages.len() >= INSIDE.len(),
        "cargo metadata lists {} packages",
        packages.len()
    );
    none(&inside(&packages));
}

#[test]
fn a_service_that_depends_on_another_is_found() {
    let package = |folder: &str, dependency: &str| Package {
        folder: folder.to_owned(),
        inside: vec![dependency.to_owned()],
        outside: Vec::new(),
    };
    for (folder, dependency) in [
        ("services/payment", "services/product"),
        ("services/edge", "services/payment"),
        ("services/kernel", "proto"),
        ("services/chassis", "proto"),
        ("mesh/rpc", "proto"),
        ("mesh/events", "services/kernel"),
        ("mesh/rabbitmq", "proto"),
        ("mesh/proto", "mesh/rpc"),
        ("tests/xtask", "proto"),
    ] {
        one(
            &inside(&[package(folder, dependency)]),
            &format!("{folder}: must not depend on {dependency}"),
        );
    }
    one(&inside(&[package("tools/new", "proto")]), "no rule says");
    none(&inside(&[
        package("services/payment", "mesh/rpc"),
        package("tests", "services/edge"),
    ]));
}

#[test]
fn packages_avoid_what_is_not_theirs() {
    none(&outside(&packages()));
}

#[test]
fn a_database_in_the_mesh_is_found() {
    let package = |folder: &str, dependency: &str| Package {
        folder: folder.to_owned(),
        inside: Vec::new(),
        outside: vec![dependency.to_owned()],
    };
    one(
        &outside(&[package("mesh/rpc", "sqlx")]),
        "the mesh knows no SQL",
    );
    one(
        &outside(&[package("services/kernel", "tokio")]),
        "it is pure",
    );
    one(&outside(&[package("mesh/transcode", "hyper")]), "no I/O");
    one(
        &outside(&[package("mesh/events", "lapin")]),
        "what mesh/rabbitmq is for",
    );
    none(&outside(&[
        package("mesh/store", "sqlx"),
        package("mesh/rabbitmq", "lapin"),
    ]));
}

#[test]
fn members_take_lints_and_versions_from_the_workspace() {
    let manifests_of_members: Vec<_> = source::files()
        .into_iter()
        .filter(|(path, _)| path.ends_with("/Cargo.toml"))
        .collect();
    none(&manifests(&manifests_of_members));
}

#[test]
fn a_manifest_of_its_own_mind_is_found() {
    let plant = |text: &str| manifests(&[("mesh/x/Cargo.toml".to_owned(), text.to_owned())]);
    let lints = "[lints]\nworkspace = true\n";
    one(
        &plant("[dependencies]\n"),
        "does not take the workspace's lints",
    );
    one(
        &plant(&format!("{lints}[dependencies]\nserde = \"1\"\n")),
        "serde",
    );
    one(
        &plant(&format!(
            "{lints}[dev-dependencies]\ntokio = {{ workspace = true, features = [\"rt\"] }}\n"
        )),
        "features",
    );
    none(&plant(&format!(
        "[dependencies]\n# why\nserde.workspace = true\n{lints}"
    )));
}
