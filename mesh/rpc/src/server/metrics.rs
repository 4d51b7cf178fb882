//! The metrics of the server's layers that refuse, beside those of its calls (`crate::metrics`).
//!
//! Labels are classes, reasons and the names of configured rules: callers never are.

use prometheus::{IntCounterVec, IntGauge, Opts, Registry};

use super::connection_metrics::ConnectionMetrics;
use crate::contract::Criticality;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ServerMetrics {
    pub(crate) connections: ConnectionMetrics,
    /// The overload control's limit.
    pub(crate) limit: IntGauge,
    /// Calls that wait for a place below it.
    pub(crate) waiting: IntGauge,
    shed: IntCounterVec,
    rate_limited: IntCounterVec,
    faults: IntCounterVec,
}

impl ServerMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            connections: ConnectionMetrics::register(registry)?,
            limit: IntGauge::new(
                "mesh_server_concurrency_limit",
                "How many calls the overload control lets in at a time.",
            )?,
            waiting: IntGauge::new(
                "mesh_server_waiting",
                "Calls that wait for the overload control.",
            )?,
            shed: IntCounterVec::new(
                Opts::new(
                    "mesh_server_shed_total",
                    "Calls that the overload control refused: full, displaced or waited.",
                ),
                &["criticality", "reason"],
            )?,
            rate_limited: IntCounterVec::new(
                Opts::new(
                    "mesh_server_rate_limited_total",
                    "Calls that a rate limit refused, by rule.",
                ),
                &["rule"],
            )?,
            faults: IntCounterVec::new(
                Opts::new(
                    "mesh_server_faults_total",
                    "Calls that were delayed or aborted on purpose, by rule.",
                ),
                &["rule"],
            )?,
        };
        registry.register(Box::new(metrics.limit.clone()))?;
        registry.register(Box::new(metrics.waiting.clone()))?;
        registry.register(Box::new(metrics.shed.clone()))?;
        registry.register(Box::new(metrics.rate_limited.clone()))?;
        registry.register(Box::new(metrics.faults.clone()))?;
        Ok(metrics)
    }

    /// A call was refused by the overload control.
    pub(crate) fn shed(&self, criticality: Criticality, reason: &str) {
        let labels = [criticality.as_str(), reason];
        self.shed.with_label_values(&labels).inc();
    }

    /// A call was refused by the rule of that name.
    pub(crate) fn rate_limited(&self, rule: &str) {
        self.rate_limited.with_label_values(&[rule]).inc();
    }

    /// The rule of that name has hit a call.
    pub(crate) fn fault(&self, rule: &str) {
        self.faults.with_label_values(&[rule]).inc();
    }
}
