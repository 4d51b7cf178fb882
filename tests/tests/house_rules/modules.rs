//! What the modules of a service may name: the domain knows neither the wire nor the database.

use xtask::services::NAMES;

use crate::{
    Violation, none, one,
    source::{Source, paths},
};

/// Files and folders below a service's `src/` that do I/O or translate, as `ARCHITECTURE.md` names them; everything
/// else is domain.
const BORDERS: [&str; 9] = [
    "lib.rs",
    "main.rs",
    "process.rs",
    "config.rs",
    "error.rs",
    "grpc.rs",
    "grpc/",
    "consumer.rs",
    "store/",
];

/// Further ones, and why they are no domain.
const MORE_BORDERS: [(&str, &str); 19] = [
    (
        "services/product/src/wire.rs",
        "makes messages of the contract",
    ),
    (
        "services/payment/src/wire.rs",
        "makes messages of the contract",
    ),
    (
        "services/payment/src/wire/",
        "makes messages of the contract",
    ),
    (
        "services/payment/src/catalogue.rs",
        "calls the product service",
    ),
    ("services/payment/src/money.rs", "calls the provider"),
    (
        "services/payment/src/saga.rs",
        "carries out what step/ decides",
    ),
    ("services/payment/src/commands.rs", "waits for the saga"),
    (
        "services/payment/src/reconciler.rs",
        "asks providers for their lists by the clock",
    ),
    (
        "services/payment/src/office.rs",
        "opens the database for whoever sits at the command line",
    ),
    (
        "services/payment/src/sealer.rs",
        "gives records their places by the clock",
    ),
    (
        "services/payment/src/worker.rs",
        "looks for work by the clock",
    ),
    (
        "services/product/src/sweeper.rs",
        "looks for work by the clock",
    ),
    ("services/product/src/watch.rs", "waits for changes"),
    (
        "services/payment/src/bin/",
        "programs, which own their sockets",
    ),
    (
        "services/payment/src/provider/https.rs",
        "speaks HTTP with providers",
    ),
    (
        "services/payment/src/provider/secret.rs",
        "reads keys from their files",
    ),
    ("services/payment/src/provider/stripe/", "calls Stripe"),
    ("services/payment/src/provider/toss/", "calls Toss Payments"),
    (
        "services/payment/src/provider/simulator/",
        "a party of its own, with its journal and its deliveries",
    ),
];

/// What of a path lies below a service's `src/`.
fn inside_a_service(path: &str) -> Option<&str> {
    let (service, inside) = path.strip_prefix("services/")?.split_once("/src/")?;
    NAMES.contains(&service).then_some(inside)
}

/// What the domain must not name, and why.
const BANNED: [(&str, &str); 13] = [
    ("tonic", "gRPC is translated in grpc.rs"),
    ("tonic_types", "errors become a Status in error.rs"),
    ("tonic_prost", "gRPC is translated in grpc.rs"),
    ("prost", "generated types end at grpc.rs"),
    ("prost_types", "generated types end at grpc.rs"),
    ("proto", "generated types end at grpc.rs"),
    ("sqlx", "SQL is what store/ is for"),
    ("mesh_store", "SQL is what store/ is for"),
    ("tokio", "the domain does no I/O and waits for nothing"),
    ("tokio::time", "`now` is an argument"),
    ("std::fs", "the domain does no I/O"),
    ("std::net", "the domain does no I/O"),
    ("std::time::SystemTime", "`now` is an argument"),
];

/// What no kernel may name: it is the same in every service because it does nothing but compute.
const KERNEL_BANNED: [(&str, &str); 4] = [
    ("std::fs", "the kernel is pure"),
    ("std::net", "the kernel is pure"),
    ("std::env", "the kernel is pure"),
    ("std::time::SystemTime", "`now` is an argument"),
];

fn imports(sources: &[Source]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| !source.is_tests()) {
        let banned: &[_] = if is_domain(&source.path) {
            &BANNED
        } else if source.path.starts_with("services/kernel/src/") {
            &KERNEL_BANNED
        } else {
            continue;
        };
        for path in paths(&source.syntax) {
            let path = path.join("::");
            let broken = banned.iter().find(|(name, _)| {
                path.strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
            });
            if let Some((_, reason)) = broken {
                violations.push(Violation::new(
                    &source.path,
                    format!("must not name {path}: {reason}"),
                ));
            }
        }
    }
    violations
}

/// By path: whether a name with a slash at the end is a folder above it, or another one is the path.
fn is_domain(path: &str) -> bool {
    let within =
        |path: &str, name: &str| path == name || (name.ends_with('/') && path.starts_with(name));
    let Some(inside) = inside_a_service(path) else {
        return false;
    };
    let border = BORDERS.iter().any(|border| within(inside, border))
        || MORE_BORDERS.iter().any(|(border, _)| within(path, border));
    !border
}

/// Exceptions that no file needs any more.
fn stale(sources: &[Source]) -> Vec<Violation> {
    let unused = MORE_BORDERS
        .iter()
        .filter(|(border, _)| !sources.iter().any(|source| source.path.starts_with(border)));
    unused
        .map(|(border, _)| Violation::new(*border, "is excepted and does not exist"))
        .collect()
}

#[test]
fn the_domain_knows_neither_wire_nor_database() {
    let sources = Source::all();
    for service in NAMES {
        let folder = format!("services/{service}/src/");
        let domain = sources
            .iter()
            .filter(|source| source.path.starts_with(&folder) && is_domain(&source.path));
        assert!(domain.count() >= 1, "{service} has a domain");
    }
    none(&imports(&sources));
    none(&stale(&sources));
}

#[test]
fn a_domain_module_that_names_the_wire_is_found() {
    let plant = |path: &str, text: &str| imports(&[Source::parse(path, text)]);
    let domain = "services/payment/src/ledger.rs";
    one(
        &plant(domain, "use tonic::Status;"),
        "must not name tonic::Status",
    );
    one(
        &plant(domain, "fn f(p: &proto::commerce::payment::v1::Payment) {}"),
        "end at grpc.rs",
    );
    one(
        &plant(domain, "use std::{fmt, time::SystemTime};"),
        "`now` is an argument",
    );
    one(
        &plant("services/kernel/src/money.rs", "use std::fs::File;"),
        "the kernel is pure",
    );
    none(&plant(
        domain,
        "use crate::tonic_scale; use kernel::Money; use std::time::Duration;",
    ));
    none(&plant(
        domain,
        "#[cfg(test)] mod tests { use sqlx::query; }",
    ));
    none(&plant("services/payment/src/grpc.rs", "use tonic::Status;"));
    none(&plant(
        "services/payment/src/store/sqlite.rs",
        "use sqlx::query;",
    ));
    none(&plant("services/edge/src/router.rs", "use tonic::Status;"));
}
