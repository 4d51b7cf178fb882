//! NetworkPolicies, evaluated as a cluster would: an arrow is there where the policies of its start let it out and those
//! of its end let it in.
//!
//! Deliberately without IPv6, ranges of ports and protocols other than those that the manifests use.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde_json::{Value, json};

use super::manifests::{Manifests, at, list, text};

/// Somebody at one end of an arrow.
pub(super) struct Party {
    pub(super) name: String,
    /// Of a pod in the overlay's own namespace; policies protect only those.
    pub(super) inside: bool,
    namespace: Value,
    labels: Value,
    pub(super) address: Option<Ipv4Addr>,
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

/// Whoever the manifests make, and others that might want to reach them or be reached.
pub(super) fn parties(manifests: &Manifests) -> Vec<Party> {
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

/// Every arrow between parties of which one at least is ours: from, to, port.
pub(super) fn drawn(policies: &[&Value], parties: &[Party]) -> BTreeSet<(String, String, u16)> {
    let mut drawn = BTreeSet::new();
    for from in parties {
        for to in parties.iter().filter(|to| from.inside || to.inside) {
            for (port_name, port) in &to.ports {
                let out = passes(policies, "Egress", from, to, (port_name, *port));
                if out && passes(policies, "Ingress", to, from, (port_name, *port)) {
                    drawn.insert((from.name.clone(), to.name.clone(), *port));
                }
            }
        }
    }
    drawn
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
