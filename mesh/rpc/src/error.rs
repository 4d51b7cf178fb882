//! Why a mesh cannot be built or a server cannot serve. What goes wrong with a single call is a
//! `tonic::Status` (see `status.rs`), never one of these.

use crate::ContractError;

/// A configured value that cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mesh.{key} {reason}")]
pub struct ConfigError {
    /// The key below `mesh`.
    pub key: String,
    /// What is wrong with it.
    pub reason: String,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            reason: reason.into(),
        }
    }
}

/// Why a mesh cannot be built or a server cannot serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A configured value that cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A destination that this process needs has no address.
    #[error("mesh.destinations.{0} is not configured and this service calls it")]
    Unconfigured(String),
    /// The descriptor set cannot be read.
    #[error("the contract cannot be used")]
    Contract(#[from] ContractError),
    /// A service is served that the contract does not know: its deadlines would be lost in silence.
    #[error("service \"{0}\" is served but not part of the contract")]
    NotInContract(&'static str),
    /// There is no identity, or no policy, to start with.
    #[error("the identity of this process cannot be had")]
    Identity(#[from] mesh_identity::StartError),
    /// The registry holds the metrics of a mesh already.
    #[error(
        "the mesh's metrics cannot be registered: share one Mesh, or give each its own registry"
    )]
    Metrics(#[from] prometheus::Error),
    /// The descriptors cannot be served by reflection.
    #[error("the contract cannot be served by reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}
