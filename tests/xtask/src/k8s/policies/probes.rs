//! Probes and ports, by what the programs really serve.

use serde_json::Value;

use crate::k8s::{
    manifests::{Edit, Workload, at, base_name, list, name, text, title},
    policy::{Mutation, Policy, Scene, everywhere},
};

pub(super) const POLICIES: [Policy; 2] = [
    Policy {
        name: "probes ask what the program answers, and liveness never for dependencies",
        overlays: everywhere,
        check: probes,
        mutations: &[
            Mutation {
                says: "product's liveness asks for readiness",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/template/spec/containers/0/livenessProbe/grpc/service",
                    "\"readiness\"",
                )],
            },
            Mutation {
                says: "payment's startup asks a name that nobody answers for",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/startupProbe/grpc/service",
                    "\"start\"",
                )],
            },
            Mutation {
                says: "product has no startup probe",
                edits: &[Edit::Remove(
                    "Deployment",
                    "product",
                    "/spec/template/spec/containers/0/startupProbe",
                )],
            },
            Mutation {
                says: "payment is probed at its admin port, which speaks no gRPC",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/readinessProbe/grpc/port",
                    "9052",
                )],
            },
            Mutation {
                says: "the liveness of the edge asks for readiness",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/containers/0/livenessProbe/httpGet/path",
                    "\"/readyz\"",
                )],
            },
            Mutation {
                says: "the edge is probed at a path that is not there",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/containers/0/readinessProbe/httpGet/path",
                    "\"/ready\"",
                )],
            },
        ],
    },
    Policy {
        name: "ports are those that programs listen on",
        overlays: everywhere,
        check: ports,
        mutations: &[
            Mutation {
                says: "product's container port is not the one it listens on",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/template/spec/containers/0/ports/0/containerPort",
                    "50061",
                )],
            },
            Mutation {
                says: "payment listens where nobody reaches it",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "payment-config",
                    "/data/payment.toml",
                    "0.0.0.0:50052",
                    "127.0.0.1:50052",
                )],
            },
            Mutation {
                says: "the edge listens on another port",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "edge-config",
                    "/data/edge.toml",
                    "0.0.0.0:8080",
                    "0.0.0.0:8081",
                )],
            },
            Mutation {
                says: "the Service of the edge leads to a port that no binary listens on",
                edits: &[Edit::Set(
                    "Service",
                    "edge",
                    "/spec/ports/0/targetPort",
                    "8443",
                )],
            },
            Mutation {
                says: "the Service of product leads to nobody",
                edits: &[Edit::Set(
                    "Service",
                    "product",
                    "/spec/selector/app.kubernetes.io~1name",
                    "\"products\"",
                )],
            },
        ],
    },
];

fn probes(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in scene.manifests.workloads() {
        if workload.is("Job") {
            continue; // It ends by itself.
        }
        for kind in ["startup", "readiness", "liveness"] {
            let probe = at(workload.container(), &format!("/{kind}Probe"));
            let wrong = match (workload.program(), probe) {
                (_, Value::Null) => Some("is missing".to_owned()),
                (None, _) => None, // Somebody else's program.
                (Some(_), probe) if probe.get("grpc").is_some() => {
                    asks_wrong_health(scene, workload, kind, probe)
                }
                (Some(_), probe) => asks_wrong_page(scene, workload, kind, probe),
            };
            findings.extend(wrong.map(|what| format!("{}: {kind}Probe {what}", workload.title())));
        }
    }
    findings
}

fn asks_wrong_health(
    scene: &Scene<'_>,
    workload: Workload<'_>,
    kind: &str,
    probe: &Value,
) -> Option<String> {
    let asked = text(probe, "/grpc/service");
    if asked != kind {
        return Some(format!("asks for {asked:?}"));
    }
    if !scene.code.health.iter().any(|answered| answered == asked) {
        return Some(format!("asks for {asked:?}, which no server answers for"));
    }
    let listens = scene
        .configs
        .read(scene.manifests, workload)
        .ok()
        .and_then(|config| port(&config, "/listen"));
    let port = workload.port(at(probe, "/grpc/port"));
    (port != listens).then(|| format!("asks port {port:?}, and gRPC is at {listens:?}"))
}

fn asks_wrong_page(
    scene: &Scene<'_>,
    workload: Workload<'_>,
    kind: &str,
    probe: &Value,
) -> Option<String> {
    // `/readyz` is for readiness alone: it looks at dependencies.
    let wanted = if kind == "readiness" {
        "/readyz"
    } else {
        "/livez"
    };
    let asked = text(probe, "/httpGet/path");
    if asked != wanted {
        return Some(format!("asks for {asked:?}, not {wanted}"));
    }
    let listens = scene
        .configs
        .read(scene.manifests, workload)
        .ok()
        .and_then(|config| port(&config, "/admin_listen"));
    let port = workload.port(at(probe, "/httpGet/port"));
    (port != listens)
        .then(|| format!("asks port {port:?}, and the admin endpoint is at {listens:?}"))
}

/// The port of an address in a configuration.
fn port(config: &Value, pointer: &str) -> Option<u64> {
    text(config, pointer).rsplit_once(':')?.1.parse().ok()
}

fn ports(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in scene.manifests.workloads() {
        if workload.is("Job") || workload.program().is_none() {
            continue;
        }
        let Ok(config) = scene.configs.read(scene.manifests, workload) else {
            continue; // Said by another policy.
        };
        let mut declared: Vec<_> = list(workload.container(), "/ports")
            .iter()
            .filter_map(|port| at(port, "/containerPort").as_u64())
            .collect();
        let addresses = ["/listen", "/admin_listen"];
        let mut listens: Vec<_> = addresses
            .iter()
            .filter_map(|address| port(&config, address))
            .collect();
        declared.sort_unstable();
        listens.sort_unstable();
        if declared != listens {
            findings.push(format!(
                "{}: declares ports {declared:?} and listens on {listens:?}",
                workload.title()
            ));
        }
        for address in addresses
            .iter()
            .filter(|address| !text(&config, address).starts_with("0.0.0.0:"))
        {
            findings.push(format!(
                "{}: {} is reached by nobody else",
                workload.title(),
                text(&config, address)
            ));
        }
    }
    for service in scene.manifests.of_kind("Service") {
        findings.extend(leads_nowhere(scene, service));
    }
    findings
}

/// Each port of a Service has to be one that the pods behind it declare.
fn leads_nowhere(scene: &Scene<'_>, service: &Value) -> Vec<String> {
    let selected = at(service, "/spec/selector").as_object();
    let behind: Vec<_> = scene
        .manifests
        .workloads()
        .into_iter()
        .filter(|workload| {
            selected.is_some_and(|labels| {
                labels
                    .iter()
                    .all(|(key, value)| workload.labels().get(key) == Some(value))
            })
        })
        .collect();
    if behind.is_empty() {
        return vec![format!("{} selects no pod", title(service))];
    }
    let mut findings = Vec::new();
    for port in list(service, "/spec/ports") {
        let target = match at(port, "/targetPort") {
            Value::Null => at(port, "/port"),
            stated => stated,
        };
        for workload in &behind {
            let ports = || {
                workload
                    .containers()
                    .flat_map(|container| list(container, "/ports"))
            };
            let number = workload.port(target);
            if number.is_none()
                || !ports().any(|port| at(port, "/containerPort").as_u64() == number)
            {
                let (service, pods) = (base_name(name(service)), workload.title());
                findings.push(format!(
                    "Service/{service}: port {target} is none of {pods}"
                ));
            }
        }
    }
    findings
}
