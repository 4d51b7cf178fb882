//! `cargo xtask k8s smoke`: the shop on a cluster, from nothing to a roll under load, and away again.
//!
//! Any conformant cluster will do that has cert-manager, enforces NetworkPolicies and knows ephemeral containers
//! (Kubernetes 1.25). No registry is needed where the images are loaded: `cargo xtask image`, then `cargo xtask image check
//! visitor`, then `kind load image-archive` or `ctr images import` of each archive.
//!
//! It was written without a cluster at hand and has never run on one. What was tested is the list of commands
//! (`--dry-run` prints it), and everything that does not need a cluster.

mod arrows;
mod catalogue;
mod kubectl;
mod manifests;

use std::fs;

use anyhow::{Context as _, Result, ensure};

use self::kubectl::Kubectl;
use crate::{
    checkout,
    image::REPOSITORY,
    k8s::architecture::{self, SERVICES},
    shop::Shop,
    tour,
};

/// What is applied.
const OVERLAY: &str = "k8s/overlays/dev";
/// The namespace that the overlay makes.
const SHOP: &str = "commerce-dev";
/// The namespace of customers and strangers, which the test makes.
const CLIENTS: &str = "commerce-smoke";
/// What has to be there before them.
const STORES: [&str; 3] = ["postgres", "rabbitmq", "simulator"];
/// How long anything may take to come up.
const UP_WITHIN: &str = "--timeout=10m";
/// Requests that may fail of those in which three pods are killed: what was in flight there.
const KILLED_FAILED_MAX: u32 = 100;

/// What every command of a test is compared with, from the root; `cargo` with these arguments prints it.
pub(crate) const DRY_RUN_FILE: &str = "tests/xtask/src/k8s_smoke/dry_run.txt";
pub(crate) const DRY_RUN: [&str; 11] = [
    "run",
    "--quiet",
    "--package=xtask",
    "--",
    "k8s",
    "smoke",
    "--context=here",
    "--tag=1.2.3",
    "--rate=50",
    "--load-seconds=600",
    "--dry-run",
];

/// Which cluster.
#[derive(clap::Args)]
pub struct Options {
    /// The context of kubectl. The namespaces `commerce-dev` and `commerce-smoke` must not be there: they are deleted at
    /// the end.
    #[arg(long, value_name = "NAME")]
    context: String,
    /// Print the commands and run none.
    #[arg(long)]
    dry_run: bool,
    /// Leave everything in the cluster.
    #[arg(long)]
    keep: bool,
    /// The tag of the images.
    #[arg(long, value_name = "TAG", default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Requests a second while pods are rolled and killed.
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// How long they come, in seconds: longer than rolling takes.
    #[arg(long, default_value_t = 600)]
    load_seconds: u32,
}

/// Runs all of it; deletes what it made, whatever became of it.
pub fn run(options: &Options) -> Result<()> {
    let kubectl = Kubectl::new(&options.context, options.dry_run);
    smoke(&kubectl, options)
}

fn smoke(kubectl: &Kubectl, options: &Options) -> Result<()> {
    for namespace in [SHOP, CLIENTS] {
        let there = kubectl.ask(
            &[
                "get",
                "namespace",
                namespace,
                "--ignore-not-found",
                "--output=name",
            ],
            "",
        )?;
        ensure!(
            there.is_empty(),
            "{there} is there already, and would be deleted"
        );
    }
    let outcome = steps(kubectl, options);
    if options.keep {
        kubectl.note("everything is left in the cluster");
        return outcome;
    }
    let cleaned = clean(kubectl);
    outcome.and(cleaned)
}

fn steps(kubectl: &Kubectl, options: &Options) -> Result<()> {
    let image = |program: &str| format!("{REPOSITORY}/{program}:{}", options.tag);
    let visitor = image("visitor");
    install(kubectl).context("installing")?;
    take_tour(kubectl).context("the README's tour")?;
    kubectl.apply(&[manifests::namespace(CLIENTS)])?;
    roll(kubectl, &visitor, options).context("rolling under load")?;
    kill(kubectl, &visitor, options).context("killing pods under load")?;
    arrows::probe(kubectl, &visitor).context("NetworkPolicies")?;
    check(kubectl, &image("check")).context("the invariants")
}

fn install(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["apply", "--kustomize", OVERLAY])?;
    for store in STORES {
        rolled_out(kubectl, &format!("statefulset/{store}"))?;
    }
    let shop = format!("--namespace={SHOP}");
    let migrations: Vec<_> = architecture::keepers()
        .map(architecture::migration)
        .collect();
    let jobs = format!(
        "--selector=app.kubernetes.io/name in ({})",
        migrations.join(",")
    );
    kubectl.run(&[
        &shop,
        "wait",
        "job",
        &jobs,
        "--for=condition=complete",
        UP_WITHIN,
    ])?;
    for service in SERVICES.iter().map(|service| service.name) {
        rolled_out(kubectl, &format!("deployment/{service}"))?;
    }
    Ok(())
}

fn rolled_out(kubectl: &Kubectl, workload: &str) -> Result<()> {
    let shop = format!("--namespace={SHOP}");
    kubectl.run(&[&shop, "rollout", "status", workload, UP_WITHIN])
}

/// The README's commands against the edge, on the catalogue that they are written for.
fn take_tour(kubectl: &Kubectl) -> Result<()> {
    let forward = kubectl.forward(SHOP, "service/edge", 80)?;
    kubectl.note(&format!(
        "the sample catalogue goes on sale at {0}; then the README's tour against {0}",
        forward.address
    ));
    if kubectl.is_dry() {
        return Ok(());
    }
    let logs = checkout::target()?.join("verify");
    fs::create_dir_all(&logs)?;
    let sample = Shop::start(&logs, "sample")?;
    catalogue::copy(&sample, &forward.address)?;
    drop(sample);
    tour::take(&checkout::root().join("README.md"), &forward.address)
}

/// A new version of everything, and a node that is emptied, while customers ask: no request may fail.
fn roll(kubectl: &Kubectl, visitor: &str, options: &Options) -> Result<()> {
    let seconds = format!("--seconds={}", options.load_seconds);
    let rate = format!("--rate={}", options.rate);
    begin(kubectl, "roll", visitor, &[&rate, &seconds])?;
    let shop = format!("--namespace={SHOP}");
    for service in SERVICES.iter().map(|service| service.name) {
        let workload = format!("deployment/{service}");
        kubectl.run(&[&shop, "rollout", "restart", &workload])?;
        rolled_out(kubectl, &workload)?;
    }
    drain_node(kubectl)?;
    let clients = format!("--namespace={CLIENTS}");
    let active = kubectl.ask(
        &[
            &clients,
            "get",
            "job/roll",
            "--output=jsonpath={.status.active}",
        ],
        "1",
    )?;
    ensure!(
        active == "1",
        "the load has failed, or ended before the rolls: see its log, or give more --load-seconds"
    );
    end(kubectl, "roll")
}

/// Empties the node of an edge of the shop's own pods, where there is another node to go to.
fn drain_node(kubectl: &Kubectl) -> Result<()> {
    let nodes = kubectl.ask(
        &[
            "get",
            "nodes",
            "--output=jsonpath={.items[?(@.spec.unschedulable!=true)].metadata.name}",
        ],
        "NODE OTHER-NODE",
    )?;
    if nodes.split_whitespace().count() < 2 {
        kubectl.note("SKIPPED emptying a node: there is no other one to go to");
        return Ok(());
    }
    let shop = format!("--namespace={SHOP}");
    let edge = "--selector=app.kubernetes.io/name=edge";
    let its_node = "--output=jsonpath={.items[0].spec.nodeName}";
    let node = kubectl.ask(&[&shop, "get", "pods", edge, its_node], "NODE")?;
    let names: Vec<_> = SERVICES.iter().map(|service| service.name).collect();
    let pods = format!(
        "--pod-selector=app.kubernetes.io/name in ({})",
        names.join(",")
    );
    let drained = kubectl.run(&[
        "drain",
        &node,
        &pods,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        UP_WITHIN,
    ]);
    let back = kubectl.run(&["uncordon", &node]);
    drained.and(back)?;
    SERVICES
        .iter()
        .try_for_each(|service| rolled_out(kubectl, &format!("deployment/{}", service.name)))
}

/// A pod of each service dies at once while customers ask: only what was in flight there may fail.
fn kill(kubectl: &Kubectl, visitor: &str, options: &Options) -> Result<()> {
    let rate = format!("--rate={}", options.rate);
    let failed = format!("--failed-max={KILLED_FAILED_MAX}");
    begin(kubectl, "kill", visitor, &[&rate, "--seconds=120", &failed])?;
    let shop = format!("--namespace={SHOP}");
    for service in SERVICES.iter().map(|service| service.name) {
        let selector = format!("--selector=app.kubernetes.io/name={service}");
        let first = "--output=jsonpath={.items[0].metadata.name}";
        let pod = kubectl.ask(
            &[&shop, "get", "pods", &selector, first],
            &format!("{service}-POD"),
        )?;
        kubectl.run(&[&shop, "delete", "pod", &pod, "--grace-period=0", "--force"])?;
        rolled_out(kubectl, &format!("deployment/{service}"))?;
    }
    end(kubectl, "kill")
}

/// Lets customers in, and waits until they are there.
fn begin(kubectl: &Kubectl, name: &str, visitor: &str, options: &[&str]) -> Result<()> {
    kubectl.apply(&[manifests::load(name, visitor, options)])?;
    let (clients, job) = (format!("--namespace={CLIENTS}"), format!("job/{name}"));
    let there = "--for=jsonpath={.status.ready}=1";
    kubectl.run(&[&clients, "wait", &job, there, "--timeout=2m"])
}

/// Waits until they have gone, satisfied; shows what they counted.
fn end(kubectl: &Kubectl, name: &str) -> Result<()> {
    let (clients, job) = (format!("--namespace={CLIENTS}"), format!("job/{name}"));
    let content = kubectl.run(&[
        &clients,
        "wait",
        &job,
        "--for=condition=complete",
        "--timeout=20m",
    ]);
    kubectl.tell(&[&clients, "logs", &job])?;
    content
}

/// The invariant checker beside the stores. The simulator rests meanwhile: its journal can be mounted once.
fn check(kubectl: &Kubectl, image: &str) -> Result<()> {
    let shop = format!("--namespace={SHOP}");
    kubectl.run(&[&shop, "scale", "statefulset/simulator", "--replicas=0"])?;
    let gone = "--selector=app.kubernetes.io/name=simulator";
    kubectl.run(&[&shop, "wait", "pod", gone, "--for=delete", "--timeout=2m"])?;
    let overlay = if kubectl.is_dry() {
        String::new()
    } else {
        let file = checkout::root().join(OVERLAY).join("kustomization.yaml");
        fs::read_to_string(&file).with_context(|| file.display().to_string())?
    };
    let secret = |name: &str| {
        if kubectl.is_dry() {
            return Ok(String::new());
        }
        literal(&overlay, name, "password")
    };
    kubectl.apply(&manifests::arrows_of_check())?;
    kubectl.apply(&[
        manifests::places(&secret("postgres-superuser")?, &secret("rabbitmq-user")?),
        manifests::check(image),
    ])?;
    let done = kubectl.run(&[
        &shop,
        "wait",
        "job/check",
        "--for=condition=complete",
        UP_WITHIN,
    ]);
    kubectl.tell(&[&shop, "logs", "job/check"])?;
    done
}

/// A literal of the overlay's `secretGenerator`, one generator a line: `- {name: NAME, literals: [KEY=VALUE, …]}`. The
/// cluster's own Secrets have a hash behind their names.
fn literal(overlay: &str, name: &str, key: &str) -> Result<String> {
    let start = format!("- {{name: {name}, literals: [");
    let line = overlay
        .lines()
        .find_map(|line| line.trim().strip_prefix(&start));
    let literals = line
        .and_then(|rest| rest.split(']').next())
        .unwrap_or_default();
    let mut pairs = literals
        .split(',')
        .filter_map(|pair| pair.trim().split_once('='));
    let value = pairs
        .find(|(of, _)| *of == key)
        .map(|(_, value)| value.to_owned());
    value.with_context(|| format!("{OVERLAY} generates no Secret {name} with a literal {key}"))
}

fn clean(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&[
        "delete",
        "--kustomize",
        OVERLAY,
        "--ignore-not-found",
        UP_WITHIN,
    ])?;
    kubectl.run(&[
        "delete",
        "namespace",
        SHOP,
        CLIENTS,
        "--ignore-not-found",
        UP_WITHIN,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dry(options: Options) -> String {
        let kubectl = Kubectl::new(&options.context, true);
        smoke(&kubectl, &options).unwrap();
        kubectl.typed()
    }

    fn options() -> Options {
        Options {
            context: "here".to_owned(),
            dry_run: true,
            keep: false,
            tag: "1.2.3".to_owned(),
            rate: 50,
            load_seconds: 600,
        }
    }

    #[test]
    fn a_dry_run_prints_every_command() {
        assert_eq!(dry(options()), include_str!("dry_run.txt"));
    }

    #[test]
    fn what_is_kept_is_not_deleted() {
        let kept = dry(Options {
            keep: true,
            ..options()
        });
        assert!(kept.ends_with("# everything is left in the cluster\n"));
        assert!(!kept.contains("delete --kustomize") && !kept.contains("delete namespace"));
    }

    #[test]
    fn a_secret_of_the_overlay_is_found() {
        let overlay =
            "secretGenerator: # Of a cluster.\n  - {name: a, literals: [username=b, password=c]}\n";
        assert_eq!(literal(overlay, "a", "password").unwrap(), "c");
        let error = literal(overlay, "b", "password").unwrap_err().to_string();
        assert!(
            error.ends_with("no Secret b with a literal password"),
            "{error}"
        );
    }
}
