//! An image as an OCI image layout in a tar file: writing one, and reading one with every digest checked.
//!
//! Deliberately without a library for the format: what is written of it are four small JSON documents.

use std::{collections::BTreeMap, fs::File, io::Read as _, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tar::EntryType;

use super::{
    REPOSITORY, contents,
    layer::{Layer, Tree, digest, header},
    provenance::Provenance,
};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image in memory.
pub(super) struct Archive {
    files: BTreeMap<String, Vec<u8>>,
    digest: String,
    epoch: u64,
}

impl Archive {
    /// Of layers, each with a word on what it holds.
    pub(super) fn build<'a>(
        provenance: &Provenance,
        layers: impl IntoIterator<Item = (&'a str, Tree)>,
    ) -> Result<Archive> {
        let mut archive = Archive {
            files: BTreeMap::new(),
            digest: String::new(),
            epoch: provenance.epoch,
        };
        let (mut diff_ids, mut history, mut descriptors) = (Vec::new(), Vec::new(), Vec::new());
        for (what, tree) in layers {
            let Layer { diff_id, blob } = tree.layer(provenance.epoch)?;
            diff_ids.push(diff_id);
            history.push(json!({"created": provenance.created, "created_by": what}));
            descriptors.push(archive.blob(LAYER, blob));
        }
        let config = json!({
            "created": provenance.created,
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{0}:{0}", contents::USER),
                "Entrypoint": [format!("{}/{}", contents::PROGRAMS, provenance.title)],
                "Env": [format!("PATH={}", contents::PROGRAMS)],
                "WorkingDir": "/",
                "StopSignal": "SIGTERM",
                "Labels": provenance.annotations(),
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": archive.blob(CONFIG, serde_json::to_vec(&config)?),
            "layers": descriptors,
            "annotations": provenance.annotations(),
        });
        let mut descriptor = archive.blob(MANIFEST, serde_json::to_vec(&manifest)?);
        text(&descriptor, "digest")?.clone_into(&mut archive.digest);
        descriptor["platform"] = json!({"architecture": architecture(), "os": "linux"});
        let (title, version) = (&provenance.title, &provenance.version);
        descriptor["annotations"] = json!({
            // What `skopeo copy oci-archive:FILE:NAME` calls it, and what containerd calls it once it is imported.
            "org.opencontainers.image.ref.name": version,
            "io.containerd.image.name": format!("docker.io/{REPOSITORY}/{title}:{version}"),
        });
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]});
        let files = &mut archive.files;
        files.insert("index.json".to_owned(), serde_json::to_vec(&index)?);
        files.insert("oci-layout".to_owned(), LAYOUT.into());
        Ok(archive)
    }

    /// Keeps some content under its digest; its descriptor.
    fn blob(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let (digest, size) = (digest(&content), content.len());
        self.files.insert(path_of(&digest), content);
        json!({"mediaType": media_type, "digest": digest, "size": size})
    }

    /// Of the manifest.
    pub(super) fn digest(&self) -> &str {
        &self.digest
    }

    /// The tar file.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, content) in &self.files {
            let mut header = header(EntryType::Regular, 0o644, 0, self.epoch, content);
            tar.append_data(&mut header, path, content.as_slice())?;
        }
        Ok(tar.into_inner()?)
    }
}

/// An image that was read, and is what its digests say.
pub(super) struct Image {
    /// The image's configuration.
    pub(super) config: Value,
    /// Its tar files, the lowest first.
    pub(super) layers: Vec<Vec<u8>>,
}

impl Image {
    /// Reads an archive and follows it from the index down.
    pub(super) fn open(archive: &Path) -> Result<Image> {
        let file =
            File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(file).entries()? {
            let mut entry = entry?;
            let path = entry.path()?.display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(path, content);
        }
        Self::follow(&files).with_context(|| archive.display().to_string())
    }

    fn follow(files: &BTreeMap<String, Vec<u8>>) -> Result<Image> {
        let file = |path: &str| {
            let content = files.get(path).map(Vec::as_slice);
            content.with_context(|| format!("{path} is missing"))
        };
        let layout: Value = serde_json::from_slice(file("oci-layout")?)?;
        ensure!(
            layout["imageLayoutVersion"] == "1.0.0",
            "an unknown layout: {layout}"
        );
        let described = |descriptor: &Value, media_type: &str| {
            let expected = text(descriptor, "digest")?;
            let said = text(descriptor, "mediaType")?;
            ensure!(said == media_type, "{expected} is {said}, not {media_type}");
            let content = file(&path_of(expected))?;
            ensure!(
                digest(content) == expected && descriptor["size"] == content.len(),
                "{expected} is not what it was"
            );
            Ok(content)
        };
        let index: Value = serde_json::from_slice(file("index.json")?)?;
        let [descriptor] = list(&index, "manifests")? else {
            bail!("not one image but several")
        };
        let manifest: Value = serde_json::from_slice(described(descriptor, MANIFEST)?)?;
        let config: Value = serde_json::from_slice(described(&manifest["config"], CONFIG)?)?;
        let (stored, diff_ids) = (
            list(&manifest, "layers")?,
            list(&config["rootfs"], "diff_ids")?,
        );
        ensure!(
            stored.len() == diff_ids.len(),
            "{} layers, {} diff ids",
            stored.len(),
            diff_ids.len()
        );
        let mut layers = Vec::new();
        for (descriptor, diff_id) in stored.iter().zip(diff_ids) {
            let mut tar = Vec::new();
            GzDecoder::new(described(descriptor, LAYER)?).read_to_end(&mut tar)?;
            ensure!(
                *diff_id == digest(&tar),
                "diff id {diff_id} is not of its layer"
            );
            layers.push(tar);
        }
        Ok(Image { config, layers })
    }

    /// Puts the file system of the image into a folder. Owners are kept, for which it takes root.
    pub(super) fn unpack(&self, folder: &Path) -> Result<()> {
        for layer in &self.layers {
            let mut tar = tar::Archive::new(layer.as_slice());
            tar.set_preserve_permissions(true);
            tar.set_preserve_ownerships(true);
            tar.unpack(folder)?;
        }
        Ok(())
    }

    /// The paths of everything in it.
    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for layer in &self.layers {
            for entry in tar::Archive::new(layer.as_slice()).entries().unwrap() {
                paths.push(entry.unwrap().path().unwrap().display().to_string());
            }
        }
        paths
    }
}

/// By OCI's name.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn path_of(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    let text = value[key].as_str();
    text.with_context(|| format!("{key} is missing in {value}"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a [Value]> {
    let list = value[key].as_array().map(Vec::as_slice);
    list.with_context(|| format!("{key} is missing in {value}"))
}
