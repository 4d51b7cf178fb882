//! Files that are read again when what they hold has changed, all of them together.
//!
//! By content, every interval: it notices in-place writes, renames and Kubernetes' swaps of a symlinked
//! folder alike, where watching inodes would miss some. Deliberately without inotify.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};

/// The longest file, in bytes: a revocation list of a large authority fits.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// How often files are read in a row until two readings agree.
const READINGS_MAX: usize = 5;

/// Why files cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// One cannot be read.
    #[error("file \"{}\" cannot be read: {source}", path.display())]
    Read {
        /// As configured.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// One is longer than [`FILE_BYTES_MAX`].
    #[error("file \"{}\" is longer than {FILE_BYTES_MAX} bytes", .0.display())]
    Length(PathBuf),
    /// They were written to whenever they were read.
    #[error("the files change while they are read")]
    Changing,
}

/// What the files hold, in the order of their paths.
type Contents = Vec<Vec<u8>>;

#[derive(Debug)]
pub(crate) struct Poll {
    paths: Vec<PathBuf>,
    interval: Duration,
    /// `None`: nothing was read yet.
    seen: Option<[u8; 32]>,
    /// When to look again; `None`: at once.
    due: Option<Instant>,
}

impl Poll {
    pub(crate) fn new(paths: Vec<PathBuf>, interval: Duration) -> Self {
        Self {
            paths,
            interval,
            seen: None,
            due: None,
        }
    }

    /// The contents: at once when asked first, then whenever they differ from the last. After an error
    /// the files are looked at again an interval later, and delivered even if they are what they were:
    /// only so does it show that the trouble is over.
    pub(crate) async fn next(&mut self) -> Result<Contents, FileError> {
        loop {
            // A moment and not a pause: whoever cancels and asks again does not put it off.
            if let Some(due) = self.due {
                sleep_until(due).await;
            }
            self.due = Some(Instant::now() + self.interval);
            let (paths, seen) = (self.paths.clone(), self.seen);
            let reading = tokio::task::spawn_blocking(move || read_stable(&paths, seen));
            // Only a runtime that shuts down drops a blocking task, and then nobody waits here.
            let Ok(read) = reading.await else { continue };
            let read = read.inspect_err(|_| self.seen = None);
            if let Some((digest, contents)) = read? {
                self.seen = Some(digest);
                return Ok(contents);
            }
        }
    }
}

/// Reads until two readings agree, so that a swap between two files is not taken for a set; `None`: they
/// hold what was `seen`.
fn read_stable(
    paths: &[PathBuf],
    seen: Option<[u8; 32]>,
) -> Result<Option<([u8; 32], Contents)>, FileError> {
    let mut before = None;
    for _ in 0..READINGS_MAX {
        let contents = read_all(paths)?;
        let digest = digest(&contents);
        if Some(digest) == seen {
            return Ok(None);
        }
        if before == Some(digest) {
            return Ok(Some((digest, contents)));
        }
        before = Some(digest);
    }
    Err(FileError::Changing)
}

fn read_all(paths: &[PathBuf]) -> Result<Contents, FileError> {
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut content = Vec::new();
    let read = File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content))
        .map_err(|source| FileError::Read {
            path: path.to_owned(),
            source,
        })?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(FileError::Length(path.to_owned()));
    }
    Ok(content)
}

fn digest(contents: &Contents) -> [u8; 32] {
    let mut hash = Sha256::new();
    for content in contents {
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(content);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn contents_come_at_once_and_then_when_they_change() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&a, "1").unwrap();
        fs::write(&b, "2").unwrap();
        let interval = Duration::from_secs(5);
        let mut poll = Poll::new(vec![a.clone(), b.clone()], interval);
        let started = Instant::now();
        assert_eq!(poll.next().await.unwrap(), [b"1", b"2"]);
        assert_eq!(started.elapsed(), Duration::ZERO);

        let quiet = tokio::time::timeout(Duration::from_mins(1), poll.next()).await;
        assert!(quiet.is_err(), "nothing has changed");
        fs::write(&b, "").unwrap();
        fs::write(&a, "12").unwrap(); // The same bytes, divided otherwise.
        assert_eq!(poll.next().await.unwrap(), [&b"12"[..], b""]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_impatient_caller_does_not_put_the_next_look_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "1").unwrap();
        let mut poll = Poll::new(vec![path.clone()], Duration::from_secs(5));
        poll.next().await.unwrap();
        fs::write(&path, "2").unwrap();
        let mut looked = false;
        for _ in 0..3 {
            let looking = tokio::time::timeout(Duration::from_secs(2), poll.next());
            looked |= looking.await.is_ok();
        }
        assert!(looked);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_file_is_named_and_looked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("late");
        let mut poll = Poll::new(vec![path.clone()], Duration::from_secs(5));
        let error = poll.next().await.unwrap_err().to_string();
        assert!(error.contains("late\" cannot be read"), "{error}");
        fs::write(&path, "x").unwrap();
        assert_eq!(poll.next().await.unwrap(), [b"x"]);
        fs::remove_file(&path).unwrap();
        assert!(poll.next().await.is_err());
    }

    #[tokio::test]
    async fn a_file_without_end_is_not_read_to_its_end() {
        let mut poll = Poll::new(vec!["/dev/zero".into()], Duration::from_secs(5));
        assert!(matches!(
            poll.next().await.unwrap_err(),
            FileError::Length(_)
        ));
    }
}
