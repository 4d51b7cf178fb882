//! Identity: mutual TLS by SPIFFE X.509 certificates that rotate while connections live, peers that are
//! watched as long as they are connected, and authorisation by caller and method.
//!
//! A process has one [`Identity`], fed by a [`Source`]. A server takes its accepted sockets through an
//! [`Acceptor`], a client its connected ones through a [`Connector`]; both give an [`Accepted`] stream,
//! the peer's [`PeerIdentity`] and a [`PeerGuard`] to await while the connection lives.
//!
//! Deliberately without HTTP, gRPC and sockets of its own: `mesh` has those. Nothing here spawns; what
//! has to run is a future that the caller runs ([`Reload::run`]).

mod check;
mod config;
#[cfg(test)]
mod fuzz;
mod guard;
mod handshake;
mod identity;
mod material;
mod pattern;
mod policy;
mod poll;
mod refusal;
mod source;
mod spiffe;
mod start;
mod status;
mod stream;
mod svid;
mod tls;
mod trust;

pub use check::CheckError;
pub use config::{Config, ConfigError, FilesConfig, Mode, PolicyConfig};
pub use guard::{GuardEvent, PeerGuard};
pub use handshake::{Accepted, Acceptor, Connector, HandshakeError, HandshakeFailure};
pub use identity::{Identity, IdentityError, Reload};
pub use material::{Material, MaterialError};
pub use pattern::IdPattern;
pub use policy::{
    Authorizer, Decision, Denial, Policy, PolicyError, PolicyFileError, PolicyReload,
};
pub use poll::{FILE_BYTES_MAX, FileError};
pub use refusal::{Refusal, alert_of};
pub use source::{Files, Source, SourceError, WorkloadApi};
pub use spiffe::{ID_BYTES_MAX, SpiffeId, SpiffeIdError, TRUST_DOMAIN_BYTES_MAX, TrustDomain};
pub use start::{Reloads, StartError, Started};
pub use status::{AuthorityStatus, Status};
pub use stream::MeshStream;
pub use svid::SvidError;
pub use tls::Expected;
pub use trust::{CHAIN_CERTIFICATES_MAX, PeerIdentity};
