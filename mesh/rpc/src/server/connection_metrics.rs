//! The metrics of a server's connections: how many are open, what became of the others, and how often there was no
//! room for one more.
//!
//! Labels are reasons, which are words of the code: peers never are.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionMetrics {
    open: IntGauge,
    /// Sockets taken from the listener.
    pub(crate) accepted: IntCounter,
    /// How often `connections_max` were open, and the next one had to wait in the kernel's backlog.
    pub(crate) full: IntCounter,
    closed: IntCounterVec,
    handshakes_failed: IntCounterVec,
}

impl ConnectionMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            open: IntGauge::new(
                "mesh_server_connections",
                "Connections that calls can come on.",
            )?,
            accepted: IntCounter::new(
                "mesh_server_connections_accepted_total",
                "Sockets taken from the listener.",
            )?,
            full: IntCounter::new(
                "mesh_server_connections_full_total",
                "How often connections_max were reached, and the next one had to wait in the kernel.",
            )?,
            closed: IntCounterVec::new(
                Opts::new(
                    "mesh_server_connections_closed_total",
                    "Connections that have ended: by peer, error, or by the server for drain, age, idle, silent, \
                     expiry, distrust.",
                ),
                &["reason"],
            )?,
            handshakes_failed: IntCounterVec::new(
                Opts::new(
                    "mesh_server_handshakes_failed_total",
                    "Sockets that never became a connection, by reason.",
                ),
                &["reason"],
            )?,
        };
        registry.register(Box::new(metrics.open.clone()))?;
        registry.register(Box::new(metrics.accepted.clone()))?;
        registry.register(Box::new(metrics.full.clone()))?;
        registry.register(Box::new(metrics.closed.clone()))?;
        registry.register(Box::new(metrics.handshakes_failed.clone()))?;
        Ok(metrics)
    }

    /// No connection came of a socket.
    pub(crate) fn handshake_failed(&self, reason: &str) {
        self.handshakes_failed.with_label_values(&[reason]).inc();
    }

    /// One came of it.
    pub(crate) fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection {
            metrics: self.clone(),
            reason: "error",
        }
    }
}

/// Counts a connection while it lives, and when it has ended, why.
pub(crate) struct OpenConnection {
    metrics: ConnectionMetrics,
    /// Why it ends, as far as is known.
    pub(crate) reason: &'static str,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.metrics.open.dec();
        self.metrics.closed.with_label_values(&[self.reason]).inc();
    }
}
