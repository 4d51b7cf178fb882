//! Everything of the configuration, started: what `mesh` builds its server and its clients with.

use tokio_util::sync::CancellationToken;

use crate::{
    Acceptor, Authorizer, Config, ConfigError, Connector, Files, Identity, IdentityError, Mode,
    PolicyFileError, PolicyReload, Reload, WorkloadApi,
};

/// What the configuration asks for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Started {
    /// The own identity; `None` where the mode is off.
    pub identity: Option<Identity>,
    /// Takes accepted sockets, by the mode.
    pub acceptor: Acceptor,
    /// Makes encrypted connections; `None` where the mode is off.
    pub connector: Option<Connector>,
    /// Decides about calls; `None` where there is no policy and everybody may call everything.
    pub authorizer: Option<Authorizer>,
    /// What has to run beside all that.
    pub reloads: Reloads,
}

/// Keeps identity and policy up to date; nothing changes unless it runs.
#[derive(Debug, Default)]
pub struct Reloads {
    identity: Option<Reload>,
    policy: Option<PolicyReload>,
}

/// Why it does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A value that cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no policy.
    #[error(transparent)]
    Policy(#[from] PolicyFileError),
}

impl Config {
    /// Checks the configuration, waits for the first identity and reads the policy.
    pub async fn start(&self) -> Result<Started, StartError> {
        self.validate()?;
        let mut reloads = Reloads::default();
        let mut identity = None;
        if self.mode != Mode::Off {
            let (started, reload) = match (&self.files, &self.workload_api) {
                (Some(files), _) => Identity::start(Files::new(files)).await?,
                (None, address) => {
                    let source = address.as_deref().and_then(WorkloadApi::new);
                    Identity::start(source.ok_or(ConfigError::WORKLOAD_API)?).await?
                }
            };
            identity = Some(started);
            reloads.identity = Some(reload);
        }
        let mut authorizer = None;
        if let Some(policy) = &self.policy {
            let (started, reload) = Authorizer::start(policy).await?;
            authorizer = Some(started);
            reloads.policy = Some(reload);
        }
        let acceptor = identity
            .clone()
            .map_or_else(Acceptor::off, |identity| Acceptor::new(self.mode, identity));
        Ok(Started {
            acceptor,
            connector: identity.clone().map(Connector::new),
            identity,
            authorizer,
            reloads,
        })
    }
}

impl Reloads {
    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let identity = async {
            if let Some(reload) = self.identity {
                reload.run(shutdown.clone()).await;
            }
        };
        let policy = async {
            if let Some(reload) = self.policy {
                reload.run(shutdown.clone()).await;
            }
        };
        tokio::join!(identity, policy);
    }
}
