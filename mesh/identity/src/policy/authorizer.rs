//! The policy in force: read from its file, read again when that changes, and an audit line for each
//! decision that somebody will ask about.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use super::{Decision, Policy, PolicyError};
use crate::{FileError, PolicyConfig, SpiffeId, poll::Poll};

/// Decides by the policy in force. Cheap to clone; the clones are one.
#[derive(Clone, Debug)]
pub struct Authorizer {
    policy: Arc<ArcSwap<Policy>>,
    dry_run: bool,
    audit_allowed: bool,
}

/// Takes over what the policy's file says; nothing changes unless it runs.
#[derive(Debug)]
pub struct PolicyReload {
    authorizer: Authorizer,
    file: PathBuf,
    poll: Poll,
}

/// Why a policy file is not taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyFileError {
    /// It cannot be read.
    #[error("the policy cannot be read: {0}")]
    File(#[from] FileError),
    /// It is no text.
    #[error("policy file \"{}\" is not UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// It says something that is no policy.
    #[error("policy file \"{}\": {reason}", file.display())]
    Content {
        /// As configured.
        file: PathBuf,
        /// What and where.
        reason: PolicyError,
    },
}

/// A call that is not allowed. It has been logged; the caller is told no more than this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the caller may not call \"{method}\"")]
pub struct Denial {
    /// `/package.Service/Method`.
    pub method: String,
}

impl Authorizer {
    /// Reads the policy. A bad file at the start is an error that says why.
    pub async fn start(config: &PolicyConfig) -> Result<(Self, PolicyReload), PolicyFileError> {
        let interval = Duration::from_millis(config.reload_interval_ms);
        let mut reload = PolicyReload {
            authorizer: Self {
                policy: Arc::default(),
                dry_run: config.dry_run,
                audit_allowed: config.audit_allowed,
            },
            file: config.file.clone(),
            poll: Poll::new(vec![config.file.clone()], interval),
        };
        reload.next().await?;
        Ok((reload.authorizer.clone(), reload))
    }

    /// Whether a call goes on. In a dry run it does, and the audit line says what would have been.
    pub fn authorize(
        &self,
        caller: Option<&SpiffeId>,
        address: Option<SocketAddr>,
        method: &str,
    ) -> Result<(), Denial> {
        let dry_run = self.dry_run;
        let id = caller.map_or("", SpiffeId::as_str);
        let peer = address.map(tracing::field::display);
        match self.policy.load().decide(caller, method) {
            Decision::Allowed(rule) => {
                if self.audit_allowed {
                    let rule = &*rule;
                    tracing::info!(target: "mesh::audit", caller = id, peer, method, rule, dry_run, "call allowed");
                }
                Ok(())
            }
            Decision::Denied => {
                let rule = "";
                tracing::warn!(target: "mesh::audit", caller = id, peer, method, rule, dry_run, "call denied");
                if dry_run {
                    return Ok(());
                }
                Err(Denial {
                    method: method.to_owned(),
                })
            }
        }
    }

    /// The rules in force.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }
}

impl PolicyReload {
    /// Runs until `shutdown`. A file that is refused is reported, once, and the old policy stays.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut complaint = None;
        while let Some(next) = shutdown.run_until_cancelled(self.next()).await {
            let refused = next.err().map(|error| error.to_string());
            if let Some(reason) = &refused
                && refused != complaint
            {
                tracing::error!("policy stays as it was; {reason}");
            }
            complaint = refused;
        }
    }

    /// Waits for the next content of the file and takes it over.
    async fn next(&mut self) -> Result<(), PolicyFileError> {
        let contents = self.poll.next().await?;
        let text = String::from_utf8(contents.concat())
            .map_err(|_| PolicyFileError::NotUtf8(self.file.clone()))?;
        let policy = Policy::parse(&text).map_err(|reason| PolicyFileError::Content {
            file: self.file.clone(),
            reason,
        })?;
        tracing::info!(file = %self.file.display(), rules = policy.rules(), "policy is loaded");
        self.authorizer.policy.store(Arc::new(policy));
        Ok(())
    }
}
