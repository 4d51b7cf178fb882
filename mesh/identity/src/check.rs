//! What a configuration names, judged without starting anything: for whoever wants to know beforehand.

use crate::{
    Authorizer, Config, ConfigError, FileError, Files, FilesConfig, Identity, IdentityError, Mode,
    PolicyFileError, source::SourceError,
};
use std::path::Path;

/// A configured value that cannot work, or that names something that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("identity.{key} {reason}")]
pub struct CheckError {
    /// The key below `identity`.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl From<ConfigError> for CheckError {
    fn from(error: ConfigError) -> Self {
        refused(error.key, error.reason)
    }
}

impl Config {
    /// Checks the configuration, then reads the identity's files and the policy and judges them as a start would. The
    /// SPIFFE Workload API is not asked: whoever checks may stand where no agent is.
    pub async fn check(&self) -> Result<(), CheckError> {
        self.validate()?;
        if self.mode == Mode::Off {
            return Ok(());
        }
        if let Some(files) = &self.files {
            let started = Identity::start(Files::new(files)).await;
            started.map_err(|error| of_files(files, &error))?;
        }
        if let Some(policy) = &self.policy {
            let started = Authorizer::start(policy).await;
            started.map_err(|error| refused("policy.file", of_policy(&error)))?;
        }
        Ok(())
    }
}

fn refused(key: impl Into<String>, reason: impl Into<String>) -> CheckError {
    CheckError {
        key: key.into(),
        reason: reason.into(),
    }
}

/// Which of the files is at fault, and why. What only shows when they are taken together is said of the certificate.
fn of_files(files: &FilesConfig, error: &IdentityError) -> CheckError {
    let certificate = "files.certificate".to_owned();
    match error {
        IdentityError::Source { source, .. } => match source {
            SourceError::Content { path, reason } => refused(key(files, path), reason),
            SourceError::File(error) => {
                let path = of_file(error);
                let key = path.map_or(certificate, |path| key(files, path));
                refused(key, unreadable(error))
            }
            SourceError::WorkloadApi { .. } => refused(certificate, source.to_string()),
        },
        IdentityError::Material { source, .. } => {
            refused(certificate, format!("is refused: {source}"))
        }
    }
}

fn of_policy(error: &PolicyFileError) -> String {
    match error {
        PolicyFileError::File(error) => unreadable(error),
        PolicyFileError::NotUtf8(_) => "is not UTF-8".to_owned(),
        PolicyFileError::Content { reason, .. } => format!("is no policy: {reason}"),
    }
}

fn of_file(error: &FileError) -> Option<&Path> {
    match error {
        FileError::Read { path, .. } | FileError::Length(path) => Some(path),
        FileError::Changing => None,
    }
}

fn unreadable(error: &FileError) -> String {
    match error {
        FileError::Read { source, .. } => format!("cannot be read: {source}"),
        FileError::Length(_) => format!("is longer than {} bytes", crate::FILE_BYTES_MAX),
        FileError::Changing => error.to_string(),
    }
}

/// The key that names a file.
fn key(files: &FilesConfig, path: &Path) -> String {
    if path == files.key {
        return "files.key".to_owned();
    }
    if path == files.bundle {
        return "files.bundle".to_owned();
    }
    if files.crls.iter().any(|crl| crl == path) {
        return "files.crls".to_owned();
    }
    let federated = files.federated.iter().find(|(_, bundle)| *bundle == path);
    federated.map_or_else(
        || "files.certificate".to_owned(),
        |(trust_domain, _)| format!("files.federated.{trust_domain}"),
    )
}
