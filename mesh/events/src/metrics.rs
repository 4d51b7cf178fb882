//! What relays and consumers count. One instance per process and registry; relays and consumers are
//! told apart by label.

use prometheus::{
    Error, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// The metrics of every relay and consumer of a process. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) outbox_pending: IntGaugeVec,
    pub(crate) outbox_oldest_age_seconds: GaugeVec,
    pub(crate) outbox_published: IntCounterVec,
    pub(crate) outbox_failed: IntCounterVec,
    pub(crate) consumer_handled: IntCounterVec,
    pub(crate) consumer_seconds: HistogramVec,
    pub(crate) consumer_in_flight: IntGaugeVec,
}

impl Metrics {
    /// Registers them. Fails when the registry has them already: create one and clone it.
    pub fn register(registry: &Registry) -> Result<Metrics, Error> {
        let metrics = Metrics::unregistered()?;
        registry.register(Box::new(metrics.outbox_pending.clone()))?;
        registry.register(Box::new(metrics.outbox_oldest_age_seconds.clone()))?;
        registry.register(Box::new(metrics.outbox_published.clone()))?;
        registry.register(Box::new(metrics.outbox_failed.clone()))?;
        registry.register(Box::new(metrics.consumer_handled.clone()))?;
        registry.register(Box::new(metrics.consumer_seconds.clone()))?;
        registry.register(Box::new(metrics.consumer_in_flight.clone()))?;
        Ok(metrics)
    }

    /// Counts without showing: for tests that look at nothing.
    pub fn unregistered() -> Result<Metrics, Error> {
        let opts = |name: &str, help: &str| Opts::new(name, help);
        Ok(Metrics {
            outbox_pending: IntGaugeVec::new(
                opts(
                    "mesh_outbox_pending",
                    "Events committed and not yet confirmed by the bus",
                ),
                &["outbox"],
            )?,
            outbox_oldest_age_seconds: GaugeVec::new(
                opts(
                    "mesh_outbox_oldest_age_seconds",
                    "Age of the oldest unconfirmed event",
                ),
                &["outbox"],
            )?,
            outbox_published: IntCounterVec::new(
                opts("mesh_outbox_published_total", "Events confirmed by the bus"),
                &["outbox"],
            )?,
            outbox_failed: IntCounterVec::new(
                opts(
                    "mesh_outbox_failed_total",
                    "Attempts to publish that were not confirmed",
                ),
                &["outbox", "reason"],
            )?,
            consumer_handled: IntCounterVec::new(
                opts(
                    "mesh_consumer_handled_total",
                    "Deliveries by what became of them",
                ),
                &["consumer", "outcome"],
            )?,
            consumer_seconds: HistogramVec::new(
                HistogramOpts::new("mesh_consumer_handle_seconds", "Time spent in the handler"),
                &["consumer"],
            )?,
            consumer_in_flight: IntGaugeVec::new(
                opts("mesh_consumer_in_flight", "Deliveries being handled now"),
                &["consumer"],
            )?,
        })
    }
}
