//! The configuration of identity: modes, sources, limits, with their units and defaults.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{TrustDomain, WorkloadApi};

/// What is asked of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Plaintext only; peers have no identity.
    #[default]
    Off,
    /// Servers take plaintext and TLS on one port; clients use TLS where the destination says so. The
    /// step on the way from `off` to `strict`.
    Permissive,
    /// TLS with an identity on both sides, always.
    Strict,
}

impl Mode {
    /// Whether a client uses TLS, for a destination that says it speaks it or does not.
    pub fn encrypts(self, destination_tls: bool) -> bool {
        match self {
            Self::Off => false,
            Self::Permissive => destination_tls,
            Self::Strict => true,
        }
    }
}

/// Configuration of identity and authorisation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is asked of a peer: `off`, `permissive` or `strict`. Default: `off`.
    pub mode: Mode,
    /// The identity in PEM files. Default: none. Wanted with `permissive` and `strict`, unless
    /// `workload_api` is given.
    pub files: Option<FilesConfig>,
    /// The socket of the SPIFFE Workload API, such as `unix:///run/spire/agent.sock`. Default: none.
    pub workload_api: Option<String>,
    /// Who may call what. Default: everybody everything.
    pub policy: Option<PolicyConfig>,
}

/// Where the identity's files are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilesConfig {
    /// The own certificate, then its intermediates, as PEM.
    pub certificate: PathBuf,
    /// The private key of the certificate, as PEM.
    pub key: PathBuf,
    /// The authorities of the own trust domain, as PEM.
    pub bundle: PathBuf,
    /// Revocation lists, as PEM; several in one file are fine. Default: none.
    #[serde(default)]
    pub crls: Vec<PathBuf>,
    /// Trust domains whose workloads are let in too: name to the file of its authorities, as PEM.
    /// Default: none.
    #[serde(default)]
    pub federated: BTreeMap<TrustDomain, PathBuf>,
    /// How often the files are looked at for changes, in milliseconds. Default: 1000.
    #[serde(default = "second")]
    pub reload_interval_ms: u64,
}

/// Without paths, which have to be given.
impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            bundle: PathBuf::new(),
            crls: Vec::new(),
            federated: BTreeMap::new(),
            reload_interval_ms: 1_000,
        }
    }
}

/// Where the policy is, and how it is applied.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// The rules, as TOML.
    pub file: PathBuf,
    /// Whether calls that no rule allows are let through all the same, and only told of. Default: false.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether allowed calls leave an audit line too. Default: false.
    #[serde(default)]
    pub audit_allowed: bool,
    /// How often the file is looked at for changes, in milliseconds. Default: 1000.
    #[serde(default = "second")]
    pub reload_interval_ms: u64,
}

/// Without a file, which has to be given.
impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            dry_run: false,
            audit_allowed: false,
            reload_interval_ms: 1_000,
        }
    }
}

fn second() -> u64 {
    1_000
}

/// A configured value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity.{key} {reason}")]
pub struct ConfigError {
    /// The key below `identity`.
    pub key: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl ConfigError {
    pub(crate) const WORKLOAD_API: Self = Self {
        key: "workload_api",
        reason: "must be a socket such as unix:///run/spire/agent.sock",
    };
}

impl Config {
    /// Refuses what cannot work, by the key's name. Reads no file.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let refuse = |key, reason| Err(ConfigError { key, reason });
        match (&self.files, &self.workload_api) {
            (Some(_), Some(_)) => return refuse("workload_api", "excludes identity.files"),
            (None, None) if self.mode != Mode::Off => {
                return refuse("mode", "needs identity.files or identity.workload_api");
            }
            (Some(files), None) if files.reload_interval_ms == 0 => {
                return refuse("files.reload_interval_ms", "must not be 0");
            }
            (None, Some(address)) if WorkloadApi::new(address).is_none() => {
                return Err(ConfigError::WORKLOAD_API);
            }
            _ => {}
        }
        match &self.policy {
            Some(policy) if policy.reload_interval_ms == 0 => {
                refuse("policy.reload_interval_ms", "must not be 0")
            }
            Some(_) if self.mode == Mode::Off => refuse(
                "policy.file",
                "needs a mode other than off: there are no identities",
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let config: Config = toml::from_str(text).unwrap();
        config.validate().unwrap_err().to_string()
    }

    const FILES: &str = "[files]\ncertificate = \"c\"\nkey = \"k\"\nbundle = \"b\"\n";

    #[test]
    fn the_default_is_off_and_valid() {
        let config: Config = toml::from_str("").unwrap();
        config.validate().unwrap();
        assert_eq!(config.mode, Mode::Off);
        let config: Config = toml::from_str(&format!("mode = \"strict\"\n{FILES}")).unwrap();
        config.validate().unwrap();
        assert_eq!(config.files.unwrap().reload_interval_ms, 1_000);
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        for (text, key) in [
            ("mode = \"strict\"".to_owned(), "identity.mode needs"),
            (
                format!("workload_api = \"unix:///s\"\n{FILES}"),
                "identity.workload_api excludes",
            ),
            (
                "workload_api = \"/s\"".to_owned(),
                "identity.workload_api must be",
            ),
            (
                format!("{FILES}reload_interval_ms = 0"),
                "identity.files.reload_interval_ms",
            ),
            (
                "[policy]\nfile = \"p\"".to_owned(),
                "identity.policy.file needs",
            ),
            (
                format!(
                    "mode = \"permissive\"\n{FILES}[policy]\nfile = \"p\"\nreload_interval_ms = 0"
                ),
                "identity.policy.reload_interval_ms",
            ),
        ] {
            let error = refused(&text);
            assert!(error.starts_with(key), "{error}");
        }
        let unknown = toml::from_str::<Config>("[files.federated]\n\"A.example\" = \"b\"");
        assert!(unknown.is_err(), "a trust domain in capitals");
    }

    #[test]
    fn a_client_encrypts_by_mode_and_destination() {
        assert!(!Mode::Off.encrypts(true));
        assert!(Mode::Permissive.encrypts(true) && !Mode::Permissive.encrypts(false));
        assert!(Mode::Strict.encrypts(false));
    }
}
