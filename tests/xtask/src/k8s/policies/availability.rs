//! What keeps the services there: replicas, spread, disruption budgets, rolls without a gap, and drains that fit into
//! the grace period.

use serde_json::Value;

use crate::k8s::{
    architecture::{SERVICES, Service},
    manifests::{Edit, Workload, at, list, text},
    policy::{Mutation, Policy, Scene, everywhere},
};

pub(super) const POLICIES: [Policy; 2] = [
    Policy {
        name: "services stay while pods come and go",
        overlays: everywhere,
        check: available,
        mutations: &[
            Mutation {
                says: "a roll of product takes a pod away before the new one is ready",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/strategy/rollingUpdate/maxUnavailable",
                    "1",
                )],
            },
            Mutation {
                says: "payment may shrink to one pod",
                edits: &[Edit::Set(
                    "HorizontalPodAutoscaler",
                    "payment",
                    "/spec/minReplicas",
                    "1",
                )],
            },
            Mutation {
                says: "each apply resets how many pods the edge has",
                edits: &[Edit::Set("Deployment", "edge", "/spec/replicas", "2")],
            },
            Mutation {
                says: "an eviction may take all pods of product",
                edits: &[Edit::Drop("PodDisruptionBudget", "product")],
            },
            Mutation {
                says: "the budget of payment is for other pods",
                edits: &[Edit::Set(
                    "PodDisruptionBudget",
                    "payment",
                    "/spec/selector/matchLabels/app.kubernetes.io~1name",
                    "\"pay\"",
                )],
            },
            Mutation {
                says: "the budget of the edge allows no eviction, so no node can be drained",
                edits: &[Edit::Set(
                    "PodDisruptionBudget",
                    "edge",
                    "/spec/maxUnavailable",
                    "0",
                )],
            },
            Mutation {
                says: "product's pods may all be in one zone",
                edits: &[Edit::Remove(
                    "Deployment",
                    "product",
                    "/spec/template/spec/topologySpreadConstraints",
                )],
            },
            Mutation {
                says: "payment's pods may all be on one node",
                edits: &[Edit::Remove(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/affinity",
                )],
            },
        ],
    },
    Policy {
        name: "a pod has the time to drain",
        overlays: everywhere,
        check: drains,
        mutations: &[
            Mutation {
                says: "payment is killed while it finishes payments",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/terminationGracePeriodSeconds",
                    "30",
                )],
            },
            Mutation {
                says: "product goes before its clients have learned of it",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "product-config",
                    "/data/product.toml",
                    "drain_wait_ms = 5000",
                    "drain_wait_ms = 0",
                )],
            },
            Mutation {
                says: "the edge drains for longer than it is given",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "edge-config",
                    "/data/edge.toml",
                    "[limits]",
                    "[limits]\ndrain_timeout_ms = 60000",
                )],
            },
        ],
    },
];

/// How long those who send calls need at least to learn that a pod goes, in milliseconds: an endpoint's removal has to
/// reach every node.
const WAIT_MIN_MS: u64 = 3_000;

fn available(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let deployments = scene
        .manifests
        .workloads()
        .into_iter()
        .filter(|workload| workload.is("Deployment"));
    for deployment in deployments {
        let mut say = |what: String| findings.push(format!("{}: {what}", deployment.title()));
        if at(
            deployment.object,
            "/spec/strategy/rollingUpdate/maxUnavailable",
        ) != 0
        {
            say("a roll may take pods away first".to_owned());
        }
        if !at(deployment.object, "/spec/replicas").is_null() {
            say("it states replicas, and so does its autoscaler".to_owned());
        }
        let scaler = scene
            .manifests
            .find("HorizontalPodAutoscaler", deployment.name());
        if scaler.is_none_or(|scaler| {
            at(scaler, "/spec/minReplicas").as_u64() < Some(2)
                || text(scaler, "/spec/scaleTargetRef/name") != deployment.name()
        }) {
            say("no autoscaler keeps two pods of it".to_owned());
        }
        let budget = scene
            .manifests
            .find("PodDisruptionBudget", deployment.name());
        if budget.is_none_or(|budget| {
            at(budget, "/spec/maxUnavailable") != 1
                || !selects(budget, "/spec/selector", deployment)
        }) {
            say("no budget lets evictions take one pod at a time".to_owned());
        }
        let spread = list(deployment.pod(), "/topologySpreadConstraints")
            .iter()
            .any(|spread| {
                text(spread, "/topologyKey") == "topology.kubernetes.io/zone"
                    && selects(spread, "/labelSelector", deployment)
            });
        let apart = list(
            deployment.pod(),
            "/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution",
        )
        .iter()
        .any(|term| {
            text(term, "/podAffinityTerm/topologyKey") == "kubernetes.io/hostname"
                && selects(term, "/podAffinityTerm/labelSelector", deployment)
        });
        if !spread || !apart {
            say("its pods are not spread over zones and nodes".to_owned());
        }
    }
    findings
}

/// Whether a selector means the pods of this workload.
fn selects(object: &Value, selector: &str, workload: Workload<'_>) -> bool {
    let labels = at(object, &format!("{selector}/matchLabels")).as_object();
    labels.is_some_and(|labels| {
        labels
            .iter()
            .all(|(key, value)| workload.labels().get(key) == Some(value))
    })
}

fn drains(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for Service {
        name: program,
        afterwards_ms: afterwards,
        ..
    } in SERVICES
    {
        let deployments = scene.manifests.workloads().into_iter();
        let Some(deployment) = deployments
            .filter(|workload| workload.is("Deployment"))
            .find(|workload| workload.program() == Some(*program))
        else {
            findings.push(format!("there is no Deployment of {program}"));
            continue;
        };
        let Ok(config) = scene.configs.read(scene.manifests, deployment) else {
            continue; // Said by another policy.
        };
        let limits = if *program == "edge" {
            at(&config, "/limits")
        } else {
            at(&config, "/mesh/server")
        };
        let number =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).unwrap_or_default();
        let (wait, drain) = (
            number(limits, "drain_wait_ms"),
            number(limits, "drain_timeout_ms"),
        );
        if wait < WAIT_MIN_MS {
            findings.push(format!(
                "{program}: drain_wait_ms is {wait}, below {WAIT_MIN_MS}"
            ));
        }
        let grace = at(deployment.pod(), "/terminationGracePeriodSeconds");
        let needed = (wait + drain + afterwards).div_ceil(1000);
        if grace.as_u64() <= Some(needed) {
            findings.push(format!("{program}: its grace period of {grace} s is no longer than the {needed} s that a drain may take"));
        }
    }
    findings.extend(tolerated(scene));
    findings
}

/// Whatever has a volume gets the time to close its files.
fn tolerated(scene: &Scene<'_>) -> Vec<String> {
    let stateful = scene
        .manifests
        .workloads()
        .into_iter()
        .filter(|workload| workload.is("StatefulSet"));
    let hasty = stateful.filter(|workload| {
        at(workload.pod(), "/terminationGracePeriodSeconds").as_u64() < Some(30)
    });
    hasty
        .map(|workload| format!("{}: it gets less than 30 s to stop", workload.title()))
        .collect()
}
