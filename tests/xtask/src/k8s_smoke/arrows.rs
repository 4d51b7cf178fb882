//! Who may reach whom, asked from inside: from a container that is added to a running pod and so stands where the pod's
//! NetworkPolicies hold, and from a stranger's namespace.

use anyhow::{Result, bail, ensure};

use super::{CLIENTS, SHOP, kubectl::Kubectl, manifests::Program};
use crate::k8s::architecture;

/// Nobody of the shop, in another namespace.
const STRANGER: &str = "stranger";
/// The Service of the edge stands at another port than its pods; all others stand at the same.
const EDGE_PORT: u16 = 80;
/// The overlay whose arrows are asked for.
const ARCHITECTURE: &str = "dev";
/// How long a container for asking may take until it has answered.
const ASKED_WITHIN: &str = "--timeout=2m";

/// Asks from everywhere; an error names each arrow that is missing or too many.
pub(super) fn probe(kubectl: &Kubectl, image: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for from in starts() {
        let targets: Vec<_> = targets(&from).map(|(_, address)| address).collect();
        let mut arguments = vec!["reach"];
        arguments.extend(targets.iter().map(String::as_str));
        let said = if from == STRANGER {
            from_outside(kubectl, image, &arguments)?
        } else {
            from_pod(kubectl, image, &from, &arguments)?
        };
        if !kubectl.is_dry() {
            wrong.extend(differences(&from, &reached(&from), &said)?);
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Whoever runs and has an arrow, and the stranger. A migration has ended by now.
fn starts() -> Vec<String> {
    let mut starts = Vec::new();
    for (from, ..) in architecture::arrows(ARCHITECTURE) {
        if !starts.contains(&from) && !is_migration(&from) {
            starts.push(from);
        }
    }
    starts.push(STRANGER.to_owned());
    starts
}

fn is_migration(name: &str) -> bool {
    architecture::keepers().any(|service| architecture::migration(service) == name)
}

/// Whom somebody may reach.
fn reached(from: &str) -> Vec<&'static str> {
    if from == STRANGER {
        return vec!["edge"]; // In `dev` whoever is in the cluster may.
    }
    let arrows = architecture::arrows(ARCHITECTURE).into_iter();
    arrows
        .filter(|arrow| arrow.0 == from)
        .map(|(_, to, _)| to)
        .collect()
}

/// What somebody tries to reach, each with its address: every end of an arrow. No policy keeps a pod from itself, and
/// the name of a service may be the pod that asks.
fn targets(from: &str) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let mut targets: Vec<(&str, u16)> = Vec::new();
    for (_, to, port) in architecture::arrows(ARCHITECTURE) {
        let port = if to == "edge" { EDGE_PORT } else { port };
        if to != from && !targets.contains(&(to, port)) {
            targets.push((to, port));
        }
    }
    let address = |(name, port)| (name, format!("{name}.{SHOP}:{port}"));
    targets.into_iter().map(address)
}

fn from_outside(kubectl: &Kubectl, image: &str, arguments: &[&str]) -> Result<String> {
    let stranger = Program {
        name: STRANGER,
        namespace: CLIENTS,
        image,
        arguments,
        retries: 0,
        volumes: &[],
    };
    kubectl.apply(&[stranger.job()])?;
    let clients = format!("--namespace={CLIENTS}");
    kubectl.run(&[
        &clients,
        "wait",
        "job/stranger",
        "--for=condition=complete",
        ASKED_WITHIN,
    ])?;
    kubectl.ask(&[&clients, "logs", "job/stranger"], "")
}

fn from_pod(kubectl: &Kubectl, image: &str, from: &str, arguments: &[&str]) -> Result<String> {
    let shop = format!("--namespace={SHOP}");
    let selector = format!("--selector=app.kubernetes.io/name={from}");
    let first = "--output=jsonpath={.items[0].metadata.name}";
    let pod = kubectl.ask(
        &[&shop, "get", "pods", &selector, first],
        &format!("{from}-POD"),
    )?;
    let image = format!("--image={image}");
    let mut debug = vec![
        shop.as_str(),
        "debug",
        &pod,
        &image,
        "--image-pull-policy=IfNotPresent",
        "--container=reach",
        "--profile=restricted",
        "--arguments-only",
        "--",
    ];
    debug.extend(arguments);
    kubectl.run(&debug)?;
    let pod_name = format!("pod/{pod}");
    let ended =
        "--for=jsonpath={.status.ephemeralContainerStatuses[0].state.terminated.exitCode}=0";
    kubectl.run(&[&shop, "wait", &pod_name, ended, ASKED_WITHIN])?;
    kubectl.ask(&[&shop, "logs", &pod, "--container=reach"], "")
}

/// What was answered (`open TARGET`, `closed TARGET`) and is not as it should be.
fn differences(from: &str, reaches: &[&str], said: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, target) in targets(from) {
        let is = |word: &str| said.lines().any(|line| line == format!("{word} {target}"));
        let should = reaches.contains(&name);
        match (is("open"), is("closed")) {
            (true, false) if !should => wrong.push(format!("{from} reaches {name} and must not")),
            (false, true) if should => wrong.push(format!("{from} does not reach {name}")),
            (true, false) | (false, true) => {}
            _ => bail!("{from} does not say whether it reaches {name}: {said}"),
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arrows_are_those_that_the_policies_compare_with() {
        let made = &crate::services::NAMES[2..]; // By `cargo xtask new-service`.
        let mut of_edge = reached("edge");
        of_edge.retain(|to| !made.contains(to));
        assert_eq!(of_edge, ["product", "payment"]);
        assert_eq!(
            reached("payment"),
            ["product", "postgres", "rabbitmq", "simulator"]
        );
        let starts = starts();
        for from in ["product", "simulator", STRANGER] {
            assert!(starts.contains(&from.to_owned()), "{starts:?}");
        }
        assert!(
            !starts.contains(&"product-migrate".to_owned()),
            "{starts:?}"
        );
        let asked: Vec<_> = targets("postgres").map(|(_, address)| address).collect();
        assert!(
            asked.contains(&"edge.commerce-dev:80".to_owned()),
            "{asked:?}"
        );
    }

    #[test]
    fn an_arrow_too_many_and_one_too_few_are_named() {
        let answer = |open: &[&str]| {
            let line = |(name, address): (&str, String)| {
                let word = if open.contains(&name) {
                    "open"
                } else {
                    "closed"
                };
                format!("{word} {address}\n")
            };
            targets("edge").map(line).collect::<String>()
        };
        let wrong = |open: &[&str]| differences("edge", &["product", "payment"], &answer(open));
        assert_eq!(
            wrong(&["product", "payment"]).unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(
            wrong(&["product", "postgres"]).unwrap(),
            [
                "edge does not reach payment",
                "edge reaches postgres and must not"
            ]
        );
        let silent = differences("edge", &[], "open edge.commerce-dev:80\n").unwrap_err();
        assert!(
            silent
                .to_string()
                .starts_with("edge does not say whether it reaches product")
        );
    }
}
