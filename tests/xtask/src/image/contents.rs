//! What is in an image, layer by layer.

use std::fs;

use anyhow::{Context as _, Result};

use super::{layer::Tree, libraries::Library, sbom};

/// The user that every program runs as, and its group: a number that no system gives to anybody.
pub(super) const USER: u32 = 65_532;
/// Where programs are.
pub(super) const PROGRAMS: &str = "/app";
/// Where a program keeps its data, if it keeps any: a volume is put here.
pub(super) const DATA: &str = "/data";
/// Where programs look for the certificates of public authorities, here and in the image.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What a program needs of a system.
pub(super) fn system(libraries: &[Library]) -> Result<Tree> {
    let mut tree = Tree::default();
    for library in libraries {
        tree.file(&library.path, 0o755, library.content.clone());
    }
    let authorities = fs::read(AUTHORITIES)
        .with_context(|| format!("cannot read {AUTHORITIES} (Debian package ca-certificates)"))?;
    tree.file(AUTHORITIES, 0o644, authorities);
    let user =
        format!("root:x:0:0:root:/:/nologin\nnonroot:x:{USER}:{USER}:nonroot:{DATA}:/nologin\n");
    tree.file("/etc/passwd", 0o644, user);
    tree.file(
        "/etc/group",
        0o644,
        format!("root:x:0:\nnonroot:x:{USER}:\n"),
    );
    // Without it the C library asks DNS before /etc/hosts.
    tree.file("/etc/nsswitch.conf", 0o644, "hosts: files dns\n");
    tree.folder(DATA, 0o700, USER);
    tree.folder("/tmp", 0o1777, 0);
    Ok(tree)
}

/// The program itself.
pub(super) fn program(name: &str, content: Vec<u8>) -> Tree {
    let mut tree = Tree::default();
    tree.file(&format!("{PROGRAMS}/{name}"), 0o755, content);
    tree
}

/// Its bill of materials.
pub(super) fn bill(name: &str, content: &[u8]) -> Tree {
    let mut tree = Tree::default();
    tree.file(&format!("{}/{name}.cdx.json", sbom::FOLDER), 0o644, content);
    tree
}
