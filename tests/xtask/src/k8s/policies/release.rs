//! Schema migrations: a Job per release, under the role that owns the database and that no service has.

use serde_json::Value;

use crate::k8s::{
    architecture,
    manifests::{Edit, Workload, at, list, text},
    policy::{Mutation, Policy, Scene, everywhere},
};

pub(super) const POLICIES: [Policy; 1] = [Policy {
    name: "each release migrates under the owner's role, which no service has",
    overlays: everywhere,
    check: migrations,
    mutations: &[
        Mutation {
            says: "product migrates under the role that it runs under",
            edits: &[Edit::Replace(
                "ConfigMap",
                "product-migrate-endpoints",
                "/data/PRODUCT__SERVICE__POSTGRES__URL",
                "product_owner@",
                "product@",
            )],
        },
        Mutation {
            says: "payment runs under the role that owns its database",
            edits: &[Edit::Replace(
                "ConfigMap",
                "payment-endpoints",
                "/data/PAYMENT__SERVICE__POSTGRES__URL",
                "payment@",
                "payment_owner@",
            )],
        },
        Mutation {
            says: "a Job keeps the name of the last release",
            edits: &[Edit::Set(
                "Job",
                "product-migrate-",
                "/metadata/name",
                "\"product-migrate-0.0.9\"",
            )],
        },
        Mutation {
            says: "the rights go to another role",
            edits: &[Edit::Set(
                "Job",
                "payment-migrate-",
                "/spec/template/spec/containers/0/args/2",
                "\"product\"",
            )],
        },
        Mutation {
            says: "the roll of payment is given up before its migration may be done",
            edits: &[Edit::Set(
                "Deployment",
                "payment",
                "/spec/progressDeadlineSeconds",
                "300",
            )],
        },
        Mutation {
            says: "payment has no migration",
            edits: &[Edit::Drop("Job", "payment-migrate-")],
        },
        Mutation {
            says: "product's database is migrated by payment",
            edits: &[Edit::Replace(
                "Job",
                "product-migrate-",
                "/spec/template/spec/containers/0/image",
                "mesh/product",
                "mesh/payment",
            )],
        },
    ],
}];

/// How long a kubelet waits at most before it starts a container again, in seconds: a pod that came before the new schema.
const BACK_OFF_MAX_S: u64 = 300;

fn migrations(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let workloads = scene.manifests.workloads();
    for service in architecture::keepers().map(|service| service.name) {
        let deployment = workloads
            .iter()
            .find(|workload| workload.is("Deployment") && workload.name() == service);
        let prefix = format!("{service}-migrate-");
        let job = workloads
            .iter()
            .find(|workload| workload.is("Job") && workload.name().starts_with(&prefix));
        let (Some(deployment), Some(job)) = (deployment, job) else {
            findings.push(format!("{service} has no Deployment or no Job `{prefix}…`"));
            continue;
        };
        let release = job.name().trim_start_matches(&prefix);
        let image = text(job.container(), "/image");
        if image != text(deployment.container(), "/image") {
            findings.push(format!(
                "{}: it runs another image than {}",
                job.title(),
                deployment.title()
            ));
        }
        if !image.ends_with(&format!(":{release}")) && !image.contains("@sha256:") {
            findings.push(format!(
                "{}: its name is not that of the release of {image}",
                job.title()
            ));
        }
        let (owner, user) = (role(scene, *job), role(scene, *deployment));
        if user.as_deref() != Some(service) {
            findings.push(format!("{service} runs under the role {user:?}"));
        }
        if owner == user || owner.is_none() {
            findings.push(format!(
                "{}: it runs under the role {owner:?}, as the service does",
                job.title()
            ));
        }
        let arguments = list(job.container(), "/args");
        if !arguments.ends_with(&["migrate", "--role", service].map(Value::from)) {
            findings.push(format!(
                "{}: it does not give rights to the role {service}",
                job.title()
            ));
        }
        let limit = |object, pointer| at(object, pointer).as_u64().unwrap_or_default();
        let migrated = limit(job.object, "/spec/activeDeadlineSeconds");
        let rolled = limit(deployment.object, "/spec/progressDeadlineSeconds");
        if migrated == 0 || rolled <= migrated + BACK_OFF_MAX_S {
            findings.push(format!(
                "{}: its roll is given up after {rolled} s, and its migration may take {migrated}",
                deployment.title()
            ));
        }
        findings.extend(shares_secrets(*deployment, *job));
    }
    findings
}

/// The role of PostgreSQL that a workload connects under.
fn role(scene: &Scene<'_>, workload: Workload<'_>) -> Option<String> {
    let config = scene.configs.read(scene.manifests, workload).ok()?;
    let (_, rest) = text(&config, "/service/postgres/url").split_once("://")?;
    Some(rest.split_once('@')?.0.to_owned())
}

fn secrets(workload: Workload<'_>) -> Vec<&str> {
    let volumes = list(workload.pod(), "/volumes").iter();
    volumes
        .filter(|volume| text(volume, "/name") == "postgres")
        .map(|volume| text(volume, "/secret/secretName"))
        .collect()
}

fn shares_secrets(deployment: Workload<'_>, job: Workload<'_>) -> Option<String> {
    let (own, other) = (secrets(job), secrets(deployment));
    let apart = !own.is_empty() && own.iter().all(|secret| !other.contains(secret));
    (!apart).then(|| {
        format!(
            "{}: its password is not another than that of {}",
            job.title(),
            deployment.title()
        )
    })
}
