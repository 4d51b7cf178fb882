//! What must not reach customers: the simulator, an edge without keys, plaintext to the stores; and where they come in.

use crate::k8s::{
    architecture,
    manifests::{Edit, Manifests, at, base_name, list, name, text, title},
    policy::{Mutation, Policy, Scene, everywhere, in_production},
};

pub(super) const POLICIES: [Policy; 5] = [
    Policy {
        name: "no simulator in production; payment names its provider and its secret",
        overlays: in_production,
        check: provider,
        mutations: &[
            Mutation {
                says: "payment is told to use the simulator",
                edits: &[Edit::Replace(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/env/0/value",
                    "stripe",
                    "simulator",
                )],
            },
            Mutation {
                says: "payment names no provider, and the default is the simulator",
                edits: &[Edit::Remove(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/env/0",
                )],
            },
            Mutation {
                says: "payment knows where a simulator is",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/env/-",
                    r#"{"name": "PAYMENT__SIMULATOR_REMOTE__URL", "value": "http://simulator:50053"}"#,
                )],
            },
            Mutation {
                says: "a simulator runs",
                edits: &[Edit::Add(
                    r#"{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "provider", "namespace": "commerce"}, "spec": {"template": {"spec": {"containers": [{"image": "commerce-mesh/simulator:0.1.0"}]}}}}"#,
                )],
            },
            Mutation {
                says: "the secret of the provider comes from the configuration",
                edits: &[Edit::Replace(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/env/1/value",
                    "/provider/",
                    "/config/",
                )],
            },
        ],
    },
    Policy {
        name: "no edge without keys in production",
        overlays: in_production,
        check: keys,
        mutations: &[
            Mutation {
                says: "the edge is started with --insecure",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/containers/0/args/-",
                    "\"--insecure\"",
                )],
            },
            Mutation {
                says: "a variable says that the edge is insecure",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/containers/0/env/-",
                    r#"{"name": "EDGE__INSECURE", "value": "true"}"#,
                )],
            },
            Mutation {
                says: "edge.toml says that the edge is insecure",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "edge-config",
                    "/data/edge.toml",
                    "[telemetry]",
                    "insecure = true\n\n[telemetry]",
                )],
            },
            Mutation {
                says: "the file of keys comes from no Secret",
                edits: &[Edit::Replace(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/containers/0/env/0/value",
                    "/etc/commerce-mesh/keys/",
                    "/etc/commerce-mesh/config/",
                )],
            },
        ],
    },
    Policy {
        name: "production speaks TLS to its stores, and checks with whom",
        overlays: in_production,
        check: stores,
        mutations: &[
            Mutation {
                says: "product speaks plaintext to PostgreSQL",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "product-endpoints",
                    "/data/PRODUCT__SERVICE__POSTGRES__URL",
                    "verify-full",
                    "disable",
                )],
            },
            Mutation {
                says: "a migration does not check whom it speaks to",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "payment-migrate-endpoints",
                    "/data/PAYMENT__SERVICE__POSTGRES__URL",
                    "verify-full",
                    "require",
                )],
            },
            Mutation {
                says: "payment speaks plaintext to RabbitMQ",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "payment-endpoints",
                    "/data/PAYMENT__BUS__URL",
                    "amqps://",
                    "amqp://",
                )],
            },
        ],
    },
    Policy {
        name: "the gateway's route leads to the edge",
        overlays: in_production,
        check: route,
        mutations: &[
            Mutation {
                says: "the route leads to a port that the Service lacks",
                edits: &[Edit::Set(
                    "HTTPRoute",
                    "edge",
                    "/spec/rules/0/backendRefs/0/port",
                    "8080",
                )],
            },
            Mutation {
                says: "the route shows the admin port to the world",
                edits: &[Edit::Set(
                    "HTTPRoute",
                    "edge",
                    "/spec/rules/0/backendRefs/0/port",
                    "9080",
                )],
            },
            Mutation {
                says: "clients' API is not routed",
                edits: &[Edit::Remove("HTTPRoute", "edge", "/spec/rules/0/matches/0")],
            },
        ],
    },
    Policy {
        name: "everything is in the overlay's namespace and part of the shop",
        overlays: everywhere,
        check: belongs,
        mutations: &[
            Mutation {
                says: "the ConfigMap of the edge is in another namespace",
                edits: &[Edit::Set(
                    "ConfigMap",
                    "edge-config",
                    "/metadata/namespace",
                    "\"default\"",
                )],
            },
            Mutation {
                says: "the Service of payment does not say what it is part of",
                edits: &[Edit::Remove(
                    "Service",
                    "payment",
                    "/metadata/labels/app.kubernetes.io~1part-of",
                )],
            },
        ],
    },
];

/// The provider that moves no money.
const SIMULATOR: &str = "simulator";

fn provider(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for object in scene.manifests.all() {
        let image = list(object, "/spec/template/spec/containers")
            .iter()
            .any(|container| text(container, "/image").contains(SIMULATOR));
        if image || base_name(name(object)).starts_with(SIMULATOR) {
            findings.push(format!("{} runs the simulator", title(object)));
        }
    }
    let payment = scene
        .manifests
        .workloads()
        .into_iter()
        .find(|workload| workload.is("Deployment") && workload.name() == "payment");
    let Some(payment) = payment else {
        findings.push("there is no payment".to_owned());
        return findings;
    };
    if let Ok(config) = scene.configs.read(scene.manifests, payment) {
        let provider = text(&config, "/service/provider");
        if provider.is_empty() || provider == SIMULATOR {
            findings.push(format!("the provider of payment is {provider:?}"));
        }
        let file = text(&config, &format!("/service/{provider}/secret_key_file"));
        let volume = payment
            .volume_of(file)
            .map(|(volume, _)| text(volume, "/secret/secretName"));
        if volume.is_none_or(str::is_empty) {
            findings.push(format!("the secret of {provider:?} comes from no Secret"));
        }
        if !text(&config, "/simulator_remote/url").is_empty() {
            findings.push("payment knows where a simulator is".to_owned());
        }
    }
    findings
}

fn keys(scene: &Scene<'_>) -> Vec<String> {
    let edge = scene
        .manifests
        .workloads()
        .into_iter()
        .find(|workload| workload.program() == Some("edge"));
    let Some(edge) = edge else {
        return vec!["there is no edge".to_owned()];
    };
    let config = match scene.configs.read(scene.manifests, edge) {
        Ok(config) => config,
        Err(error) => return vec![format!("{error:#}")],
    };
    let mut findings = Vec::new();
    if at(&config, "/insecure") != false {
        findings.push("the edge serves whoever comes".to_owned());
    }
    let file = text(&config, "/keys/file");
    if edge
        .volume_of(file)
        .is_none_or(|(volume, _)| text(volume, "/secret/secretName").is_empty())
    {
        findings.push(format!("the edge's keys in {file:?} come from no Secret"));
    }
    findings
}

fn stores(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in scene.manifests.workloads() {
        let mut keepers = architecture::keepers();
        if !keepers.any(|service| workload.name().starts_with(service.name)) {
            continue;
        }
        let Ok(config) = scene.configs.read(scene.manifests, workload) else {
            continue;
        };
        let postgres = text(&config, "/service/postgres/url");
        if !postgres.contains("sslmode=verify-full") {
            findings.push(format!("{}: {postgres} is not verified", workload.title()));
        }
        let rabbitmq = text(&config, "/bus/url");
        if !workload.is("Job")
            && rabbitmq
                .split(',')
                .any(|node| !node.starts_with("amqps://"))
        {
            findings.push(format!("{}: {rabbitmq} is not encrypted", workload.title()));
        }
    }
    findings
}

fn route(scene: &Scene<'_>) -> Vec<String> {
    let Some(route) = scene.manifests.find("HTTPRoute", "edge") else {
        return vec!["there is no HTTPRoute".to_owned()];
    };
    let mut findings = Vec::new();
    let rules = || list(route, "/spec/rules").iter();
    if !rules()
        .flat_map(|rule| list(rule, "/matches"))
        .any(|found| text(found, "/path/value") == "/v1")
    {
        findings.push("/v1 is not routed".to_owned());
    }
    for backend in rules().flat_map(|rule| list(rule, "/backendRefs")) {
        if !leads_to_http(
            scene.manifests,
            text(backend, "/name"),
            at(backend, "/port"),
        ) {
            findings.push(format!(
                "the route leads to {backend}, which is not the edge's HTTP"
            ));
        }
    }
    findings
}

fn leads_to_http(manifests: &Manifests, service: &str, port: &serde_json::Value) -> bool {
    let service = manifests.find("Service", service);
    service.is_some_and(|service| {
        list(service, "/spec/ports")
            .iter()
            .any(|own| at(own, "/port") == port && text(own, "/name") == "http")
    })
}

fn belongs(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let namespace = scene
        .manifests
        .of_kind("Namespace")
        .next()
        .map(name)
        .unwrap_or_default();
    for object in scene.manifests.all() {
        if text(object, "/kind") != "Namespace" && text(object, "/metadata/namespace") != namespace
        {
            findings.push(format!("{} is not in {namespace:?}", title(object)));
        }
        if text(object, "/metadata/labels/app.kubernetes.io~1part-of") != "commerce-mesh" {
            findings.push(format!(
                "{} does not say that it is part of commerce-mesh",
                title(object)
            ));
        }
    }
    findings
}
