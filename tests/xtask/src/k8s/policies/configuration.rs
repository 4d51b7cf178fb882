//! Configuration that its program accepts, secrets by reference, files where they are mounted.

use serde_json::Value;

use crate::k8s::{
    manifests::{Edit, Workload, at, base_name, is_hash, list, name, text, title},
    policy::{Mutation, Policy, Scene, everywhere, in_production},
};

pub(super) const POLICIES: [Policy; 4] = [
    Policy {
        name: "each program accepts its configuration",
        overlays: everywhere,
        check: accepted,
        mutations: &[
            Mutation {
                says: "a key of product.toml is misspelt",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "product-config",
                    "/data/product.toml",
                    "admin_listen",
                    "admin_liste",
                )],
            },
            Mutation {
                says: "a value of edge.toml is of another type",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "edge-config",
                    "/data/edge.toml",
                    "drain_wait_ms = 5000",
                    "drain_wait_ms = \"5 s\"",
                )],
            },
            Mutation {
                says: "a variable of payment names no key",
                edits: &[Edit::Set(
                    "ConfigMap",
                    "payment-endpoints",
                    "/data/PAYMENT__BUS__HOST",
                    "\"rabbitmq\"",
                )],
            },
            Mutation {
                says: "product reads a file that is not mounted",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/template/spec/containers/0/args/1",
                    "\"/etc/product.toml\"",
                )],
            },
            Mutation {
                says: "the edge may serve without keys and does not say so",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/containers/0/env",
                    "[]",
                )],
            },
        ],
    },
    Policy {
        name: "a change of configuration rolls the pods",
        overlays: everywhere,
        check: hashed,
        mutations: &[
            Mutation {
                says: "product's ConfigMap keeps its name when it changes",
                edits: &[Edit::Set(
                    "ConfigMap",
                    "product-config",
                    "/metadata/name",
                    "\"product-config\"",
                )],
            },
            Mutation {
                says: "payment reads endpoints that are not rendered",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/envFrom/0/configMapRef/name",
                    "\"payment-endpoints\"",
                )],
            },
            Mutation {
                says: "variables of the cluster's Services mix with the edge's own",
                edits: &[Edit::Remove(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/enableServiceLinks",
                )],
            },
        ],
    },
    Policy {
        name: "files that a configuration names are mounted, read-only",
        overlays: everywhere,
        check: mounted,
        mutations: &[
            Mutation {
                says: "the password of RabbitMQ is not mounted",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "product-config",
                    "/data/product.toml",
                    "/etc/commerce-mesh/rabbitmq/",
                    "/etc/rabbitmq/",
                )],
            },
            Mutation {
                says: "product's volume of identities is missing",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/template/spec/volumes/2/name",
                    "\"other\"",
                )],
            },
            Mutation {
                says: "payment may write to its configuration",
                edits: &[Edit::Remove(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/volumeMounts/0/readOnly",
                )],
            },
        ],
    },
    Policy {
        name: "secrets are references",
        overlays: in_production,
        check: by_reference,
        mutations: &[
            Mutation {
                says: "a Secret is rendered",
                edits: &[Edit::Add(
                    r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "edge-keys", "namespace": "commerce"}, "stringData": {"keys.toml": ""}}"#,
                )],
            },
            Mutation {
                says: "a password stands in a URL",
                edits: &[Edit::Replace(
                    "ConfigMap",
                    "product-endpoints",
                    "/data/PRODUCT__SERVICE__POSTGRES__URL",
                    "product@",
                    "product:hunter2@",
                )],
            },
            Mutation {
                says: "a key stands in a variable",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/env/-",
                    r#"{"name": "PAYMENT__SIMULATOR__WEBHOOK_SECRET", "value": "whsec_1"}"#,
                )],
            },
        ],
    },
];

fn accepted(scene: &Scene<'_>) -> Vec<String> {
    let own = scene
        .manifests
        .workloads()
        .into_iter()
        .filter(|workload| workload.program().is_some());
    own.filter_map(|workload| {
        let refused = scene.configs.read(scene.manifests, workload).err()?;
        Some(format!("{}: {refused:#}", workload.title()))
    })
    .collect()
}

fn hashed(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in scene.manifests.workloads() {
        let volumes = list(workload.pod(), "/volumes")
            .iter()
            .map(|volume| text(volume, "/configMap/name"));
        let sources = list(workload.container(), "/envFrom")
            .iter()
            .map(|source| text(source, "/configMapRef/name"));
        for map in volumes.chain(sources).filter(|map| !map.is_empty()) {
            let rendered = scene
                .manifests
                .of_kind("ConfigMap")
                .any(|found| name(found) == map);
            let rolls = map.rsplit_once('-').is_some_and(|(_, hash)| is_hash(hash));
            if !rendered || !rolls {
                findings.push(format!(
                    "{}: ConfigMap {map} is not rendered with a hash",
                    workload.title()
                ));
            }
        }
        if at(workload.pod(), "/enableServiceLinks") != false {
            findings.push(format!(
                "{}: it gets variables of Services",
                workload.title()
            ));
        }
    }
    findings
}

/// Texts of a configuration that are paths below `/etc/commerce-mesh`, with those inside of URLs.
fn paths(config: &Value, into: &mut Vec<String>) {
    match config {
        Value::String(text) => {
            let path = text
                .rsplit_once("sslrootcert=")
                .map_or(text.as_str(), |(_, path)| path);
            if path.starts_with('/') {
                into.push(path.to_owned());
            }
        }
        Value::Array(values) => values.iter().for_each(|value| paths(value, into)),
        Value::Object(values) => values.values().for_each(|value| paths(value, into)),
        _ => {}
    }
}

fn mounted(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in scene.manifests.workloads() {
        let Some(program) = workload.program() else {
            continue;
        };
        let mut say = |what: String| findings.push(format!("{}: {what}", workload.title()));
        if let Ok(config) = scene.configs.read(scene.manifests, workload) {
            let mut named = Vec::new();
            paths(&config, &mut named);
            let lost = named
                .iter()
                .filter(|path| !is_url_path(path) && workload.mount_of(path).is_none());
            lost.for_each(|path| say(format!("{program} reads {path}, where nothing is mounted")));
        }
        for mount in list(workload.container(), "/volumeMounts") {
            let volume = list(workload.pod(), "/volumes")
                .iter()
                .find(|volume| at(volume, "/name") == at(mount, "/name"));
            let writable = volume
                .is_none_or(|volume| volume.get("configMap").is_none() && !holds_secret(volume));
            if !writable && at(mount, "/readOnly") != true {
                say(format!("{} may be written to", text(mount, "/mountPath")));
            }
            let claimed = || {
                list(workload.object, "/spec/volumeClaimTemplates")
                    .iter()
                    .any(|claim| name(claim) == text(mount, "/name"))
            };
            if volume.is_none() && !claimed() {
                say(format!(
                    "{} is the mount of no volume",
                    text(mount, "/mountPath")
                ));
            }
        }
    }
    findings
}

/// The edge serves its documentation at `/`.
fn is_url_path(path: &str) -> bool {
    path == "/"
}

fn holds_secret(volume: &Value) -> bool {
    volume.get("secret").is_some() || volume.get("projected").is_some()
}

fn by_reference(scene: &Scene<'_>) -> Vec<String> {
    let mut findings: Vec<_> = scene
        .manifests
        .of_kind("Secret")
        .map(|secret| format!("{} is rendered", title(secret)))
        .collect();
    for workload in scene.manifests.workloads() {
        findings.extend(written_out(workload));
    }
    for map in scene.manifests.of_kind("ConfigMap") {
        for (key, value) in at(map, "/data").as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let user = value
                .split_once("://")
                .and_then(|(_, rest)| rest.split_once('@'))
                .map(|(user, _)| user);
            if user.is_some_and(|user| user.contains(':') && !user.contains('/'))
                || is_secret(key, value)
            {
                findings.push(format!(
                    "ConfigMap/{}: {key} holds a secret",
                    base_name(name(map))
                ));
            }
        }
    }
    findings
}

fn written_out(workload: Workload<'_>) -> impl Iterator<Item = String> + use<'_> {
    let variables = workload
        .containers()
        .flat_map(|container| list(container, "/env"));
    let secret =
        variables.filter(|variable| is_secret(text(variable, "/name"), text(variable, "/value")));
    secret.map(move |variable| {
        format!(
            "{}: {} stands there",
            workload.title(),
            text(variable, "/name")
        )
    })
}

/// Whether a variable holds what only a Secret may; the path of a file is none.
fn is_secret(name: &str, value: &str) -> bool {
    let tells = ["PASSWORD", "SECRET", "KEY"]
        .iter()
        .any(|word| name.contains(word));
    tells && !value.is_empty() && !value.starts_with('/')
}
