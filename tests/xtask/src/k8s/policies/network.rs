//! NetworkPolicies draw exactly the arrows of the architecture.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::k8s::{
    architecture,
    manifests::{Edit, at, list},
    network::{Party, drawn, parties},
    policy::{Mutation, Policy, Scene, everywhere},
};

pub(super) const POLICIES: [Policy; 2] = [
    Policy {
        name: "who has no arrow is refused, both ways",
        overlays: everywhere,
        check: denied_by_default,
        mutations: &[
            Mutation {
                says: "nothing is denied by default",
                edits: &[Edit::Drop("NetworkPolicy", "default-deny")],
            },
            Mutation {
                says: "whatever goes out is allowed by default",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "default-deny",
                    "/spec/policyTypes",
                    "[\"Ingress\"]",
                )],
            },
            Mutation {
                says: "only some pods are protected",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "default-deny",
                    "/spec/podSelector",
                    r#"{"matchLabels": {"app.kubernetes.io/name": "edge"}}"#,
                )],
            },
        ],
    },
    Policy {
        name: "the network has the arrows of the architecture, and no other",
        overlays: everywhere,
        check: arrows,
        mutations: &[
            Mutation {
                says: "payment does not reach product",
                edits: &[Edit::Drop("NetworkPolicy", "payment")],
            },
            Mutation {
                says: "the edge reaches a PostgreSQL in the cluster",
                edits: &[
                    Edit::Set(
                        "NetworkPolicy",
                        "to-postgres",
                        "/spec/podSelector/matchExpressions/0/values/-",
                        "\"edge\"",
                    ),
                    Edit::Set(
                        "NetworkPolicy",
                        "postgres",
                        "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values/-",
                        "\"edge\"",
                    ),
                ],
            },
            Mutation {
                says: "the edge reaches a RabbitMQ in the cluster",
                edits: &[
                    Edit::Set(
                        "NetworkPolicy",
                        "to-rabbitmq",
                        "/spec/podSelector/matchExpressions/0/values/-",
                        "\"edge\"",
                    ),
                    Edit::Set(
                        "NetworkPolicy",
                        "rabbitmq",
                        "/spec/ingress/0/from/0/podSelector/matchExpressions/0/values/-",
                        "\"edge\"",
                    ),
                ],
            },
            Mutation {
                says: "the arrow to a managed PostgreSQL leads elsewhere",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "to-postgres",
                    "/spec/egress/0/to/0/ipBlock/cidr",
                    "\"10.100.1.0/24\"",
                )],
            },
            Mutation {
                says: "PostgreSQL's nodes reach the cloud's metadata",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "postgres",
                    "/spec/egress/1/to/0/ipBlock/except",
                    "[]",
                )],
            },
            Mutation {
                says: "product reaches the whole world",
                edits: &[Edit::Add(
                    r#"{"kind": "NetworkPolicy", "metadata": {"name": "out"}, "spec": {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "product"}}, "policyTypes": ["Egress"], "egress": [{}]}}"#,
                )],
            },
            Mutation {
                says: "whoever is in the cluster reaches product",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "product",
                    "/spec/ingress/0/from/-",
                    r#"{"namespaceSelector": {}}"#,
                )],
            },
            Mutation {
                says: "the edge is let into payment at its admin port only",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "payment",
                    "/spec/ingress/0/ports/0/port",
                    "\"admin\"",
                )],
            },
            Mutation {
                says: "payment reaches private addresses instead of its provider",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "payment-to-provider",
                    "/spec/egress/0/to/0/ipBlock",
                    r#"{"cidr": "10.0.0.0/8"}"#,
                )],
            },
            Mutation {
                says: "payment reaches its provider without TLS",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "payment-to-provider",
                    "/spec/egress/0/ports/-",
                    r#"{"port": 80}"#,
                )],
            },
            Mutation {
                says: "nobody finds a name",
                edits: &[Edit::Drop("NetworkPolicy", "dns")],
            },
            Mutation {
                says: "the gateway does not reach the edge",
                edits: &[Edit::Drop("NetworkPolicy", "gateway-to-edge")],
            },
            Mutation {
                says: "Prometheus reaches gRPC too",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "prometheus-to-admin",
                    "/spec/ingress/0/ports/-",
                    r#"{"port": "grpc"}"#,
                )],
            },
            Mutation {
                says: "whoever is in the cluster reaches the simulator",
                edits: &[Edit::Set(
                    "NetworkPolicy",
                    "simulator",
                    "/spec/ingress/0/from/-",
                    r#"{"namespaceSelector": {}}"#,
                )],
            },
        ],
    },
];

fn denied_by_default(scene: &Scene<'_>) -> Vec<String> {
    let denies = |policy: &Value| {
        *at(policy, "/spec/podSelector") == json!({})
            && ["Ingress", "Egress"]
                .iter()
                .all(|way| list(policy, "/spec/policyTypes").contains(&json!(way)))
            && at(policy, "/spec/ingress").is_null()
            && at(policy, "/spec/egress").is_null()
    };
    let denied = scene.manifests.of_kind("NetworkPolicy").any(denies);
    if denied {
        Vec::new()
    } else {
        vec!["no NetworkPolicy denies everything to every pod".to_owned()]
    }
}

fn arrows(scene: &Scene<'_>) -> Vec<String> {
    let parties = parties(scene.manifests);
    let policies: Vec<_> = scene.manifests.of_kind("NetworkPolicy").collect();
    let drawn = drawn(&policies, &parties);
    let wanted = wanted(scene, &parties);
    let say = |arrows: Vec<&(String, String, u16)>, what: &str| {
        arrows
            .into_iter()
            .map(|(from, to, port)| format!("{from} {what} {to}:{port}"))
            .collect::<Vec<_>>()
    };
    let mut findings = say(drawn.difference(&wanted).collect(), "reaches");
    findings.extend(say(wanted.difference(&drawn).collect(), "does not reach"));
    findings
}

/// The arrows that an overlay should have.
fn wanted(scene: &Scene<'_>, parties: &[Party]) -> BTreeSet<(String, String, u16)> {
    let named = architecture::arrows(scene.overlay).into_iter();
    let named = named.map(|(from, to, port)| (from, to.to_owned(), port));
    let asking = parties.iter().filter(|party| party.inside);
    let anybody = parties.iter().filter(|party| {
        // Whoever is in the cluster may try `dev` out.
        scene.overlay == "dev" && !party.inside && party.address.is_none()
    });
    let named = named.chain(anybody.map(|party| (party.name.clone(), "edge".to_owned(), 8080)));
    named
        .chain(asking.map(|party| (party.name.clone(), "dns".to_owned(), 53)))
        .collect()
}
