//! What is on the disk, twice: as programs see it, and as it would be after a power cut. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use rand::{Rng, SeedableRng, rngs::StdRng};

/// The number of the root directory.
pub(super) const ROOT: u64 = 1;

/// What a disk writes at once: a cut leaves a block as it was or as it was to be.
const BLOCK_BYTES: usize = 4096;

/// What a power cut takes.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All that was not synced.
    Everything,
    /// Each unsynced block of a file or not, drawn from the seed. Unsynced directory entries go always.
    Some {
        /// The same seed takes the same blocks.
        seed: u64,
    },
}

/// Why an operation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NotFound,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    PowerIsOff,
}

enum Node {
    File(File),
    Directory(Directory),
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Default, Clone)]
struct Directory {
    entries: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
}

/// A tree of files and directories in memory.
pub struct Volume {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    on: bool,
    syncs: u64,
}

/// What `stat` tells.
pub(super) struct Attributes {
    pub(super) number: u64,
    pub(super) is_directory: bool,
    pub(super) size_bytes: u64,
}

impl Default for Volume {
    fn default() -> Volume {
        let root = Node::Directory(Directory::default());
        Volume {
            nodes: BTreeMap::from([(ROOT, root)]),
            next: ROOT + 1,
            on: true,
            syncs: 0,
        }
    }
}

impl Volume {
    /// Takes what was not synced and refuses every operation until [`Volume::power_on`].
    pub fn cut(&mut self, loss: Loss) {
        self.on = false;
        let mut random = match loss {
            Loss::Everything => None,
            Loss::Some { seed } => Some(StdRng::seed_from_u64(seed)),
        };
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.cut(random.as_mut()),
                Node::Directory(directory) => directory.entries = directory.synced.clone(),
            }
        }
        self.forget_unreachable();
    }

    /// Allows operations again.
    pub fn power_on(&mut self) {
        self.on = true;
        self.syncs = 0;
    }

    /// How many syncs there were since the power came on.
    pub fn syncs(&self) -> u64 {
        self.syncs
    }

    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::new();
        let mut open = vec![ROOT];
        while let Some(number) = open.pop() {
            if !reachable.insert(number) {
                continue;
            }
            if let Some(Node::Directory(directory)) = self.nodes.get(&number) {
                open.extend(directory.entries.values().chain(directory.synced.values()));
            }
        }
        self.nodes.retain(|number, _| reachable.contains(number));
    }

    pub(super) fn attributes(&self, number: u64) -> Result<Attributes, Refused> {
        let (is_directory, size_bytes) = match self.node(number)? {
            Node::File(file) => (false, file.bytes.len() as u64),
            Node::Directory(_) => (true, BLOCK_BYTES as u64),
        };
        Ok(Attributes {
            number,
            is_directory,
            size_bytes,
        })
    }

    pub(super) fn lookup(&self, parent: u64, name: &OsStr) -> Result<Attributes, Refused> {
        let number = self
            .directory(parent)?
            .entries
            .get(name)
            .ok_or(Refused::NotFound)?;
        self.attributes(*number)
    }

    pub(super) fn entries(&self, number: u64) -> Result<Vec<(OsString, Attributes)>, Refused> {
        let directory = self.directory(number)?;
        let named = directory.entries.iter();
        named
            .map(|(name, number)| Ok((name.clone(), self.attributes(*number)?)))
            .collect()
    }

    pub(super) fn create_file(&mut self, parent: u64, name: &OsStr) -> Result<Attributes, Refused> {
        self.create(parent, name, Node::File(File::default()))
    }

    pub(super) fn create_directory(
        &mut self,
        parent: u64,
        name: &OsStr,
    ) -> Result<Attributes, Refused> {
        self.create(parent, name, Node::Directory(Directory::default()))
    }

    fn create(&mut self, parent: u64, name: &OsStr, node: Node) -> Result<Attributes, Refused> {
        let number = self.next;
        let directory = self.directory_mut(parent)?;
        if directory.entries.contains_key(name) {
            return Err(Refused::Exists);
        }
        directory.entries.insert(name.to_owned(), number);
        self.nodes.insert(number, node);
        self.next += 1;
        self.attributes(number)
    }

    /// Removes an entry. What it named stays while a program holds it open, and returns with a power cut
    /// until the directory is synced.
    pub(super) fn remove(
        &mut self,
        parent: u64,
        name: &OsStr,
        directory: bool,
    ) -> Result<(), Refused> {
        let found = self.lookup(parent, name)?;
        match (directory, found.is_directory) {
            (true, false) => return Err(Refused::NotDirectory),
            (false, true) => return Err(Refused::IsDirectory),
            (true, true) if !self.directory(found.number)?.entries.is_empty() => {
                return Err(Refused::NotEmpty);
            }
            _ => {}
        }
        self.directory_mut(parent)?.entries.remove(name);
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        replace: bool,
    ) -> Result<(), Refused> {
        let number = self.lookup(from.0, from.1)?.number;
        match self.lookup(to.0, to.1) {
            Ok(_) if !replace => return Err(Refused::Exists),
            Ok(old) if old.is_directory && !self.directory(old.number)?.entries.is_empty() => {
                return Err(Refused::NotEmpty);
            }
            Ok(_) | Err(Refused::NotFound) => {}
            Err(refused) => return Err(refused),
        }
        self.directory_mut(from.0)?.entries.remove(from.1);
        self.directory_mut(to.0)?
            .entries
            .insert(to.1.to_owned(), number);
        Ok(())
    }

    pub(super) fn read(&self, number: u64, offset: usize, length: usize) -> Result<&[u8], Refused> {
        let bytes = &self.file(number)?.bytes;
        let start = offset.min(bytes.len());
        Ok(&bytes[start..offset.saturating_add(length).min(bytes.len())])
    }

    pub(super) fn write(&mut self, number: u64, offset: usize, data: &[u8]) -> Result<(), Refused> {
        let file = self.file_mut(number)?;
        let end = offset + data.len();
        if end > file.bytes.len() {
            file.resize(end);
        }
        file.bytes[offset..end].copy_from_slice(data);
        file.dirty.extend(blocks(offset, end));
        Ok(())
    }

    pub(super) fn truncate(&mut self, number: u64, size: usize) -> Result<(), Refused> {
        self.file_mut(number)?.resize(size);
        Ok(())
    }

    /// Makes a file's bytes, or a directory's entries, last.
    pub(super) fn sync(&mut self, number: u64) -> Result<(), Refused> {
        match self.node_mut(number)? {
            Node::File(file) => file.sync(),
            Node::Directory(directory) => directory.synced = directory.entries.clone(),
        }
        self.syncs += 1;
        Ok(())
    }

    fn node(&self, number: u64) -> Result<&Node, Refused> {
        if !self.on {
            return Err(Refused::PowerIsOff);
        }
        self.nodes.get(&number).ok_or(Refused::NotFound)
    }

    fn node_mut(&mut self, number: u64) -> Result<&mut Node, Refused> {
        if !self.on {
            return Err(Refused::PowerIsOff);
        }
        self.nodes.get_mut(&number).ok_or(Refused::NotFound)
    }

    fn file(&self, number: u64) -> Result<&File, Refused> {
        match self.node(number)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(Refused::IsDirectory),
        }
    }

    fn file_mut(&mut self, number: u64) -> Result<&mut File, Refused> {
        match self.node_mut(number)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(Refused::IsDirectory),
        }
    }

    fn directory(&self, number: u64) -> Result<&Directory, Refused> {
        match self.node(number)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(Refused::NotDirectory),
        }
    }

    fn directory_mut(&mut self, number: u64) -> Result<&mut Directory, Refused> {
        match self.node_mut(number)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(Refused::NotDirectory),
        }
    }
}

impl File {
    fn resize(&mut self, size: usize) {
        let old = self.bytes.len();
        self.bytes.resize(size, 0);
        self.dirty.extend(blocks(old.min(size), old.max(size)));
    }

    fn sync(&mut self) {
        self.synced.resize(self.bytes.len(), 0);
        for block in std::mem::take(&mut self.dirty) {
            copy_block(&self.bytes, &mut self.synced, block);
        }
    }

    fn cut(&mut self, random: Option<&mut StdRng>) {
        let dirty = std::mem::take(&mut self.dirty);
        if let Some(random) = random {
            let resized = self.bytes.len() != self.synced.len();
            if resized && random.random() {
                self.synced.resize(self.bytes.len(), 0);
            }
            for block in dirty {
                if random.random() {
                    copy_block(&self.bytes, &mut self.synced, block);
                }
            }
        }
        self.bytes = self.synced.clone();
    }
}

fn blocks(start: usize, end: usize) -> std::ops::Range<usize> {
    start / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES)
}

/// Copies one block as far as both reach: a block beyond the end of a file was never allocated.
fn copy_block(from: &[u8], to: &mut [u8], block: usize) {
    let start = block * BLOCK_BYTES;
    let end = (start + BLOCK_BYTES).min(from.len()).min(to.len());
    if start < end {
        to[start..end].copy_from_slice(&from[start..end]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(volume: &mut Volume, name: &str, bytes: &[u8]) -> u64 {
        let number = volume.create_file(ROOT, name.as_ref()).unwrap().number;
        volume.write(number, 0, bytes).unwrap();
        number
    }

    fn after_cut(mut volume: Volume, loss: Loss) -> Volume {
        volume.cut(loss);
        volume.power_on();
        volume
    }

    fn content(volume: &Volume, name: &str) -> Option<Vec<u8>> {
        let number = volume.lookup(ROOT, name.as_ref()).ok()?.number;
        Some(volume.read(number, 0, usize::MAX).unwrap().to_vec())
    }

    #[test]
    fn synced_bytes_under_a_synced_name_last() {
        let mut volume = Volume::default();
        let number = file(&mut volume, "a", b"first");
        volume.sync(number).unwrap();
        volume.sync(ROOT).unwrap();
        volume.write(number, 0, b"later").unwrap();
        assert_eq!(content(&volume, "a").unwrap(), b"later");
        assert_eq!(
            content(&after_cut(volume, Loss::Everything), "a").unwrap(),
            b"first"
        );
    }

    #[test]
    fn a_synced_file_without_a_synced_name_is_lost() {
        let mut volume = Volume::default();
        let number = file(&mut volume, "a", b"bytes");
        volume.sync(number).unwrap();
        assert_eq!(content(&after_cut(volume, Loss::Everything), "a"), None);
    }

    #[test]
    fn a_synced_name_of_an_unsynced_file_is_empty() {
        let mut volume = Volume::default();
        file(&mut volume, "a", b"bytes");
        volume.sync(ROOT).unwrap();
        assert_eq!(
            content(&after_cut(volume, Loss::Everything), "a").unwrap(),
            b""
        );
    }

    #[test]
    fn renames_and_removals_last_only_with_the_directory() {
        let mut volume = Volume::default();
        for name in ["old", "gone"] {
            let number = file(&mut volume, name, b"bytes");
            volume.sync(number).unwrap();
        }
        volume.sync(ROOT).unwrap();
        volume
            .rename((ROOT, "old".as_ref()), (ROOT, "new".as_ref()), true)
            .unwrap();
        volume.remove(ROOT, "gone".as_ref(), false).unwrap();
        let volume = after_cut(volume, Loss::Everything);
        assert_eq!(content(&volume, "old").unwrap(), b"bytes");
        assert_eq!(content(&volume, "gone").unwrap(), b"bytes");
        assert_eq!(content(&volume, "new"), None);
    }

    #[test]
    fn truncation_lasts_only_with_the_file() {
        let mut volume = Volume::default();
        let number = file(&mut volume, "a", b"bytes");
        volume.sync(number).unwrap();
        volume.sync(ROOT).unwrap();
        volume.truncate(number, 1).unwrap();
        let mut volume = after_cut(volume, Loss::Everything);
        assert_eq!(content(&volume, "a").unwrap(), b"bytes");
        volume.truncate(number, 1).unwrap();
        volume.sync(number).unwrap();
        assert_eq!(
            content(&after_cut(volume, Loss::Everything), "a").unwrap(),
            b"b"
        );
    }

    #[test]
    fn a_partial_loss_takes_some_blocks_and_never_synced_ones() {
        let mut volume = Volume::default();
        let number = file(&mut volume, "a", &vec![1; 64 * BLOCK_BYTES]);
        volume.sync(number).unwrap();
        volume.sync(ROOT).unwrap();
        volume
            .write(number, 32 * BLOCK_BYTES, &vec![2; 32 * BLOCK_BYTES])
            .unwrap();
        let bytes = content(&after_cut(volume, Loss::Some { seed: 7 }), "a").unwrap();
        assert!(bytes[..32 * BLOCK_BYTES].iter().all(|byte| *byte == 1));
        let kept = bytes
            .chunks(BLOCK_BYTES)
            .filter(|block| block[0] == 2)
            .count();
        assert!(
            (1..32).contains(&kept),
            "{kept} of 32 unsynced blocks were kept"
        );
    }

    #[test]
    fn nothing_works_while_the_power_is_off() {
        let mut volume = Volume::default();
        let number = file(&mut volume, "a", b"bytes");
        volume.sync(ROOT).unwrap();
        volume.cut(Loss::Everything);
        assert_eq!(volume.write(number, 0, b"x"), Err(Refused::PowerIsOff));
        assert_eq!(volume.sync(number), Err(Refused::PowerIsOff));
    }
}
