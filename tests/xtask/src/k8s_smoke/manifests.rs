//! What the test itself puts into the cluster: Jobs of its two programs, and the arrows that the checker needs.

use serde_json::{Value, json};

use super::{CLIENTS, SHOP};

/// A namespace.
pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// A program that runs once in a pod of its own, under no more rights than the shop's own.
pub(super) struct Program<'a> {
    /// The Job's name, also its pods' `app.kubernetes.io/name`.
    pub(super) name: &'a str,
    /// The namespace.
    pub(super) namespace: &'a str,
    /// The image: one of `commerce-mesh/…`, whose program is in `/app`.
    pub(super) image: &'a str,
    /// What the program is told.
    pub(super) arguments: &'a [&'a str],
    /// How often it may fail before the Job has failed.
    pub(super) retries: u32,
    /// Volumes, each with the path it is put at.
    pub(super) volumes: &'a [(&'a str, Value)],
}

impl Program<'_> {
    /// As a Job.
    pub(super) fn job(&self) -> Value {
        let (mut mounts, mut volumes) = (Vec::new(), Vec::new());
        for (number, (path, source)) in self.volumes.iter().enumerate() {
            let name = format!("volume-{number}");
            mounts.push(json!({"name": name, "mountPath": path}));
            let mut volume = source.clone();
            volume["name"] = json!(name);
            volumes.push(volume);
        }
        let labels = json!({"app.kubernetes.io/name": self.name});
        json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": labels},
            "spec": {
                "backoffLimit": self.retries,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "restartPolicy": "Never",
                        "automountServiceAccountToken": false,
                        "securityContext": {
                            "runAsNonRoot": true, "runAsUser": 65_532, "runAsGroup": 65_532, "fsGroup": 65_532,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "containers": [{
                            "name": self.name,
                            "image": self.image,
                            "imagePullPolicy": "IfNotPresent",
                            "args": self.arguments,
                            "securityContext": {
                                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                                "capabilities": {"drop": ["ALL"]},
                            },
                            "volumeMounts": mounts,
                        }],
                        "volumes": volumes,
                    },
                },
            },
        })
    }
}

/// Customers who ask the edge from another namespace.
pub(super) fn load(name: &str, image: &str, options: &[&str]) -> Value {
    let url = format!("--url=http://edge.{SHOP}");
    let arguments: Vec<_> = ["load", &url]
        .into_iter()
        .chain(options.iter().copied())
        .collect();
    Program {
        name,
        namespace: CLIENTS,
        image,
        arguments: &arguments,
        retries: 0,
        volumes: &[],
    }
    .job()
}

/// Where the checker finds everything, as a Secret: `check --places` reads it.
pub(super) fn places(superuser: &str, rabbitmq: &str) -> Value {
    let of = |database: &str| format!("postgres://postgres:{superuser}@postgres:5432/{database}");
    let places = json!({
        "product": of("product"),
        "payment": of("payment"),
        "rabbitmq": "amqp://rabbitmq:5672/%2f",
        "rabbitmq_user": "commerce",
        "rabbitmq_password_file": "/places/rabbitmq",
        "simulator": "/journal",
    });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "check", "namespace": SHOP},
        "stringData": {"places.json": places.to_string(), "rabbitmq": rabbitmq},
    })
}

/// The checker. It has the journal of the simulator, which does not run meanwhile, and room for copies of databases.
pub(super) fn check(image: &str) -> Value {
    Program {
        name: "check",
        namespace: SHOP,
        image,
        arguments: &["--places=/places/places.json"],
        // What is still on its way when it looks first has arrived when it looks again.
        retries: 5,
        volumes: &[
            ("/places", json!({"secret": {"secretName": "check"}})),
            (
                "/journal",
                json!({"persistentVolumeClaim": {"claimName": "data-simulator-0"}}),
            ),
            ("/tmp", json!({"emptyDir": {}})),
        ],
    }
    .job()
}

/// The arrows of the checker, drawn at both ends.
pub(super) fn arrows_of_check() -> [Value; 2] {
    let checker = json!({"matchLabels": {"app.kubernetes.io/name": "check"}});
    let stores = json!({"matchExpressions": [
        {"key": "app.kubernetes.io/name", "operator": "In", "values": ["postgres", "rabbitmq"]},
    ]});
    let policy = |name: &str, of: &Value, kind: &str, rule: Value| {
        let mut policy = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": SHOP},
            "spec": {"podSelector": of, "policyTypes": [kind]},
        });
        policy["spec"][kind.to_lowercase()] = json!([rule]);
        policy
    };
    let ports = json!([{"port": 5432}, {"port": 5672}]);
    [
        policy(
            "check-to-stores",
            &checker,
            "Egress",
            json!({"to": [{"podSelector": stores}], "ports": ports}),
        ),
        policy(
            "stores-from-check",
            &stores,
            "Ingress",
            json!({"from": [{"podSelector": checker}], "ports": ports}),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_of_the_test_may_no_more_than_a_pod_of_the_shop() {
        for job in [
            load("load", "commerce-mesh/visitor:1", &["--rate=5"]),
            check("commerce-mesh/check:1"),
        ] {
            let pod = &job["spec"]["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"],
                "RuntimeDefault"
            );
            let rights = &pod["containers"][0]["securityContext"];
            assert_eq!(rights["capabilities"]["drop"], json!(["ALL"]));
            assert_eq!(rights["readOnlyRootFilesystem"], true);
            assert_eq!(rights["allowPrivilegeEscalation"], false);
            let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
            assert_eq!(mounts.len(), pod["volumes"].as_array().unwrap().len());
        }
        let load = load("load", "commerce-mesh/visitor:1", &["--rate=5"]);
        let arguments = &load["spec"]["template"]["spec"]["containers"][0]["args"];
        assert_eq!(
            arguments,
            &json!(["load", "--url=http://edge.commerce-dev", "--rate=5"])
        );
    }

    #[test]
    fn the_checkers_arrows_meet() {
        let [from, to] = arrows_of_check();
        assert_eq!(
            from["spec"]["egress"][0]["to"][0]["podSelector"],
            to["spec"]["podSelector"]
        );
        assert_eq!(
            to["spec"]["ingress"][0]["from"][0]["podSelector"],
            from["spec"]["podSelector"]
        );
        let places = places("secret", "other");
        let file: Value =
            serde_json::from_str(places["stringData"]["places.json"].as_str().unwrap()).unwrap();
        assert_eq!(
            file["product"],
            "postgres://postgres:secret@postgres:5432/product"
        );
    }
}
