//! Identities, the mesh's authorisation, discovery: all three say the arrows of the architecture.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::k8s::{
    architecture::{SERVICES, Service},
    code::Code,
    manifests::{Edit, Workload, at, list, name, text, title},
    policy::{Mutation, Policy, Scene, everywhere},
};

pub(super) const POLICIES: [Policy; 3] = [
    Policy {
        name: "each account has the identity of its name, and every call shows one",
        overlays: everywhere,
        check: identities,
        mutations: &[
            Mutation {
                says: "payment's certificate says that it is the edge",
                edits: &[Edit::Set(
                    "Certificate",
                    "payment-identity",
                    "/spec/uris/0",
                    "\"spiffe://shop.example/edge\"",
                )],
            },
            Mutation {
                says: "product has no certificate",
                edits: &[Edit::Drop("Certificate", "product-identity")],
            },
            Mutation {
                says: "the edge shows product's certificate",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/volumes/1/secret/secretName",
                    "\"product-identity\"",
                )],
            },
            Mutation {
                says: "product asks nobody for an identity",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "product-config",
                    "/data/product.toml",
                    "[mesh.identity.policy]\nfile",
                    "[mesh.client]\nzone",
                )],
            },
            Mutation {
                says: "payment's policy is only tried out",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "payment-config",
                    "/data/payment.toml",
                    "[mesh.identity.policy]",
                    "[mesh.identity.policy]\ndry_run = true",
                )],
            },
            Mutation {
                says: "the edge calls payment without caring who answers",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "edge-config",
                    "/data/edge.toml",
                    ";id=spiffe://shop.example/payment",
                    "",
                )],
            },
            Mutation {
                says: "payment takes the edge for product",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "payment-config",
                    "/data/payment.toml",
                    "id=spiffe://shop.example/product",
                    "id=spiffe://shop.example/edge",
                )],
            },
        ],
    },
    Policy {
        name: "the mesh allows the calls that are made, and no other",
        overlays: everywhere,
        check: authorisation,
        mutations: &[
            Mutation {
                says: "the edge may reserve stock",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "mesh-policy",
                    "/data/policy.toml",
                    "ProductService/GetProduct\"",
                    "ProductService/GetProduct\", \"/commerce.product.v1.ProductService/ReserveStock\"",
                )],
            },
            Mutation {
                says: "clients cannot read a payment",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "mesh-policy",
                    "/data/policy.toml",
                    "    \"/commerce.payment.v1.PaymentService/GetPayment\",\n",
                    "",
                )],
            },
            Mutation {
                says: "payment cannot release stock",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "mesh-policy",
                    "/data/policy.toml",
                    "    \"/commerce.product.v1.ProductService/ReleaseReservation\",\n",
                    "",
                )],
            },
            Mutation {
                says: "product may call payment",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "mesh-policy",
                    "/data/policy.toml",
                    "callers = [\"spiffe://shop.example/edge\"]",
                    "callers = [\"spiffe://shop.example/edge\", \"spiffe://shop.example/product\"]",
                )],
            },
            Mutation {
                says: "anybody may do what payment may",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "mesh-policy",
                    "/data/policy.toml",
                    "callers = [\"spiffe://shop.example/payment\"]",
                    "callers = [\"*\"]",
                )],
            },
            Mutation {
                says: "the edge may call everything of product",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "mesh-policy",
                    "/data/policy.toml",
                    "ProductService/GetProduct\"",
                    "ProductService/*\"",
                )],
            },
        ],
    },
    Policy {
        name: "callers find the pods that are ready",
        overlays: everywhere,
        check: discovery,
        mutations: &[
            Mutation {
                says: "product's Service hides its pods behind one address",
                edits: &[Edit::Remove("Service", "product", "/spec/clusterIP")],
            },
            Mutation {
                says: "payment's Service names pods that are not ready",
                edits: &[Edit::Set(
                    "Service",
                    "payment",
                    "/spec/publishNotReadyAddresses",
                    "true",
                )],
            },
            Mutation {
                says: "the edge calls payment at another port",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "edge-config",
                    "/data/edge.toml",
                    "dns://payment:50052",
                    "dns://payment:50051",
                )],
            },
            Mutation {
                says: "payment looks for product under a name that is no Service",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "payment-config",
                    "/data/payment.toml",
                    "dns://product:",
                    "dns://products:",
                )],
            },
            Mutation {
                says: "the edge does not know where payment is",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "edge-config",
                    "/data/edge.toml",
                    "payment = ",
                    "payments = ",
                )],
            },
        ],
    },
];

const TRUST_DOMAIN: &str = "spiffe://shop.example/";

fn identities(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for Service {
        name: service,
        calls: destinations,
        ..
    } in SERVICES
    {
        let id = format!("{TRUST_DOMAIN}{service}");
        let secret = format!("{service}-identity");
        let issued = scene
            .manifests
            .of_kind("Certificate")
            .find(|certificate| text(certificate, "/spec/secretName") == secret);
        if issued.is_none_or(|certificate| *at(certificate, "/spec/uris") != json!([id])) {
            findings.push(format!(
                "{service}: no Certificate of {id} goes into Secret {secret}"
            ));
        }
        let Some((workload, config)) = running(scene, service) else {
            continue;
        };
        let identity = at(&config, "/mesh/identity");
        let certificate = text(identity, "/files/certificate");
        let shown = workload
            .volume_of(certificate)
            .map(|(volume, _)| text(volume, "/secret/secretName"));
        if shown != Some(secret.as_str()) || text(workload.pod(), "/serviceAccountName") != *service
        {
            findings.push(format!("{service}: it shows the identity in {shown:?}"));
        }
        // `permissive` leaves health to the kubelet; only a policy makes it as strict as `strict` for all else.
        let serves_calls = *service != "edge";
        let policed =
            !text(identity, "/policy/file").is_empty() && at(identity, "/policy/dry_run") == false;
        if serves_calls && !policed
            || text(identity, "/mode") != if serves_calls { "permissive" } else { "strict" }
        {
            findings.push(format!(
                "{service}: calls without an identity are not refused"
            ));
        }
        for destination in *destinations {
            let address = text(&config, &format!("/mesh/destinations/{destination}"));
            if !address.ends_with(&format!(";id={TRUST_DOMAIN}{destination}")) {
                findings.push(format!(
                    "{service}: it does not ask {destination} for its identity"
                ));
            }
        }
    }
    findings
}

/// The Deployment of a service, and the configuration that it runs with. What is wrong with either says another policy.
fn running<'a>(scene: &Scene<'a>, service: &str) -> Option<(Workload<'a>, Value)> {
    let workloads = scene.manifests.workloads();
    let workload = workloads
        .into_iter()
        .find(|workload| workload.is("Deployment") && workload.name() == service)?;
    let config = scene.configs.read(scene.manifests, workload).ok()?;
    Some((workload, config))
}

/// What the architecture allows: who calls which method.
fn allowed(code: &Code) -> BTreeSet<(String, String)> {
    let outside = code
        .methods
        .iter()
        .filter(|method| method.audience != "INTERNAL");
    let by_edge = outside.map(|method| (format!("{TRUST_DOMAIN}edge"), method.path.clone()));
    let by_payment = code
        .called_by_payment
        .iter()
        .map(|path| (format!("{TRUST_DOMAIN}payment"), path.clone()));
    by_edge.chain(by_payment).collect()
}

fn authorisation(scene: &Scene<'_>) -> Vec<String> {
    let Some(map) = scene.manifests.find("ConfigMap", "mesh-policy") else {
        return vec!["there is no ConfigMap mesh-policy".to_owned()];
    };
    let policy: Value = match toml::from_str(text(map, "/data/policy.toml")) {
        Ok(policy) => policy,
        Err(error) => return vec![format!("{}: {error}", title(map))],
    };
    let mut stated = BTreeSet::new();
    for rule in list(&policy, "/rule") {
        for caller in list(rule, "/callers").iter().filter_map(Value::as_str) {
            for method in list(rule, "/methods").iter().filter_map(Value::as_str) {
                stated.insert((caller.to_owned(), method.to_owned()));
            }
        }
    }
    let allowed = allowed(scene.code);
    let lines = |from: &BTreeSet<_>, without: &BTreeSet<_>, what: &str| {
        from.difference(without)
            .map(|(caller, method)| format!("{caller} {what} {method}"))
            .collect::<Vec<_>>()
    };
    let mut findings = lines(&stated, &allowed, "may call");
    findings.extend(lines(&allowed, &stated, "may not call"));
    findings
}

fn discovery(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for Service {
        name: service,
        calls: destinations,
        ..
    } in SERVICES
    {
        let Some((_, config)) = running(scene, service) else {
            continue;
        };
        let stated = at(&config, "/mesh/destinations")
            .as_object()
            .cloned()
            .unwrap_or_default();
        let known: BTreeSet<_> = stated.keys().map(String::as_str).collect();
        if known != destinations.iter().copied().collect() {
            findings.push(format!(
                "{service}: its destinations are {known:?}, not {destinations:?}"
            ));
        }
        for address in stated.values().filter_map(Value::as_str) {
            findings
                .extend(is_lost(scene, address).map(|what| format!("{service}: {address} {what}")));
        }
    }
    findings
}

/// Whether an address leads to the ready pods of a headless Service.
fn is_lost(scene: &Scene<'_>, address: &str) -> Option<String> {
    let target = address
        .strip_prefix("dns://")
        .and_then(|rest| rest.split(';').next())
        .and_then(|target| target.split_once(':'));
    let Some((host, port)) = target else {
        return Some("is not found by DNS".to_owned());
    };
    let service = scene
        .manifests
        .of_kind("Service")
        .find(|service| name(service) == host);
    let Some(service) = service else {
        return Some(format!("names no Service {host}"));
    };
    if text(service, "/spec/clusterIP") != "None" {
        return Some("is one address for all pods".to_owned());
    }
    if at(service, "/spec/publishNotReadyAddresses") == true {
        return Some("leads to pods that are not ready".to_owned());
    }
    let grpc = list(service, "/spec/ports")
        .iter()
        .find(|port| text(port, "/name") == "grpc");
    let matches =
        port.parse() == Ok(grpc.map_or(0, |grpc| at(grpc, "/port").as_u64().unwrap_or_default()));
    (!matches).then(|| format!("is not the gRPC port of Service {host}"))
}
