//! The configuration file, read again while the program runs.
//!
//! Its content is looked at once a second: that catches a write in place, a rename and the symbolic links
//! of a mounted ConfigMap alike, and a file counts only when two looks have found the same. It is read as
//! at the start, with environment and flags above it; a file that is wrong anywhere is refused as a whole,
//! with the keys and the reasons in the log, and the configuration stays as it was.
//!
//! Deliberately without a signal: whoever can send one can write the file.

use std::{collections::BTreeMap, fmt::Display, io, path::Path, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Origin, load};

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the file held: its content, or why it cannot be read.
type Reading = Result<Vec<u8>, String>;

/// Follows the file of `--config`; see [`super::Loaded::following`].
#[derive(Clone, Debug)]
pub struct Following {
    from: Origin,
    /// The configuration in effect, as TOML.
    toml: String,
    last: Option<Reading>,
    settled: Option<Reading>,
}

impl Following {
    pub(super) fn new(from: Origin, toml: String) -> Self {
        Self {
            from,
            toml,
            last: None,
            settled: None,
        }
    }

    /// Hands each new configuration to `apply` until `shutdown`. It takes over what is below `mesh`, as a
    /// whole, and gives back the keys that count only after a restart; or it refuses the configuration.
    /// Ends at once where the program runs without a file.
    pub async fn run<C, E>(
        mut self,
        shutdown: CancellationToken,
        mut apply: impl FnMut(C) -> Result<Vec<String>, E>,
    ) where
        C: Serialize + DeserializeOwned + Default,
        E: Display,
    {
        let Some(path) = self.from.args.config.clone() else {
            return;
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(INTERVAL) => {}
            }
            let reading = read(&path).await.map_err(|error| error.to_string());
            self.look(reading, &mut apply);
        }
    }

    /// Takes notice of what the file holds now.
    fn look<C, E>(&mut self, reading: Reading, apply: &mut impl FnMut(C) -> Result<Vec<String>, E>)
    where
        C: Serialize + DeserializeOwned + Default,
        E: Display,
    {
        let is_whole = self.last.as_ref() == Some(&reading);
        if is_whole && self.settled.as_ref() != Some(&reading) {
            self.settled = Some(reading);
            self.take(apply);
        } else {
            self.last = Some(reading);
        }
    }

    fn take<C, E>(&mut self, apply: &mut impl FnMut(C) -> Result<Vec<String>, E>)
    where
        C: Serialize + DeserializeOwned + Default,
        E: Display,
    {
        let Origin {
            args,
            env_prefix,
            overrides,
        } = &self.from;
        let loaded = match load::<C>(args, env_prefix, overrides.clone()) {
            Ok(loaded) => loaded,
            Err(error) => return refused(&error),
        };
        let differing = differing(&self.toml, &loaded.toml);
        if differing.is_empty() {
            return;
        }
        match apply(loaded.config) {
            Err(error) => refused(&error),
            Ok(mut after_restart) => {
                let elsewhere = differing.iter().filter(|key| !key.starts_with("mesh."));
                after_restart.extend(elsewhere.cloned());
                let is_late = |key: &&String| after_restart.contains(*key);
                let (late, changed): (Vec<_>, Vec<_>) = differing.iter().partition(is_late);
                tracing::info!(?changed, "configuration reloaded");
                if !late.is_empty() {
                    tracing::warn!(keys = ?late, "these keys have changed and need a restart");
                }
                self.toml = loaded.toml;
            }
        }
    }
}

fn refused(error: &impl Display) {
    tracing::error!(%error, "configuration refused as a whole; the old one stays in effect");
}

async fn read(path: &Path) -> io::Result<Vec<u8>> {
    if tokio::fs::metadata(path).await?.len() > FILE_BYTES_MAX {
        return Err(io::Error::other("is longer than a configuration can be"));
    }
    tokio::fs::read(path).await
}

/// The whole keys whose values are not the same.
fn differing(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (flat(old), flat(new));
    let added = new.keys().filter(|key| !old.contains_key(*key));
    let differs = |key: &&String| old.get(*key) != new.get(*key);
    old.keys().chain(added).filter(differs).cloned().collect()
}

fn flat(toml: &str) -> BTreeMap<String, toml::Value> {
    fn collect(key: String, value: toml::Value, flat: &mut BTreeMap<String, toml::Value>) {
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    let key = match &*key {
                        "" => name,
                        key => format!("{key}.{name}"),
                    };
                    collect(key, value, flat);
                }
            }
            value => drop(flat.insert(key, value)),
        }
    }
    let mut values = BTreeMap::new();
    let table: toml::Table = toml::from_str(toml).expect("what was written as TOML is TOML");
    collect(String::new(), toml::Value::Table(table), &mut values);
    values
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        sync::{Arc, Mutex},
    };

    use serde::Deserialize;

    use super::*;
    use crate::config::{CommonArgs, Overrides};

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Program {
        port: u16,
        mesh: Mesh,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Mesh {
        deadline_ms: u64,
        windows: u64,
    }

    /// What was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes each file, lets it be looked at twice, and tells what was taken and what was logged.
    fn follow(files: &[&str]) -> (Vec<Program>, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.toml");
        let args = CommonArgs {
            config: Some(path.clone()),
            ..CommonArgs::default()
        };
        fs::write(&path, files[0]).unwrap();
        let loaded = load::<Program>(&args, "FOLLOWED", Overrides::none()).unwrap();
        let (log, mut taken) = (Log::default(), Vec::new());
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut following = loaded.following();
            let mut apply = |program: Program| {
                if program.mesh.deadline_ms == 13 {
                    return Err("mesh.deadline_ms must not be 13");
                }
                taken.push(program);
                Ok(vec!["mesh.windows".to_owned()])
            };
            for file in files {
                fs::write(&path, file).unwrap();
                let reading = || Ok(fs::read(&path).unwrap());
                for _ in 0..3 {
                    following.look(reading(), &mut apply);
                }
            }
        });
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (taken, log)
    }

    #[test]
    fn a_file_that_has_changed_is_taken_once() {
        let (taken, log) = follow(&["port = 1", "port = 1\n[mesh]\ndeadline_ms = 5"]);
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].port, taken[0].mesh.deadline_ms), (1, 5));
        assert!(log.contains("configuration reloaded"), "{log}");
        assert!(log.contains("mesh.deadline_ms"), "{log}");
        assert!(!log.contains("need a restart"), "{log}");
    }

    #[test]
    fn a_comment_is_no_change() {
        let (taken, log) = follow(&["port = 1", "port = 1 # the usual one"]);
        assert_eq!((taken.len(), &*log), (0, ""));
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let (taken, log) = follow(&["", "port = 2\n[mesh]\ndeadline_ms = 5\nwindows = 6"]);
        assert_eq!(taken.len(), 1);
        let late = log.lines().find(|line| line.contains("need a restart"));
        let late = late.unwrap();
        assert!(
            late.contains("\"port\"") && late.contains("\"mesh.windows\""),
            "{late}"
        );
        assert!(!late.contains("deadline_ms"), "{late}");
    }

    #[test]
    fn a_bad_file_changes_nothing_and_is_logged_with_key_and_reason() {
        let bad = "port = 2\n[mesh]\ndeadline_ms = \"soon\"";
        let (taken, log) = follow(&["port = 1", bad]);
        assert_eq!(taken, []);
        assert_eq!(log.lines().count(), 1, "said once: {log}");
        assert!(log.contains("refused as a whole"), "{log}");
        assert!(log.contains("mesh.deadline_ms"), "{log}");
    }

    #[test]
    fn an_unknown_key_and_a_refusal_of_the_mesh_are_logged_and_the_next_good_file_is_taken() {
        let unknown = "prot = 2";
        let refused = "[mesh]\ndeadline_ms = 13";
        let (taken, log) = follow(&["", unknown, refused, "[mesh]\ndeadline_ms = 14"]);
        assert!(log.contains("key \"prot\": unknown field"), "{log}");
        assert!(log.contains("mesh.deadline_ms must not be 13"), "{log}");
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].mesh.deadline_ms, 14);
    }

    #[test]
    fn half_a_file_is_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.toml");
        fs::write(&path, "port = 1").unwrap();
        let args = CommonArgs {
            config: Some(path.clone()),
            ..CommonArgs::default()
        };
        let loaded = load::<Program>(&args, "FOLLOWED", Overrides::none()).unwrap();
        let (mut following, mut count) = (loaded.following(), 0);
        let mut apply = |_: Program| {
            count += 1;
            Ok::<_, String>(Vec::new())
        };
        for written in ["po", "port = ", "port = 2"] {
            fs::write(&path, written).unwrap();
            following.look(Ok(written.as_bytes().to_vec()), &mut apply);
        }
        following.look(Ok(b"port = 2".to_vec()), &mut apply);
        assert_eq!(count, 1);
    }
}
