//! What every pod may and may not: Pod Security `restricted`, a root that nobody writes to, no token of the API,
//! requests and a limit of memory.

use serde_json::{Value, json};

use crate::k8s::{
    manifests::{Edit, at, list, name, text, title},
    policy::{Mutation, Policy, Scene, everywhere, in_development},
};

pub(super) const POLICIES: [Policy; 4] = [
    Policy {
        name: "pods are restricted",
        overlays: everywhere,
        check: restricted,
        mutations: &[
            Mutation {
                says: "product may run as root",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/template/spec/securityContext/runAsNonRoot",
                    "false",
                )],
            },
            Mutation {
                says: "RabbitMQ's pods may gain privileges",
                edits: &[Edit::Remove(
                    "RabbitmqCluster",
                    "rabbitmq",
                    "/spec/override/statefulSet/spec/template/spec/containers/0/securityContext",
                )],
            },
            Mutation {
                says: "payment names no user",
                edits: &[Edit::Remove(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/securityContext/runAsUser",
                )],
            },
            Mutation {
                says: "the edge has no seccomp profile",
                edits: &[Edit::Remove(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/securityContext/seccompProfile",
                )],
            },
            Mutation {
                says: "product may write to its root",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/template/spec/containers/0/securityContext/readOnlyRootFilesystem",
                    "false",
                )],
            },
            Mutation {
                says: "payment keeps a capability",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/securityContext/capabilities/add",
                    "[\"NET_ADMIN\"]",
                )],
            },
            Mutation {
                says: "a migration may gain privileges",
                edits: &[Edit::Set(
                    "Job",
                    "product-migrate-",
                    "/spec/template/spec/containers/0/securityContext/allowPrivilegeEscalation",
                    "true",
                )],
            },
            Mutation {
                says: "the edge shares its node's network",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/hostNetwork",
                    "true",
                )],
            },
            Mutation {
                says: "product reads a folder of its node",
                edits: &[Edit::Set(
                    "Deployment",
                    "product",
                    "/spec/template/spec/volumes/-",
                    r#"{"name": "host", "hostPath": {"path": "/"}}"#,
                )],
            },
            Mutation {
                says: "the namespace of dev enforces nothing",
                edits: &[Edit::Set(
                    "Namespace",
                    "commerce-dev",
                    "/metadata/labels/pod-security.kubernetes.io~1enforce",
                    "\"privileged\"",
                )],
            },
        ],
    },
    Policy {
        name: "each workload has an account of its own, without a token",
        overlays: everywhere,
        check: accounts,
        mutations: &[
            Mutation {
                says: "payment's pods get a token",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/automountServiceAccountToken",
                    "true",
                )],
            },
            Mutation {
                says: "product's account hands out tokens",
                edits: &[Edit::Remove(
                    "ServiceAccount",
                    "product",
                    "/automountServiceAccountToken",
                )],
            },
            Mutation {
                says: "the edge runs under the account of payment",
                edits: &[Edit::Set(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/serviceAccountName",
                    "\"payment\"",
                )],
            },
            Mutation {
                says: "the account of the edge is not there",
                edits: &[Edit::Drop("ServiceAccount", "edge")],
            },
        ],
    },
    Policy {
        name: "a volume keeps the permissions of its files",
        overlays: in_development,
        check: volumes,
        mutations: &[Mutation {
            says: "PostgreSQL finds its folder open to its group, and refuses to start again",
            edits: &[Edit::Remove(
                "StatefulSet",
                "postgres",
                "/spec/template/spec/securityContext/fsGroupChangePolicy",
            )],
        }],
    },
    Policy {
        name: "pods say what they need",
        overlays: everywhere,
        check: resources,
        mutations: &[
            Mutation {
                says: "product has no limit of memory",
                edits: &[Edit::Remove(
                    "Deployment",
                    "product",
                    "/spec/template/spec/containers/0/resources/limits/memory",
                )],
            },
            Mutation {
                says: "the edge requests no processor",
                edits: &[Edit::Remove(
                    "Deployment",
                    "edge",
                    "/spec/template/spec/containers/0/resources/requests/cpu",
                )],
            },
            Mutation {
                says: "payment's processor is throttled",
                edits: &[Edit::Set(
                    "Deployment",
                    "payment",
                    "/spec/template/spec/containers/0/resources/limits/cpu",
                    "\"1\"",
                )],
            },
        ],
    },
];

/// What a pod or a container must say, by pointer.
fn differing(object: &Value, wanted: &[(&str, Value)]) -> Vec<String> {
    let wrong = wanted
        .iter()
        .filter(|(pointer, value)| at(object, pointer) != value);
    wrong
        .map(|(pointer, value)| format!("{pointer} is {}, not {value}", at(object, pointer)))
        .collect()
}

/// RabbitMQ's operator makes pods without a security context, which only its override can give them. (CloudNativePG's are
/// restricted by themselves.)
fn operators_pods(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for cluster in scene.manifests.of_kind("RabbitmqCluster") {
        let pod = at(cluster, "/spec/override/statefulSet/spec/template/spec");
        let mut wrong = differing(
            pod,
            &[
                ("/securityContext/runAsNonRoot", json!(true)),
                (
                    "/securityContext/seccompProfile/type",
                    json!("RuntimeDefault"),
                ),
            ],
        );
        for (containers, name) in [
            ("/initContainers", "setup-container"),
            ("/containers", "rabbitmq"),
        ] {
            let named = list(pod, containers)
                .iter()
                .find(|container| text(container, "/name") == name);
            wrong.extend(differing(
                named.unwrap_or(&Value::Null),
                &[
                    ("/securityContext/allowPrivilegeEscalation", json!(false)),
                    ("/securityContext/capabilities", json!({"drop": ["ALL"]})),
                ],
            ));
        }
        findings.extend(
            wrong
                .into_iter()
                .map(|what| format!("{}: {what}", title(cluster))),
        );
    }
    findings
}

fn restricted(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in scene.manifests.workloads() {
        let pod = workload.pod();
        let mut wrong = differing(
            pod,
            &[
                ("/securityContext/runAsNonRoot", json!(true)),
                (
                    "/securityContext/seccompProfile/type",
                    json!("RuntimeDefault"),
                ),
            ],
        );
        let own = workload.program().is_some();
        let user = at(pod, "/securityContext/runAsUser").as_u64();
        if user.is_none_or(|user| user == 0 || (own && user != 65_532)) {
            wrong
                .push("/securityContext/runAsUser is not the numeric user of its image".to_owned());
        }
        for shared in ["hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"] {
            if at(pod, &format!("/{shared}")) == true {
                wrong.push(format!("/{shared} is on"));
            }
        }
        for volume in list(pod, "/volumes")
            .iter()
            .filter(|volume| volume.get("hostPath").is_some())
        {
            wrong.push(format!(
                "volume {} is a folder of the node",
                text(volume, "/name")
            ));
        }
        for container in workload.containers() {
            wrong.extend(differing(
                container,
                &[
                    ("/securityContext/allowPrivilegeEscalation", json!(false)),
                    ("/securityContext/readOnlyRootFilesystem", json!(true)),
                    ("/securityContext/capabilities", json!({"drop": ["ALL"]})),
                ],
            ));
        }
        findings.extend(
            wrong
                .into_iter()
                .map(|what| format!("{}: {what}", workload.title())),
        );
    }
    findings.extend(operators_pods(scene));
    let level = "/metadata/labels/pod-security.kubernetes.io~1enforce";
    let namespaces: Vec<_> = scene.manifests.of_kind("Namespace").collect();
    if namespaces.is_empty() {
        findings.push("there is no Namespace".to_owned());
    }
    let lax = namespaces
        .into_iter()
        .filter(|namespace| text(namespace, level) != "restricted");
    findings
        .extend(lax.map(|namespace| format!("{} does not enforce `restricted`", title(namespace))));
    findings
}

fn accounts(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for account in scene.manifests.of_kind("ServiceAccount") {
        if at(account, "/automountServiceAccountToken") != false {
            findings.push(format!("{} hands out tokens", title(account)));
        }
    }
    for workload in scene.manifests.workloads() {
        let (pod, title) = (workload.pod(), workload.title());
        let account = text(pod, "/serviceAccountName");
        // A migration's name ends with its release.
        if !workload.name().starts_with(account) || account.is_empty() {
            findings.push(format!(
                "{title} runs under the account {account:?} of another"
            ));
        } else if scene
            .manifests
            .find("ServiceAccount", account)
            .is_none_or(|found| name(found) != account)
        {
            findings.push(format!(
                "{title} runs under the account {account:?}, which is not there"
            ));
        }
        if at(pod, "/automountServiceAccountToken") != false {
            findings.push(format!("{title} gets a token of the API"));
        }
    }
    findings
}

fn resources(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    for workload in scene.manifests.workloads() {
        for container in workload.containers() {
            let mut say = |what: &str| findings.push(format!("{}: {what}", workload.title()));
            for wanted in [
                "/resources/requests/cpu",
                "/resources/requests/memory",
                "/resources/limits/memory",
            ] {
                if at(container, wanted).is_null() {
                    say(&format!("{wanted} is missing"));
                }
            }
            if !at(container, "/resources/limits/cpu").is_null() {
                say("a limit of processor time throttles it while others rest");
            }
        }
    }
    findings
}

/// PostgreSQL and RabbitMQ refuse files that their group may write; a kubelet that sets the group at each mount makes
/// them so.
fn volumes(scene: &Scene<'_>) -> Vec<String> {
    let workloads = scene.manifests.workloads().into_iter();
    let stateful = workloads
        .filter(|workload| !list(workload.object, "/spec/volumeClaimTemplates").is_empty());
    let opened = stateful.filter(|workload| {
        text(workload.pod(), "/securityContext/fsGroupChangePolicy") != "OnRootMismatch"
    });
    opened
        .map(|workload| {
            format!(
                "{}: each mount opens its files to the group",
                workload.title()
            )
        })
        .collect()
}
