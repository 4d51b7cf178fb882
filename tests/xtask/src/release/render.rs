//! The manifests of an overlay with the images of a release by digest, rendered by kubectl's Kustomize.
//!
//! The tree is not touched: `k8s/` is copied below `target`, and there the component `release`, which is what a
//! release may change, is written.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, bail};

use super::Images;
use crate::{
    checkout,
    k8s::manifests::{Manifests, Workload, text},
    process::{command, output},
};

/// What images are called in the manifests, before the program's name.
const PREFIX: &str = "commerce-mesh/";

pub(super) fn manifests(overlay: &str, version: &str, images: &Images) -> Result<String> {
    let copy = checkout::target()?.join("release-k8s");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    output(command("cp").args(["-r", "k8s"]).arg(&copy))?;
    let component = copy.join("components/release");
    pin(&component, version, images).with_context(|| format!("writing {}", component.display()))?;
    let overlay = copy.join("overlays").join(overlay);
    let text = output(command("kubectl").arg("kustomize").arg(overlay))?;
    let rendered = Manifests::parse(&text)?;
    let loose = without_digest(&rendered);
    if !loose.is_empty() {
        bail!("no archive for the images {}", loose.join(", "));
    }
    Ok(text)
}

/// Writes version and images into the component.
fn pin(component: &Path, version: &str, images: &Images) -> Result<()> {
    let file = component.join("kustomization.yaml");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, pinned(&text, images)?)?;
    fs::write(
        component.join("release.env"),
        format!("VERSION={version}\n"),
    )?;
    Ok(())
}

/// The kustomization with these images in its list `images:`, whatever stood there.
fn pinned(kustomization: &str, images: &Images) -> Result<String> {
    let (head, tail) = kustomization
        .split_once("images:\n")
        .context("no list `images:`")?;
    let mut pinned = format!("{head}images:\n");
    for (name, image) in images {
        let (repository, digest) = image.split_once('@').context("an image has a digest")?;
        writeln!(
            pinned,
            "  - {{name: {PREFIX}{name}, newName: {repository}, digest: {digest:?}}}"
        )?;
    }
    let rest = tail.lines().skip_while(|line| line.starts_with([' ', '-']));
    for line in rest {
        writeln!(pinned, "{line}")?;
    }
    Ok(pinned)
}

/// The images of pods that rendered manifests name by anything else than a digest. What an operator makes of its own
/// resources is not looked at: stores have versions of their own and are no part of a release.
pub(super) fn without_digest(manifests: &Manifests) -> Vec<&str> {
    let workloads = manifests.workloads().into_iter();
    let containers = workloads.flat_map(Workload::containers);
    let images = containers.map(|container| text(container, "/image"));
    images.filter(|image| !image.contains("@sha256:")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_images_is_replaced_and_nothing_else() {
        let images = Images::from([("edge".to_owned(), "ghcr.io/x/edge@sha256:ab".to_owned())]);
        let text = "kind: Component\nimages:\n  - {name: commerce-mesh/edge, newTag: 1}\n  - {name: b}\nreplacements:\n  - x\n";
        assert_eq!(
            pinned(text, &images).unwrap(),
            "kind: Component\nimages:\n  - {name: commerce-mesh/edge, newName: ghcr.io/x/edge, digest: \"sha256:ab\"}\n\
             replacements:\n  - x\n"
        );
        assert!(pinned("kind: Component\n", &images).is_err());
    }

    #[test]
    fn an_image_by_tag_is_found_where_a_pod_runs_it() {
        let manifests = "\
kind: Deployment
spec: {template: {spec: {initContainers: [{image: b:1.0}], containers: [{image: a@sha256:1}]}}}
---
kind: Job
spec: {template: {spec: {containers: [{image: c}]}}}
---
kind: RabbitmqCluster
spec: {image: rabbitmq:4.1}
";
        let manifests = Manifests::parse(manifests).unwrap();
        assert_eq!(without_digest(&manifests), ["b:1.0", "c"]);
    }
}
