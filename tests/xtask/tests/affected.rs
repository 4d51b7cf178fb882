//! `cargo xtask affected` on the graph of this workspace: changes, and the exact crates and areas that they affect.
//!
//! Services with a database stand for each other where a change reaches all of them; [`SERVICES`] is their list.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use xtask::{
    affected::{self, Affected, Graph, Lock},
    checkout, process,
    services::NAMES as SERVICES,
};

/// Every crate but [`SERVICES`].
const OTHERS: [&str; 19] = [
    "bench",
    "chassis",
    "commerce-mesh",
    "commerce-mesh-ctl",
    "commerce-mesh-events",
    "commerce-mesh-identity",
    "commerce-mesh-proto",
    "commerce-mesh-rabbitmq",
    "commerce-mesh-runtime",
    "commerce-mesh-store",
    "commerce-mesh-transcode",
    "edge",
    "interop",
    "kernel",
    "proto",
    "routeguide",
    "standalone",
    "tests",
    "xtask",
];

fn graph() -> Graph {
    Graph::read(&checkout::metadata().unwrap()).unwrap()
}

fn lock() -> String {
    fs::read_to_string(checkout::root().join("Cargo.lock")).unwrap()
}

fn affected_by(files: &[&str]) -> Affected {
    let locks = || panic!("no lock file was changed");
    affected::affected(&graph(), files.iter().copied(), locks).unwrap()
}

/// What is affected when a package of the registry gets another checksum, and the lock file with it.
fn affected_by_package(name: &str) -> Affected {
    let now = lock();
    let header = format!("name = \"{name}\"\n");
    let place = now.find(&header).expect("the package is locked");
    let (head, tail) = now.split_at(place);
    let before = format!(
        "{head}{}",
        tail.replacen("checksum = \"", "checksum = \"0", 1)
    );
    assert_ne!(before, now);
    let locks = || Ok((Lock::parse(&before)?, Lock::parse(&now)?));
    affected::affected(&graph(), ["Cargo.lock"], locks).unwrap()
}

#[track_caller]
fn expect(found: Affected, groups: &[&[&str]], areas: &[&str]) {
    let expected: BTreeSet<_> = groups.concat().into_iter().map(str::to_owned).collect();
    assert_eq!(found.crates, expected);
    let found: Vec<_> = found.areas.iter().map(|area| area.name()).collect();
    assert_eq!(found, areas);
}

#[track_caller]
fn everything(found: Affected) {
    expect(found, &[&OTHERS, SERVICES], &[]);
}

#[test]
fn the_workspace_has_these_crates() {
    let graph = graph();
    let found: BTreeSet<_> = graph.names().collect();
    assert_eq!(found, OTHERS.iter().chain(SERVICES).copied().collect());
}

#[test]
fn no_change_affects_nothing() {
    expect(affected_by(&[]), &[], &[]);
}

#[test]
fn what_a_providers_own_library_accepts_affects_payment() {
    expect(
        affected_by(&["tests/verify/stripe/webhooks.jsonl"]),
        &[&["payment"]],
        &["tools"],
    );
}

#[test]
fn documents_affect_no_crate() {
    let files = [
        "README.md",
        "CHANGELOG.md",
        "docs/performance.md",
        "LICENSE-MIT",
    ];
    expect(affected_by(&files), &[], &["docs"]);
}

#[test]
fn a_document_that_is_compared_with_the_code_affects_the_tests_that_do_so() {
    for file in [
        "docs/configuration.md",
        "docs/operations.md",
        "ARCHITECTURE.md",
    ] {
        expect(affected_by(&[file]), &[&["tests"]], &["docs"]);
    }
}

#[test]
fn the_contract_of_one_service_affects_whoever_is_built_with_the_contracts() {
    expect(
        affected_by(&["proto/commerce/payment/v1/payment_service.proto"]),
        &[SERVICES, &["proto", "edge", "standalone", "tests", "bench"]],
        &["proto"],
    );
}

#[test]
fn the_options_of_the_mesh_affect_all_that_read_them() {
    let found = affected_by(&["mesh/proto/proto/mesh/v1/options.proto"]);
    let strangers = ["commerce-mesh-identity", "kernel", "xtask"];
    let others: Vec<_> = OTHERS
        .iter()
        .copied()
        .filter(|name| !strangers.contains(name))
        .collect();
    expect(found, &[SERVICES, &others], &["proto"]);
}

#[test]
fn the_rules_of_buf_affect_no_crate() {
    expect(affected_by(&["buf.yaml"]), &[], &["proto"]);
}

#[test]
fn a_service_affects_itself_the_shop_in_one_process_and_the_scenarios() {
    expect(
        affected_by(&["services/payment/src/ledger.rs"]),
        &[&["payment", "standalone", "tests"]],
        &[],
    );
}

#[test]
fn the_tests_of_a_service_affect_nobody_behind_it() {
    expect(
        affected_by(&["services/payment/tests/contract/main.rs"]),
        &[&["payment", "tests"]],
        &[],
    );
}

#[test]
fn the_mesh_affects_whoever_calls_through_it() {
    expect(
        affected_by(&["mesh/rpc/src/retry.rs"]),
        &[
            SERVICES,
            &[
                "commerce-mesh",
                "commerce-mesh-events",
                "commerce-mesh-store",
                "commerce-mesh-rabbitmq",
                "commerce-mesh-ctl",
                // Its tests only; who is built with it is not affected by that.
                "commerce-mesh-runtime",
                "chassis",
                "edge",
                "standalone",
                "tests",
                "bench",
                "interop",
                "routeguide",
            ],
        ],
        &[],
    );
}

#[test]
fn transcoding_affects_the_edge_and_what_holds_one() {
    expect(
        affected_by(&["mesh/transcode/src/lib.rs"]),
        &[&["commerce-mesh-transcode", "edge", "standalone", "tests"]],
        &[],
    );
}

#[test]
fn the_broker_does_not_affect_the_edge() {
    expect(
        affected_by(&["mesh/rabbitmq/src/lib.rs"]),
        &[
            SERVICES,
            &[
                "commerce-mesh-rabbitmq",
                "commerce-mesh-ctl",
                "chassis",
                "standalone",
                "tests",
                "bench",
            ],
        ],
        &[],
    );
}

#[test]
fn xtask_affects_those_whose_tests_start_servers_with_it() {
    expect(
        affected_by(&["tests/xtask/src/process.rs"]),
        &[&["xtask", "commerce-mesh-rabbitmq", "tests", "bench"]],
        &[],
    );
}

#[test]
fn a_pipeline_affects_the_tests_that_parse_its_commands() {
    expect(
        affected_by(&[".github/workflows/release.yml"]),
        &[&["xtask"]],
        &["workflows"],
    );
}

#[test]
fn manifests_scripts_and_tools_affect_no_crate() {
    expect(
        affected_by(&["k8s/base/edge/deployment.yaml"]),
        &[],
        &["k8s"],
    );
    expect(affected_by(&[".ci/run"]), &[], &["workflows"]);
    expect(
        affected_by(&["tests/verify/requirements.txt"]),
        &[],
        &["tools"],
    );
}

#[test]
fn several_files_affect_what_each_of_them_does() {
    expect(
        affected_by(&[
            "README.md",
            "k8s/base/edge/deployment.yaml",
            "services/edge/src/app.rs",
        ]),
        &[&["edge", "standalone", "tests"]],
        &["k8s", "docs"],
    );
}

#[test]
fn what_all_are_built_by_affects_everything() {
    for file in [
        "Cargo.toml",
        "clippy.toml",
        "rustfmt.toml",
        "rust-toolchain.toml",
        ".cargo/config.toml",
    ] {
        everything(affected_by(&[file]));
    }
}

#[test]
fn a_file_that_no_rule_knows_affects_everything() {
    everything(affected_by(&["services/removed/src/lib.rs"]));
}

#[test]
fn the_same_lock_affects_nothing() {
    let locks = || Ok((Lock::parse(&lock())?, Lock::parse(&lock())?));
    expect(
        affected::affected(&graph(), ["Cargo.lock"], locks).unwrap(),
        &[],
        &[],
    );
}

#[test]
fn a_locked_package_affects_whoever_is_built_with_it() {
    expect(
        affected_by_package("lapin"),
        &[
            SERVICES,
            &[
                "commerce-mesh-rabbitmq",
                "commerce-mesh-ctl",
                "chassis",
                "standalone",
                "tests",
                "bench",
            ],
        ],
        &[],
    );
}

#[test]
fn a_locked_package_of_tests_affects_those_tests() {
    expect(
        affected_by_package("csv"),
        &[&["payment", "product", "tests"]],
        &[],
    );
}

#[test]
fn every_file_of_the_tree_is_known_to_a_rule() {
    let listed = process::output(process::command("git").args(["ls-files"])).unwrap();
    let graph = graph();
    let unknown = listed.lines().filter(|file| {
        let locks = || Ok((Lock::parse("")?, Lock::parse("")?));
        let found = affected::affected(&graph, [*file], locks).unwrap();
        found.crates.len() == OTHERS.len() + SERVICES.len()
    });
    assert_eq!(
        unknown.collect::<Vec<_>>(),
        [
            ".cargo/config.toml",
            ".config/nextest.toml",
            "Cargo.lock",
            "Cargo.toml",
            "clippy.toml",
            "rustfmt.toml"
        ]
    );
}

/// Dependencies that cargo does not know: `include_str!` and `include_bytes!` of a file outside the crate.
#[test]
fn a_file_that_a_crate_includes_from_outside_affects_it() {
    let root = checkout::root();
    let listed = process::output(process::command("git").args(["ls-files", "*.rs"])).unwrap();
    let graph = graph();
    let mut outside = 0;
    for file in listed.lines() {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        let (owner, _) = graph.owner(file).expect("Rust files lie in crates");
        for included in ["include_str!(\"", "include_bytes!(\""]
            .iter()
            .flat_map(|start| text.split(start).skip(1))
        {
            let path = included.split('"').next().unwrap_or_default();
            let target = normal(&Path::new(file).with_file_name(path));
            let target = target.to_string_lossy();
            if root.join(&*target).is_file()
                && graph.owner(&target).is_none_or(|(name, _)| name != owner)
            {
                outside += 1;
                let found = affected_by(&[&target]);
                assert!(
                    found.crates.contains(owner),
                    "{file} includes {target}, and no rule says so"
                );
            }
        }
    }
    assert!(
        outside > 0,
        "the runbooks' test includes docs/operations.md"
    );
}

/// The path without `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}
