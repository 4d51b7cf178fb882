//! What is counted. One instance per process and registry.

use prometheus::{Error, IntCounterVec, IntGaugeVec, Opts, Registry};

/// The metrics of every bus of a process. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) connected: IntGaugeVec,
    pub(crate) blocked: IntGaugeVec,
    pub(crate) malformed: IntCounterVec,
}

impl Metrics {
    /// Registers them. Fails when the registry has them already: create one and clone it.
    pub fn register(registry: &Registry) -> Result<Metrics, Error> {
        let metrics = Metrics::unregistered()?;
        registry.register(Box::new(metrics.connected.clone()))?;
        registry.register(Box::new(metrics.blocked.clone()))?;
        registry.register(Box::new(metrics.malformed.clone()))?;
        Ok(metrics)
    }

    /// Counts without showing: for tools and tests.
    pub fn unregistered() -> Result<Metrics, Error> {
        let gauge = |name, help, label| IntGaugeVec::new(Opts::new(name, help), &[label]);
        Ok(Metrics {
            connected: gauge(
                "mesh_rabbitmq_connected",
                "Whether the connection stands (1) or not (0)",
                "connection",
            )?,
            blocked: gauge(
                "mesh_rabbitmq_blocked",
                "Whether the broker takes no messages for want of memory or disk (1)",
                "connection",
            )?,
            malformed: IntCounterVec::new(
                Opts::new(
                    "mesh_rabbitmq_malformed_total",
                    "Messages that are no events, moved to the dead letters",
                ),
                &["consumer"],
            )?,
        })
    }
}
