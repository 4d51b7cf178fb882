//! A layer: a tree of files as a tar file that is the same bytes each time, and its two digests.

use std::{collections::BTreeMap, io::Write as _};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// Files and folders by their path, without a slash at the beginning. Sorted, so that a folder comes before what is in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<String, Node>,
}

#[derive(Clone, Debug)]
struct Node {
    /// `None`: a folder.
    content: Option<Vec<u8>>,
    mode: u32,
    /// User and group.
    owner: u32,
}

impl Tree {
    /// Adds a file of root's, with the folders above it.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.above(path);
        let node = Node {
            content: Some(content.into()),
            mode,
            owner: 0,
        };
        self.nodes.insert(relative(path), node);
    }

    /// Adds a folder, with those above it.
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u32) {
        self.above(path);
        let content = None;
        let node = Node {
            content,
            mode,
            owner,
        };
        self.nodes.insert(relative(path), node);
    }

    fn above(&mut self, path: &str) {
        let path = relative(path);
        for (end, _) in path.match_indices('/') {
            let folder = Node {
                content: None,
                mode: 0o755,
                owner: 0,
            };
            self.nodes.entry(path[..end].to_owned()).or_insert(folder);
        }
    }

    /// As a layer whose files are all of this time.
    pub(super) fn layer(&self, epoch: u64) -> Result<Layer> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, node) in &self.nodes {
            let (kind, path) = match node.content {
                Some(_) => (EntryType::Regular, path.clone()),
                None => (EntryType::Directory, format!("{path}/")),
            };
            let content = node.content.as_deref().unwrap_or_default();
            let mut header = header(kind, node.mode, node.owner, epoch, content);
            tar.append_data(&mut header, &path, content)
                .with_context(|| path.clone())?;
        }
        let tar = tar.into_inner()?;
        let mut gzip = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::default());
        gzip.write_all(&tar)?;
        Ok(Layer {
            diff_id: digest(&tar),
            blob: gzip.finish()?,
        })
    }
}

/// The header of an entry that depends on nothing else.
pub(super) fn header(kind: EntryType, mode: u32, owner: u32, epoch: u64, content: &[u8]) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.into());
    header.set_gid(owner.into());
    header.set_mtime(epoch);
    header.set_size(content.len() as u64);
    header
}

fn relative(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// A layer as it is stored.
#[derive(Debug)]
pub(super) struct Layer {
    /// The digest of the tar file inside.
    pub(super) diff_id: String,
    /// The tar file, compressed.
    pub(super) blob: Vec<u8>,
}

/// As OCI writes it.
pub(super) fn digest(bytes: &[u8]) -> String {
    let sum = Sha256::digest(bytes);
    let mut text = String::from("sha256:");
    for byte in sum {
        use std::fmt::Write as _;
        write!(text, "{byte:02x}").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_the_order_of_adding_does_not_matter() {
        let mut one = Tree::default();
        one.file("/usr/local/bin/b", 0o755, "b");
        one.file("usr/a", 0o644, "a");
        one.folder("/data", 0o700, 65_532);
        let mut other = Tree::default();
        other.folder("data", 0o700, 65_532);
        other.file("/usr/a", 0o644, "a");
        other.file("/usr/local/bin/b", 0o755, "b");
        let (layer, same) = (one.layer(7).unwrap(), other.layer(7).unwrap());
        assert_eq!(layer.blob, same.blob);
        assert_ne!(layer.blob, one.layer(8).unwrap().blob);

        let tar = flate2::read::GzDecoder::new(layer.blob.as_slice());
        let mut archive = tar::Archive::new(tar);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header();
            let of = (header.mode().unwrap(), header.uid().unwrap());
            assert_eq!(header.mtime().unwrap(), 7);
            (path, of)
        });
        let entries: Vec<_> = entries.collect();
        let expected = [
            ("data/", (0o700, 65_532)),
            ("usr/", (0o755, 0)),
            ("usr/a", (0o644, 0)),
            ("usr/local/", (0o755, 0)),
            ("usr/local/bin/", (0o755, 0)),
            ("usr/local/bin/b", (0o755, 0)),
        ];
        assert_eq!(
            entries,
            expected.map(|(path, of)| (path.to_owned(), of)).to_vec()
        );
    }
}
