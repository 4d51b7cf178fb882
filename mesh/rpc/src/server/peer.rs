//! Who is at the other end of the connection that a call came on.

use std::{net::SocketAddr, sync::Arc};

use mesh_identity::SpiffeId;

/// The other end of a connection: a request extension.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: Option<SocketAddr>,
    /// The address at this end, by which the errors of a server say where they were made.
    pub(crate) here: Option<Arc<str>>,
    /// Proven by its certificate; `None`: it spoke plaintext.
    pub(crate) id: Option<SpiffeId>,
    /// Whether it is of another trust domain than this process: it then speaks for itself only.
    pub(crate) is_foreign: bool,
}
