//! The data directory: one process at a time, and what it remembers about itself.

use anyhow::{Context as _, bail};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Where a shop keeps its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// In this folder, created when missing.
    Folder(PathBuf),
    /// In a temporary folder that is removed with the shop.
    Ephemeral,
}

/// A data directory that this process has for itself.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    fresh: bool,
    /// The operating system gives the lock back when the file is closed, however the process ends.
    _lock: File,
    /// Removed when dropped; after the lock, so that nobody takes a folder that is going away.
    _temporary: Option<TempDir>,
}

const LOCK_FILE: &str = "lock";
/// How the name of a note ends that is being written.
const UNFINISHED: &str = ".new";
const LOCK_BYTES_MAX: u64 = 32;

impl DataDir {
    /// Creates the folder when missing, and locks it.
    pub(crate) fn open(storage: &Storage) -> anyhow::Result<Self> {
        let (path, temporary) = match storage {
            Storage::Folder(path) => (path.clone(), None),
            Storage::Ephemeral => {
                let folder = tempfile::Builder::new().prefix("shop-").tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        mesh_store::create_folder(&path)
            .with_context(|| format!("data directory \"{}\" cannot be created", path.display()))?;
        let fresh = is_fresh(&path)
            .with_context(|| format!("data directory \"{}\" cannot be read", path.display()))?;
        let lock = lock(&path)?;
        Ok(Self {
            path,
            fresh,
            _lock: lock,
            _temporary: temporary,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether nothing was kept there when this process came.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// What was remembered under a name.
    pub(crate) fn recall(&self, name: &str) -> anyhow::Result<Option<String>> {
        match fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("\"{name}\" cannot be read")),
        }
    }

    /// Remembers a text under a name; on disk, whole or not at all, when it returns.
    pub(crate) fn remember(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let write = || -> std::io::Result<()> {
            let new = self.path.join(format!("{name}{UNFINISHED}"));
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, self.path.join(name))?;
            File::open(&self.path)?.sync_all() // The name is on disk when its folder is.
        };
        write().with_context(|| format!("\"{name}\" cannot be written"))
    }
}

/// Whether a folder holds nothing but what a process leaves that was killed before it began.
fn is_fresh(folder: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let left_over = name == LOCK_FILE || name.to_string_lossy().ends_with(UNFINISHED);
        if !left_over {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join(LOCK_FILE);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("\"{}\" cannot be written", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            let _ = (&file).take(LOCK_BYTES_MAX).read_to_string(&mut owner);
            bail!(
                "data directory \"{}\" is in use by process {}: stop it, or choose another one with --data-dir",
                folder.display(),
                if owner.is_empty() {
                    "(unknown)"
                } else {
                    owner.trim()
                },
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("\"{}\" cannot be locked", path.display()));
        }
    }
    file.set_len(0)?;
    file.rewind()?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_user_at_a_time_and_says_which() {
        let parent = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(parent.path().join("a/b"));
        let first = DataDir::open(&storage).unwrap();
        let error = DataDir::open(&storage).unwrap_err().to_string();
        assert!(
            error.contains(&format!("process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        DataDir::open(&storage).unwrap();
    }

    #[test]
    fn a_folder_is_fresh_until_something_is_kept_there() {
        let parent = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(parent.path().to_owned());
        for _ in 0..2 {
            assert!(
                DataDir::open(&storage).unwrap().is_fresh(),
                "a lock is nothing"
            );
        }
        fs::write(parent.path().join("note.new"), "half").unwrap();
        let folder = DataDir::open(&storage).unwrap();
        assert!(folder.is_fresh(), "half a note is nothing");
        folder.remember("note", "whole").unwrap();
        drop(folder);
        assert!(!DataDir::open(&storage).unwrap().is_fresh());
    }

    #[test]
    fn what_is_remembered_is_recalled() {
        let parent = tempfile::tempdir().unwrap();
        let storage = Storage::Folder(parent.path().to_owned());
        let folder = DataDir::open(&storage).unwrap();
        assert_eq!(folder.recall("note").unwrap(), None);
        folder.remember("note", "one").unwrap();
        folder.remember("note", "two").unwrap();
        assert_eq!(folder.recall("note").unwrap().as_deref(), Some("two"));
    }

    #[test]
    fn an_ephemeral_folder_is_removed() {
        let folder = DataDir::open(&Storage::Ephemeral).unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "x").unwrap();
        let error = DataDir::open(&Storage::Folder(path))
            .unwrap_err()
            .to_string();
        assert!(error.contains("file"), "{error}");
    }
}
