//! Who this process is, and whom it lets in: what `mesh.identity` asks for, started.
//!
//! Deliberately without certificates, handshakes and policies: `mesh_identity` has those.

use mesh_identity::{Acceptor, Authorizer, Config, Connector, Identity, Mode, Started};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{Error, context};

/// What servers and clients of one process need of it.
#[derive(Debug)]
pub(crate) struct Identities {
    pub(crate) mode: Mode,
    /// `None`: the mode is off.
    pub(crate) own: Option<Identity>,
    pub(crate) acceptor: Acceptor,
    /// `None`: the mode is off.
    pub(crate) connector: Option<Connector>,
    /// `None`: everybody may call everything.
    pub(crate) authorizer: Option<Authorizer>,
    /// Follows files or the Workload API for as long as somebody uses what comes from there.
    _reloading: Option<AbortOnDropHandle<()>>,
}

impl Identities {
    /// Of a process that has none.
    pub(crate) fn off() -> Self {
        Self {
            mode: Mode::Off,
            own: None,
            acceptor: Acceptor::off(),
            connector: None,
            authorizer: None,
            _reloading: None,
        }
    }

    /// Waits for the first identity.
    pub(crate) async fn start(config: &Config) -> Result<Self, Error> {
        if config.mode == Mode::Off {
            return Ok(Self::off());
        }
        let Started {
            identity,
            acceptor,
            connector,
            authorizer,
            reloads,
            ..
        } = config.start().await?;
        Ok(Self {
            mode: config.mode,
            own: identity,
            acceptor,
            connector,
            authorizer,
            _reloading: Some(context::spawn_apart(reloads.run(CancellationToken::new()))),
        })
    }
}
