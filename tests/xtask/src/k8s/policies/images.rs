//! Which images run: programs of this workspace, all of one release.

use crate::k8s::{
    manifests::{Edit, list, text},
    policy::{Mutation, Policy, Scene, everywhere},
};

pub(super) const POLICIES: [Policy; 1] = [Policy {
    name: "images are the workspace's programs, of one release",
    overlays: everywhere,
    check: images,
    mutations: &[
        Mutation {
            says: "product runs a program that is not built here",
            edits: &[Edit::Replace(
                "Deployment",
                "product",
                "/spec/template/spec/containers/0/image",
                "mesh/product",
                "mesh/products",
            )],
        },
        Mutation {
            says: "payment runs whatever is latest",
            edits: &[Edit::Set(
                "Deployment",
                "payment",
                "/spec/template/spec/containers/0/image",
                "\"commerce-mesh/payment:latest\"",
            )],
        },
        Mutation {
            says: "the edge is of an older release",
            edits: &[Edit::Set(
                "Deployment",
                "edge",
                "/spec/template/spec/containers/0/image",
                "\"commerce-mesh/edge:0.0.9\"",
            )],
        },
        Mutation {
            says: "product starts another program",
            edits: &[Edit::Set(
                "Deployment",
                "product",
                "/spec/template/spec/containers/0/command",
                "[\"/bin/sh\"]",
            )],
        },
    ],
}];

fn images(scene: &Scene<'_>) -> Vec<String> {
    let mut findings = Vec::new();
    let mut releases = Vec::new();
    for workload in scene.manifests.workloads() {
        let title = workload.title();
        for container in workload.containers() {
            let image = text(container, "/image");
            let version = version(image);
            if version.is_none_or(|version| version == "latest") {
                findings.push(format!("{title}: image {image} names no version"));
            }
        }
        let Some(program) = workload.program() else {
            continue;
        };
        if !scene.code.programs.contains(program) {
            findings.push(format!("{title}: the workspace has no program {program:?}"));
        }
        let command = list(workload.container(), "/command");
        if command.len() != 1 || command[0] != format!("/app/{program}") {
            findings.push(format!("{title}: its command is not /app/{program}"));
        }
        releases.extend(
            version(text(workload.container(), "/image"))
                .filter(|version| !version.starts_with("sha256:")),
        );
    }
    releases.sort_unstable();
    releases.dedup();
    if releases.len() > 1 {
        findings.push(format!("several releases at once: {}", releases.join(", ")));
    }
    findings
}

/// The tag or digest of an image.
fn version(image: &str) -> Option<&str> {
    let last = image.rsplit('/').next()?;
    let (_, version) = last.split_once('@').or_else(|| last.split_once(':'))?;
    Some(version)
}
