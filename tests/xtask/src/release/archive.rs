//! Image archives in OCI's layout: one `NAME.oci.tar` for each program, as `cargo xtask image` writes them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{command, output};

/// How their names end.
const END: &str = ".oci.tar";

/// The archive of a program.
pub(super) fn file(folder: &Path, name: &str) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    folder.join(format!("{name}{END}"))
}

/// The digest of each image in a folder, by the program's name. That of its manifest: what a registry calls it.
pub(super) fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut digests = BTreeMap::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(END) {
            let digest =
                digest(&file(folder, name)).with_context(|| format!("the image of {name}"))?;
            digests.insert(name.to_owned(), digest);
        }
    }
    if digests.is_empty() {
        bail!(
            "no image archive in {}: `cargo xtask image --out` writes them",
            folder.display()
        );
    }
    Ok(digests)
}

fn digest(archive: &Path) -> Result<String> {
    let index = output(command("tar").arg("-xOf").arg(archive).arg("index.json"))?;
    let index: Value = serde_json::from_str(&index).context("index.json is not JSON")?;
    let manifests = index["manifests"].as_array().map(Vec::as_slice);
    let Some([manifest]) = manifests else {
        bail!("index.json names other than one image");
    };
    let digest = manifest["digest"].as_str().unwrap_or_default();
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() != 64 || !hex.chars().all(|c| c.is_ascii_hexdigit()) {
        bail!("{digest:?} is no sha256 digest");
    }
    Ok(digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(index: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.json"), index).unwrap();
        let mut tar = command("tar");
        tar.arg("-C")
            .arg(folder.path())
            .args(["-cf"])
            .arg(file(folder.path(), "edge"))
            .arg("index.json");
        output(&mut tar).unwrap();
        folder
    }

    #[test]
    fn the_digest_is_read_from_the_archive() {
        let digest = format!("sha256:{}", "0f".repeat(32));
        let folder = archive(&format!(r#"{{"manifests": [{{"digest": "{digest}"}}]}}"#));
        assert_eq!(
            read(folder.path()).unwrap(),
            BTreeMap::from([("edge".to_owned(), digest)])
        );
    }

    #[test]
    fn an_archive_without_an_image_and_a_folder_without_an_archive_are_named() {
        let error = read(archive(r#"{"manifests": []}"#).path()).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "the image of edge: index.json names other than one image"
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(
            read(empty.path())
                .unwrap_err()
                .to_string()
                .contains("no image archive")
        );
    }
}
