//! Who may reach whom, asked from inside: from a container that is added to a running pod and so stands where the pod's
//! NetworkPolicies hold, and from a stranger's namespace.

use anyhow::{Result, bail, ensure};

use super::{CLIENTS, SHOP, kubectl::Kubectl, manifests::Program};

/// Everything that listens, with its port.
const TARGETS: [(&str, u16); 6] = [
    ("edge", 80),
    ("product", 50_051),
    ("payment", 50_052),
    ("simulator", 50_053),
    ("postgres", 5_432),
    ("rabbitmq", 5_672),
];
/// The architecture's arrows: from whom, to whom.
const ARROWS: [(&str, &[&str]); 5] = [
    ("edge", &["product", "payment"]),
    ("product", &["postgres", "rabbitmq"]),
    ("payment", &["product", "simulator", "postgres", "rabbitmq"]),
    ("simulator", &["edge"]),
    // In `dev` whoever is in the cluster may reach the edge.
    (STRANGER, &["edge"]),
];
/// Nobody of the shop, in another namespace.
const STRANGER: &str = "stranger";
/// How long a container for asking may take until it has answered.
const ASKED_WITHIN: &str = "--timeout=2m";

/// Asks from everywhere; an error names each arrow that is missing or too many.
pub(super) fn probe(kubectl: &Kubectl, image: &str) -> Result<()> {
    let mut wrong = Vec::new();
    for (from, reaches) in ARROWS {
        let targets: Vec<_> = targets(from).map(|(_, address)| address).collect();
        let mut arguments = vec!["reach"];
        arguments.extend(targets.iter().map(String::as_str));
        let said = if from == STRANGER {
            from_outside(kubectl, image, &arguments)?
        } else {
            from_pod(kubectl, image, from, &arguments)?
        };
        if !kubectl.is_dry() {
            wrong.extend(differences(from, reaches, &said)?);
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// What somebody tries to reach, each with its address. No policy keeps a pod from itself, and the name of a service may
/// be the pod that asks.
fn targets(from: &str) -> impl Iterator<Item = (&'static str, String)> {
    let others = TARGETS.into_iter().filter(move |(name, _)| *name != from);
    others.map(|(name, port)| (name, format!("{name}.{SHOP}:{port}")))
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
