//! Where an identity comes from: files, or the SPIFFE Workload API.

mod files;
mod workload;

use async_trait::async_trait;
pub use files::Files;
pub use workload::WorkloadApi;

use crate::{FileError, Material};

/// Delivers identities as they are issued.
#[async_trait]
pub trait Source: Send {
    /// The identity at once when asked first, and then the next one that differs. After an error it is
    /// asked again: how long it waits before it tries is its own affair.
    ///
    /// Safe to cancel: nothing that was to be delivered is lost.
    async fn next(&mut self) -> Result<Material, SourceError>;

    /// For logs: what delivers, and from where.
    fn name(&self) -> String;
}

/// Why a source does not deliver.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Files that cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file that holds something else than it should.
    #[error("file \"{}\" {reason}", path.display())]
    Content {
        /// As configured.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An agent that gives no identity.
    #[error("the agent at \"{}\" {reason}", socket.display())]
    WorkloadApi {
        /// Its socket.
        socket: std::path::PathBuf,
        /// Why not.
        reason: String,
    },
}
