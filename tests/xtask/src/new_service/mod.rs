//! `cargo xtask new-service NAME`: the smallest whole service, wired into everything.
//!
//! It writes a contract with two RPCs, a crate with both stores, a consumer, the tests of all that and the manifests for
//! Kubernetes, and adds a line wherever services are listed. All or nothing: a file that is there already, or a place that is not
//! found, is an error before anything is written. The templates are a service called `widget`, in files that
//! read as what they become; the check `new-service` of `cargo xtask verify` builds one and asks it over REST.

mod name;
mod wiring;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use self::name::Name;
use crate::{checkout, docs, k8s_smoke, process};

/// What to call it.
#[derive(clap::Args)]
pub struct Options {
    /// The name of the service and of its resource: one word of small letters in the singular, such as `order`.
    name: String,
    /// What ids begin with, before the underscore; the first three letters of the name, unless given.
    #[arg(long, value_name = "LETTERS")]
    prefix: Option<String>,
}

/// The templates, and where each goes. The folder of the crate is `services/widget`.
const FILES: [(&str, &str); 14] = [
    (
        "proto/commerce/widget/v1/widget_service.proto",
        include_str!("template/service.proto"),
    ),
    (
        "services/widget/Cargo.toml",
        include_str!("template/Cargo.toml"),
    ),
    (
        "services/widget/migrations/0001_widget.sql",
        include_str!("template/0001_widget.sql"),
    ),
    (
        "services/widget/src/lib.rs",
        include_str!("template/lib.rs"),
    ),
    (
        "services/widget/src/main.rs",
        include_str!("template/main.rs"),
    ),
    (
        "services/widget/src/widget.rs",
        include_str!("template/widget.rs"),
    ),
    (
        "services/widget/src/grpc.rs",
        include_str!("template/grpc.rs"),
    ),
    (
        "services/widget/src/consumer.rs",
        include_str!("template/consumer.rs"),
    ),
    (
        "services/widget/src/store/mod.rs",
        include_str!("template/store.rs"),
    ),
    (
        "services/widget/tests/contract.rs",
        include_str!("template/contract.rs"),
    ),
    (
        "services/widget/tests/contract_postgres.rs",
        include_str!("template/contract_postgres.rs"),
    ),
    (
        "k8s/base/widget/widget.yaml",
        include_str!("template/widget.yaml"),
    ),
    (
        "k8s/base/widget/widget.toml",
        include_str!("template/widget.toml"),
    ),
    (
        "k8s/base/widget/kustomization.yaml",
        include_str!("template/kustomization.yaml"),
    ),
];

/// How many files are written at the most, and how many are to be edited: what a newcomer is ready to look through.
const FILES_MAX: usize = 14;
const EDIT_MAX: usize = 2;
const _: () = assert!(FILES.len() <= FILES_MAX && EDIT.len() <= EDIT_MAX);

/// What is yours to edit, for a service of your own meaning.
const EDIT: [&str; 2] = [
    "proto/commerce/widget/v1/widget_service.proto",
    "services/widget/src/widget.rs",
];

/// Everything that is going to be written, by path from the root.
struct Plan {
    new: BTreeMap<PathBuf, String>,
    changed: BTreeMap<PathBuf, String>,
}

/// Writes the service.
pub fn run(options: &Options) -> Result<()> {
    let root = checkout::root();
    let name = Name::new(&options.name, options.prefix.as_deref())?;
    let plan = plan(&root, &name)?;
    for (path, text) in plan.new.iter().chain(&plan.changed) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().expect("a file lies in a folder"))?;
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    // Names of another length break lines elsewhere; the lock file learns of the crate; its keys are documented.
    let format = ["fmt", "--package", &options.name, "--package", "proto"];
    process::output(
        process::cargo()
            .args(format)
            .args(["--package", "standalone"]),
    )?;
    process::output(process::cargo().args(["update", "--workspace", "--offline", "--quiet"]))?;
    fs::write(root.join(docs::FILE), docs::generate(&root)?)?;
    // Only an xtask that is built anew knows that there is one service more.
    let commands = process::output(process::cargo().args(k8s_smoke::DRY_RUN))?;
    fs::write(root.join(k8s_smoke::DRY_RUN_FILE), commands)?;
    print(&name, &plan);
    Ok(())
}

fn print(name: &Name, plan: &Plan) {
    println!("{} files written:", plan.new.len());
    for path in plan.new.keys() {
        println!("  {}", path.display());
    }
    let generated = [docs::FILE, k8s_smoke::DRY_RUN_FILE];
    println!("wired in {} files:", plan.changed.len() + generated.len());
    for path in plan.changed.keys() {
        println!("  {}", path.display());
    }
    for path in generated {
        println!("  {path}");
    }
    println!("yours to edit ({}):", EDIT.len());
    for path in EDIT {
        println!("  {}", name.fill(path));
    }
    println!(
        "docs/new-service.md says how to go on; `cargo run` serves /v1/{} already",
        name.fill("widgets")
    );
}

/// Crates of the workspace that no other one depends on.
const OTHER_CRATES: [&str; 5] = ["tests", "bench", "interop", "xtask", "routeguide"];

/// A name that is a crate already would be two in the manifest, which then is none.
fn refuse_crates(root: &Path, name: &Name) -> Result<()> {
    let manifest = fs::read_to_string(root.join("Cargo.toml")).context("cannot read Cargo.toml")?;
    let manifest: toml::Table = manifest.parse().context("Cargo.toml")?;
    let dependencies = manifest
        .get("workspace")
        .and_then(|of| of.get("dependencies"));
    let crates = dependencies.and_then(toml::Value::as_table);
    let taken = name.fill("widget");
    if crates.is_some_and(|crates| crates.contains_key(&taken)) || OTHER_CRATES.contains(&&*taken) {
        bail!("{taken:?} is a crate already");
    }
    Ok(())
}

fn plan(root: &Path, name: &Name) -> Result<Plan> {
    let mut plan = Plan {
        new: BTreeMap::new(),
        changed: BTreeMap::new(),
    };
    for (path, template) in FILES {
        let path = PathBuf::from(name.fill(path));
        if root.join(&path).exists() {
            bail!("{} is there already", path.display());
        }
        plan.new.insert(path, name.fill(template));
    }
    refuse_crates(root, name)?;
    for place in wiring::PLACES {
        let path = PathBuf::from(place.file);
        let text = match plan.changed.get(&path) {
            Some(text) => text.clone(),
            None => fs::read_to_string(root.join(&path))
                .with_context(|| format!("cannot read {}", place.file))?,
        };
        plan.changed.insert(path, place.wire(&text, name)?);
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text, None).unwrap()
    }

    #[test]
    fn every_place_is_found_in_this_tree() {
        // A name that nobody gives a service, so that this holds in a tree that has an `order` already.
        let plan = plan(&checkout::root(), &name("quibble")).unwrap();
        for (path, text) in &plan.changed {
            assert!(
                text.to_lowercase().contains("quibble"),
                "{}",
                path.display()
            );
        }
        for (path, text) in &plan.new {
            let left = text.to_lowercase().contains("widget") || text.contains("wdg");
            assert!(!left, "{} speaks of the template", path.display());
        }
    }

    #[test]
    fn a_service_runs_on_a_cluster_as_the_others_do() {
        let root = checkout::root();
        let (_, written) = plan(&root, &name("quibble"))
            .unwrap()
            .new
            .into_iter()
            .find(|(path, _)| path.ends_with("k8s/base/quibble/quibble.yaml"))
            .unwrap();
        let port = |from: u16| {
            let line = written
                .lines()
                .find(|line| line.contains("containerPort: "));
            let grpc: u16 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            (grpc - 50_000 + from).to_string()
        };
        let written = written
            .replace("quibble", "product")
            .replace("QUIBBLE", "PRODUCT")
            .replace(&port(50_000), "50051")
            .replace(&port(9_000), "9051");
        let (_, documents) = written.split_once('\n').unwrap(); // After what the file is.
        let folder = root.join("k8s/base/product");
        let files = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path());
        let ours = files
            .map(|file| fs::read_to_string(file).unwrap())
            .collect::<Vec<_>>();
        let ours = ours
            .iter()
            .flat_map(|file| file.split("---\n"))
            .collect::<Vec<_>>();
        for document in documents.split("---\n") {
            // Who calls a service is its own matter.
            let is_ours = document.contains("kind: NetworkPolicy") || ours.contains(&document);
            assert!(
                is_ours,
                "k8s/base/product has no such document:\n{document}"
            );
        }
    }

    #[test]
    fn a_crate_that_is_there_gives_no_service_its_name() {
        for taken in ["tokio", "serde", "proto", "tests"] {
            let error = plan(&checkout::root(), &name(taken)).err().unwrap();
            assert_eq!(error.to_string(), format!("{taken:?} is a crate already"));
        }
    }

    #[test]
    fn a_service_that_is_there_is_not_written_again() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("services/order/src/main.rs");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "").unwrap();
        let error = plan(root.path(), &name("order")).err().unwrap();
        assert_eq!(
            error.to_string(),
            "services/order/src/main.rs is there already"
        );
    }

    #[test]
    fn files_to_edit_are_among_those_that_are_written() {
        for path in EDIT {
            assert!(FILES.iter().any(|(written, _)| *written == path), "{path}");
        }
    }
}
