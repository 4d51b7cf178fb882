//! A folder that is still there after a power cut.

use std::{fs, io, path::Path};

/// Creates a folder and those above it where they are missing, on disk: a folder's name lasts only once
/// the folder above it is synced, and without it a power cut takes everything inside.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = folder
        .ancestors()
        .take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists())
        .collect();
    fs::create_dir_all(folder)?;
    missing.into_iter().try_for_each(sync_entry)
}

#[cfg(unix)]
fn sync_entry(created: &Path) -> io::Result<()> {
    let above = created
        .parent()
        .filter(|above| !above.as_os_str().is_empty());
    fs::File::open(above.unwrap_or(Path::new(".")))?.sync_all()
}

/// Elsewhere a folder can not be opened to be synced, and its journal keeps names.
#[cfg(not(unix))]
fn sync_entry(_created: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_missing_are_created_and_those_that_are_there_are_left() {
        let above = tempfile::tempdir().expect("a temporary folder");
        let folder = above.path().join("a/b/c");
        create_folder(&folder).expect("it can be created");
        assert!(folder.is_dir());
        create_folder(&folder).expect("it is there already");
    }
}
