//! API keys: made here, shown once, kept as hashes in the file that the edge reads.
//!
//! A key is 256 random bits; its SHA-256 says nothing about it. Taking a key back means taking its table
//! out of the file: the edge notices.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// What a key begins with, so that people and scanners of leaked secrets recognise it.
const PREFIX: &str = "mk_";
const KEY_BYTES: usize = 32;
/// The name of callers without a key; nobody may have it.
const ANONYMOUS: &str = "anonymous";
/// The longest name of a principal or scope, in characters.
const NAME_CHARS_MAX: usize = 100;

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Makes a key, prints it once, and appends its hash to the file.
    New {
        /// Who the key speaks for. The name scopes what a client owns: keep it when a key is replaced.
        #[arg(long)]
        principal: String,
        /// What the key may do beyond public methods, such as `operator`; may be given several times.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// The file of hashed keys; made if it is not there.
        #[arg(long)]
        file: PathBuf,
    },
}

/// The file, as the edge reads it too.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<KeyTable>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyTable {
    principal: String,
    #[serde(default)]
    scopes: Vec<String>,
    sha256: String,
    #[serde(default)]
    created: String,
}

/// Carries out a command; `out` gets what people are to read.
pub(crate) fn run(command: Command, out: &mut impl Write) -> anyhow::Result<()> {
    let Command::New {
        principal,
        scopes,
        file,
    } = command;
    check_name("principal", &principal)?;
    ensure!(
        principal != ANONYMOUS,
        "--principal: `{ANONYMOUS}` is the name of callers without a key"
    );
    for scope in &scopes {
        check_name("scope", scope)?;
    }
    let key = format!("{PREFIX}{}", hex::encode(rand::random::<[u8; KEY_BYTES]>()));
    let table = KeyTable {
        principal,
        scopes,
        sha256: hex::encode(Sha256::digest(key.as_bytes())),
        created: OffsetDateTime::now_utc()
            .replace_nanosecond(0)?
            .format(&Rfc3339)?,
    };
    append(&file, table)?;
    // Only a key whose hash is on disk is worth showing.
    writeln!(out, "{key}")?;
    Ok(())
}

/// Names travel in headers and logs.
fn check_name(flag: &str, name: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_alphanumeric() || "-_.:/@".contains(c);
    let fits = (1..=NAME_CHARS_MAX).contains(&name.chars().count());
    ensure!(
        fits && name.chars().all(plain),
        "--{flag}: expected 1 to {NAME_CHARS_MAX} letters, digits or - _ . : / @, got {name:?}"
    );
    Ok(())
}

/// Appends one table. A file that the edge would refuse is left alone.
fn append(path: &Path, table: KeyTable) -> anyhow::Result<()> {
    let shown = path.display();
    match fs::read_to_string(path) {
        Ok(text) => {
            toml::from_str::<KeyFile>(&text)
                .with_context(|| format!("key file \"{shown}\" is not a list of keys"))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(format!("key file \"{shown}\" cannot be read")),
    }
    let text = format!("\n{}", toml::to_string(&KeyFile { key: vec![table] })?);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        // One write: the edge, which may read at any moment, sees all of the table or nothing.
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("key file \"{shown}\" cannot be written"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn new(principal: &str, scopes: &[&str], file: &Path) -> anyhow::Result<String> {
        let mut out = Vec::new();
        let command = Command::New {
            principal: principal.to_owned(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            file: file.to_owned(),
        };
        run(command, &mut out)?;
        Ok(String::from_utf8(out)?.trim_end().to_owned())
    }

    #[test]
    fn a_key_is_shown_once_and_kept_as_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let first = new("shop", &[], &path).unwrap();
        let second = new("boss", &["operator", "audit"], &path).unwrap();
        assert!(first.starts_with(PREFIX) && first.len() == PREFIX.len() + 2 * KEY_BYTES);
        assert_ne!(first, second);

        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&first) && !text.contains(&second));
        let file: KeyFile = toml::from_str(&text).unwrap();
        let found: Vec<_> = file
            .key
            .iter()
            .map(|k| (k.principal.as_str(), k.scopes.join(" ")))
            .collect();
        assert_eq!(
            found,
            [
                ("shop", String::new()),
                ("boss", "operator audit".to_owned())
            ]
        );
        assert_eq!(
            file.key[1].sha256,
            hex::encode(Sha256::digest(second.as_bytes()))
        );
        assert_eq!(file.key[0].created.len(), "2026-01-31T09:30:00Z".len());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn what_people_wrote_into_the_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let hash = "0".repeat(64);
        let before = format!("# the shop's\n[[key]]\nprincipal = \"a\"\nsha256 = \"{hash}\"");
        fs::write(&path, &before).unwrap();
        new("b", &[], &path).unwrap();
        let after = fs::read_to_string(&path).unwrap();
        assert!(after.starts_with(&before), "{after}");
        assert_eq!(toml::from_str::<KeyFile>(&after).unwrap().key.len(), 2);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("other.toml");
        fs::write(&path, "listen = 1\n").unwrap();
        let error = new("a", &[], &path).unwrap_err().to_string();
        assert!(error.ends_with("is not a list of keys"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "listen = 1\n");
        let error = new("a", &[], folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("cannot be read"), "{error}");
    }

    #[test]
    fn names_are_plain() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        let long = "x".repeat(101);
        for name in ["", "a b", "a,b", "a\n", "\"", long.as_str(), ANONYMOUS] {
            assert!(new(name, &[], &path).is_err(), "{name:?}");
        }
        for scope in ["", "a b", "a,b"] {
            assert!(new("a", &[scope], &path).is_err(), "{scope:?}");
        }
        assert!(!path.exists());
        assert!(new("상점-1@shop.example", &["operator"], &path).is_ok());
    }
}
