//! NetworkPolicies draw exactly the arrows of the architecture. They are evaluated as a cluster would: an arrow is there
//! where the policies of its start let it out and those of its end let it in.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde_json::{Value, json};

use crate::k8s::{
    manifests::{Edit, Manifests, at, list, text},
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

type Arrow = (&'static str, &'static str, u16);

/// The arrows that are there wherever the services run.
const SERVICES: [Arrow; 3] = [
    ("edge", "product", 50051),
    ("edge", "payment", 50052),
    ("payment", "product", 50051),
];
/// Stores in the namespace, their own traffic with them: of `dev` and of operators.
const DEVELOPMENT: [Arrow; 8] = [
    ("product", "postgres", 5432),
    ("product-migrate", "postgres", 5432),
    ("payment", "postgres", 5432),
    ("payment-migrate", "postgres", 5432),
    ("product", "rabbitmq", 5672),
    ("payment", "rabbitmq", 5672),
    ("payment", "simulator", 50053),
    ("simulator", "edge", 8080),
];
const OPERATORS: [Arrow; 16] = [
    ("product", "postgres-cluster", 5432),
    ("product-migrate", "postgres-cluster", 5432),
    ("payment", "postgres-cluster", 5432),
    ("payment-migrate", "postgres-cluster", 5432),
    ("postgres-cluster", "postgres-cluster", 5432),
    ("postgres-cluster", "postgres-cluster", 8000),
    ("postgres-operator", "postgres-cluster", 5432),
    ("postgres-operator", "postgres-cluster", 8000),
    ("product", "rabbitmq-cluster", 5671),
    ("payment", "rabbitmq-cluster", 5671),
    ("rabbitmq-cluster", "rabbitmq-cluster", 25672),
    ("rabbitmq-operator", "rabbitmq-cluster", 15671),
    // The API server's address is not known: any but the cloud's metadata, at its port.
    ("postgres-cluster", "provider", 443),
    ("postgres-cluster", "private", 443),
    ("rabbitmq-cluster", "provider", 443),
    ("rabbitmq-cluster", "private", 443),
];
const MANAGED: [Arrow; 6] = [
    ("product", "managed-postgres", 5432),
    ("product-migrate", "managed-postgres", 5432),
    ("payment", "managed-postgres", 5432),
    ("payment-migrate", "managed-postgres", 5432),
    ("product", "managed-rabbitmq", 5671),
    ("payment", "managed-rabbitmq", 5671),
];
const PRODUCTION: [Arrow; 5] = [
    ("gateway", "edge", 8080),
    ("prometheus", "edge", 9080),
    ("prometheus", "product", 9051),
    ("prometheus", "payment", 9052),
    ("payment", "provider", 443),
];

/// Somebody at one end of an arrow.
struct Party {
    name: String,
    /// Of a pod in the overlay's own namespace; policies protect only those.
    inside: bool,
    namespace: Value,
    labels: Value,
    address: Option<Ipv4Addr>,
    /// Where it may be reached: name, number.
    ports: Vec<(String, u16)>,
}

impl Party {
    fn elsewhere(name: &str, namespace: &str, labels: Value, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            inside: false,
            namespace: json!({"kubernetes.io/metadata.name": namespace}),
            labels,
            address: None,
            ports: vec![(String::new(), port)],
        }
    }

    fn outside(name: &str, address: [u8; 4], ports: &[u16]) -> Self {
        Self {
            name: name.to_owned(),
            inside: false,
            namespace: Value::Null,
            labels: Value::Null,
            address: Some(Ipv4Addr::from(address)),
            ports: ports.iter().map(|port| (String::new(), *port)).collect(),
        }
    }
}

fn parties(manifests: &Manifests) -> Vec<Party> {
    let own = |name: String, labels: Value, ports| Party {
        name,
        inside: true,
        namespace: Value::Null,
        labels,
        address: None,
        ports,
    };
    let mut parties: Vec<_> = manifests
        .workloads()
        .into_iter()
        .map(|workload| {
            let ports = workload
                .containers()
                .flat_map(|container| list(container, "/ports"));
            let port = |port: &Value| {
                let number = at(port, "/containerPort")
                    .as_u64()
                    .and_then(|number| u16::try_from(number).ok());
                Some((text(port, "/name").to_owned(), number?))
            };
            let name = text(workload.labels(), "/app.kubernetes.io~1name").to_owned();
            own(
                name,
                workload.labels().clone(),
                ports.filter_map(port).collect(),
            )
        })
        .collect();
    // What operators will make of these resources.
    let unnamed = |ports: &[u16]| ports.iter().map(|port| (String::new(), *port)).collect();
    if manifests.find("Cluster", "postgres").is_some() {
        parties.push(own(
            "postgres-cluster".to_owned(),
            json!({"cnpg.io/cluster": "postgres"}),
            unnamed(&[5432, 8000]),
        ));
    }
    if manifests.find("RabbitmqCluster", "rabbitmq").is_some() {
        let labels = json!({"app.kubernetes.io/name": "rabbitmq"});
        parties.push(own(
            "rabbitmq-cluster".to_owned(),
            labels,
            unnamed(&[5671, 15671, 25672]),
        ));
    }
    parties.extend([
        Party::elsewhere("dns", "kube-system", json!({"k8s-app": "kube-dns"}), 53),
        Party::elsewhere("prometheus", "monitoring", json!({}), 9090),
        Party::elsewhere("gateway", "gateway", json!({}), 443),
        Party::elsewhere("postgres-operator", "cnpg-system", json!({}), 443),
        Party::elsewhere("rabbitmq-operator", "rabbitmq-system", json!({}), 443),
        Party::elsewhere("stranger", "default", json!({}), 80),
        Party::outside("provider", [203, 0, 113, 7], &[80, 443]),
        Party::outside("metadata", [169, 254, 169, 254], &[80, 443]),
        Party::outside("private", [192, 168, 7, 7], &[443]),
        Party::outside("managed-postgres", [10, 100, 0, 7], &[5432]),
        Party::outside("managed-rabbitmq", [10, 100, 1, 7], &[5671]),
    ]);
    parties
}

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
    let mut drawn = BTreeSet::new();
    for from in &parties {
        for to in parties.iter().filter(|to| from.inside || to.inside) {
            for (port_name, port) in &to.ports {
                let out = passes(&policies, "Egress", from, to, (port_name, *port));
                if out && passes(&policies, "Ingress", to, from, (port_name, *port)) {
                    drawn.insert((from.name.clone(), to.name.clone(), *port));
                }
            }
        }
    }
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
    let more: Vec<&[Arrow]> = match scene.overlay {
        "dev" => vec![&DEVELOPMENT],
        "prod-operators" => vec![&PRODUCTION, &OPERATORS],
        _ => vec![&PRODUCTION, &MANAGED],
    };
    let all = SERVICES.iter().chain(more.into_iter().flatten());
    let named = all.map(|(from, to, port)| ((*from).to_owned(), (*to).to_owned(), *port));
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

/// Whether the policies of one end let the other through. Pods that are not ours are protected by nobody here.
fn passes(policies: &[&Value], way: &str, own: &Party, other: &Party, port: (&str, u16)) -> bool {
    let (rules, peers) = if way == "Ingress" {
        ("/spec/ingress", "/from")
    } else {
        ("/spec/egress", "/to")
    };
    let mut applying = policies
        .iter()
        .filter(|policy| {
            selects(at(policy, "/spec/podSelector"), &own.labels)
                && list(policy, "/spec/policyTypes").contains(&json!(way))
        })
        .peekable();
    if !own.inside || applying.peek().is_none() {
        return true;
    }
    applying.flat_map(|policy| list(policy, rules)).any(|rule| {
        let (peers, ports) = (list(rule, peers), list(rule, "/ports"));
        let known = peers.is_empty() || peers.iter().any(|peer| is_peer(peer, other));
        let open = ports.is_empty()
            || ports.iter().any(|open| {
                let open = at(open, "/port");
                open.as_u64() == Some(port.1.into()) || (!port.0.is_empty() && open == port.0)
            });
        known && open
    })
}

fn is_peer(peer: &Value, party: &Party) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        let within = |cidr: &Value| {
            party
                .address
                .is_some_and(|address| contains(cidr.as_str().unwrap_or_default(), address))
        };
        return within(at(block, "/cidr")) && !list(block, "/except").iter().any(within);
    }
    if party.address.is_some() {
        return false;
    }
    let pods = peer
        .get("podSelector")
        .is_none_or(|selector| selects(selector, &party.labels));
    match peer.get("namespaceSelector") {
        // Of our own namespace only that it is one is known here.
        Some(namespaces) if party.inside => pods && *namespaces == json!({}),
        Some(namespaces) => pods && selects(namespaces, &party.namespace),
        None => pods && party.inside,
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    let value = |key: &str| labels.get(key).and_then(Value::as_str);
    let equal = at(selector, "/matchLabels")
        .as_object()
        .into_iter()
        .flatten();
    let mut expressions = list(selector, "/matchExpressions").iter();
    equal
        .into_iter()
        .all(|(key, wanted)| value(key) == wanted.as_str())
        && expressions.all(|expression| {
            let (found, values) = (value(text(expression, "/key")), list(expression, "/values"));
            let among = found.is_some_and(|found| values.contains(&json!(found)));
            match text(expression, "/operator") {
                "In" => among,
                "NotIn" => !among,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

fn contains(cidr: &str, address: Ipv4Addr) -> bool {
    let parts = cidr.split_once('/').and_then(|(network, bits)| {
        Some((
            network.parse::<Ipv4Addr>().ok()?,
            bits.parse::<u32>().ok().filter(|bits| *bits <= 32)?,
        ))
    });
    parts.is_some_and(|(network, bits)| {
        let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        u32::from(network) & mask == u32::from(address) & mask
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_their_network() {
        let address = Ipv4Addr::new(10, 100, 0, 7);
        for (cidr, inside) in [
            ("0.0.0.0/0", true),
            ("10.0.0.0/8", true),
            ("10.100.1.0/24", false),
            ("10.100.0.7/32", true),
            ("x/8", false),
        ] {
            assert_eq!(contains(cidr, address), inside, "{cidr}");
        }
    }

    #[test]
    fn selectors_select_by_labels_and_expressions() {
        let labels = json!({"app": "a"});
        for (selector, selected) in [
            (json!({}), true),
            (json!({"matchLabels": {"app": "b"}}), false),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}),
                true,
            ),
            (
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}),
                false,
            ),
            (
                json!({"matchExpressions": [{"key": "other", "operator": "DoesNotExist"}]}),
                true,
            ),
        ] {
            assert_eq!(selects(&selector, &labels), selected, "{selector}");
        }
    }
}
