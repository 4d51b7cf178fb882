//! Rendering overlays, by `kubectl kustomize`: what `kubectl apply -k` would send.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::manifests::Manifests;
use crate::{
    checkout,
    process::{command, output},
};

/// An overlay, rendered.
pub(super) struct Overlay {
    /// Its folder below `k8s/overlays`.
    pub(super) name: String,
    /// What it renders to, as one YAML file.
    pub(super) file: PathBuf,
    pub(super) manifests: Manifests,
}

/// Renders every folder of `k8s/overlays` into `into`.
pub(super) fn overlays(kubectl: &Path, into: &Path) -> Result<Vec<Overlay>> {
    let folder = checkout::root().join("k8s/overlays");
    let entries = fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))?;
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    if names.is_empty() {
        bail!("{} holds no overlay", folder.display());
    }
    let render = |name: String| {
        let yaml = output(command(kubectl).arg("kustomize").arg(folder.join(&name)))?;
        let file = into.join(format!("{name}.yaml"));
        fs::write(&file, &yaml)?;
        let manifests = Manifests::parse(&yaml).with_context(|| name.clone())?;
        Ok(Overlay {
            name,
            file,
            manifests,
        })
    };
    names.into_iter().map(render).collect()
}
