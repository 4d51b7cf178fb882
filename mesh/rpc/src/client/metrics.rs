//! The metrics of the client's attempts, connections and decisions, beside those of its calls
//! (`crate::metrics`).
//!
//! Names and labels are gRPC's own where it has any (gRFC A66 attempts, A91 ejections, A94 connections),
//! as OpenTelemetry translates them for Prometheus. Deliberately without a label for the endpoint:
//! addresses come and go; `Mesh::endpoints` knows them. Methods outside the contract are `other`.

use std::sync::{Arc, OnceLock};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use tonic::Code;

use super::outlier::Method;
use crate::{
    metrics::{self, BUCKETS_SECONDS, METHOD, STATUS, Sizes, SizesOf, TARGET, added},
    stack::Progress,
};

/// Of all destinations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ClientMetrics {
    attempts: IntCounterVec,
    duration: HistogramVec,
    sizes: Sizes,
    again: IntCounterVec,
    given_up: IntCounterVec,
    connects_succeeded: IntCounterVec,
    connects_failed: IntCounterVec,
    disconnects: IntCounterVec,
    connections: IntGaugeVec,
    endpoints: IntGaugeVec,
    ejections: IntCounterVec,
    unenforced: IntCounterVec,
    refused: IntCounterVec,
    look_ups: IntCounterVec,
}

const DETECTION: &str = "grpc_lb_outlier_detection_detection_method";

impl ClientMetrics {
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            added(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str| {
            added(
                registry,
                IntGaugeVec::new(Opts::new(name, help), &[TARGET])?,
            )
        };
        let duration = HistogramOpts::new(
            "grpc_client_attempt_duration_seconds",
            "How long attempts took, to the end of their streams (gRFC A66).",
        );
        Ok(Self {
            attempts: counter(
                "grpc_client_attempt_started_total",
                "Attempts that were begun, retries and hedges included (gRFC A66).",
                &[METHOD, TARGET],
            )?,
            duration: added(
                registry,
                HistogramVec::new(
                    duration.buckets(BUCKETS_SECONDS.to_vec()),
                    &[METHOD, TARGET, STATUS],
                )?,
            )?,
            sizes: Sizes::register(
                "grpc_client_attempt",
                "attempt",
                &[METHOD, TARGET, STATUS],
                registry,
            )?,
            again: counter(
                "mesh_client_attempts_again_total",
                "Attempts beyond the first: retry, transparent or hedge.",
                &[TARGET, "kind"],
            )?,
            given_up: counter(
                "mesh_client_retries_refused_total",
                "Failures that might have been tried again, and why they were not.",
                &[TARGET, "reason"],
            )?,
            connects_succeeded: counter(
                "grpc_subchannel_connection_attempts_succeeded_total",
                "Connections that were opened (gRFC A94).",
                &[TARGET],
            )?,
            connects_failed: counter(
                "grpc_subchannel_connection_attempts_failed_total",
                "Connections that could not be opened (gRFC A94).",
                &[TARGET],
            )?,
            disconnects: counter(
                "grpc_subchannel_disconnections_total",
                "Connections that the other side has ended, or that broke (gRFC A94).",
                &[TARGET],
            )?,
            connections: gauge(
                "grpc_subchannel_open_connections",
                "Connections that are open (gRFC A94).",
            )?,
            endpoints: gauge("mesh_client_endpoints", "Endpoints that discovery knows.")?,
            ejections: counter(
                "grpc_lb_outlier_detection_ejections_enforced_total",
                "Endpoints that were ejected (gRFC A91).",
                &[TARGET, DETECTION],
            )?,
            unenforced: counter(
                "grpc_lb_outlier_detection_ejections_unenforced_total",
                "Endpoints that would have been ejected, and why they were not (gRFC A91).",
                &[
                    TARGET,
                    DETECTION,
                    "grpc_lb_outlier_detection_unenforced_reason",
                ],
            )?,
            refused: counter(
                "mesh_client_refused_total",
                "Attempts that were refused before they were sent.",
                &[TARGET, "reason"],
            )?,
            look_ups: counter(
                "mesh_client_discovery_total",
                "Look-ups of endpoints, by outcome.",
                &[TARGET, "outcome"],
            )?,
        })
    }

    /// The metrics of one destination.
    pub(crate) fn of(&self, destination: &str) -> DestinationMetrics {
        let one = |counters: &IntCounterVec| counters.with_label_values(&[destination]);
        DestinationMetrics {
            connects_succeeded: one(&self.connects_succeeded),
            connects_failed: one(&self.connects_failed),
            disconnects: one(&self.disconnects),
            connections: self.connections.with_label_values(&[destination]),
            endpoints: self.endpoints.with_label_values(&[destination]),
            destination: Arc::from(destination),
            all: self.clone(),
        }
    }
}

/// Of one destination. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DestinationMetrics {
    all: ClientMetrics,
    destination: Arc<str>,
    pub(crate) connects_succeeded: IntCounter,
    pub(crate) connects_failed: IntCounter,
    pub(crate) disconnects: IntCounter,
    pub(crate) connections: IntGauge,
    pub(crate) endpoints: IntGauge,
}

impl DestinationMetrics {
    /// `kind`: retry, transparent or hedge.
    pub(crate) fn again(&self, kind: &str) {
        let labels = [&*self.destination, kind];
        self.all.again.with_label_values(&labels).inc();
    }

    pub(crate) fn given_up(&self, reason: &str) {
        let labels = [&*self.destination, reason];
        self.all.given_up.with_label_values(&labels).inc();
    }

    pub(crate) fn ejected(&self, method: Method) {
        let labels = [&*self.destination, method.as_str()];
        self.all.ejections.with_label_values(&labels).inc();
    }

    pub(crate) fn unenforced(&self, method: Method, reason: &str) {
        let labels = [&*self.destination, method.as_str(), reason];
        self.all.unenforced.with_label_values(&labels).inc();
    }

    pub(crate) fn refused(&self, reason: &str) {
        let labels = [&*self.destination, reason];
        self.all.refused.with_label_values(&labels).inc();
    }

    pub(crate) fn looked_up(&self, outcome: &str) {
        let labels = [&*self.destination, outcome];
        self.all.look_ups.with_label_values(&labels).inc();
    }

    /// The metrics of a method's attempts; nothing is registered before its first one.
    pub(crate) fn attempts(&self, method: &str) -> AttemptMetrics {
        AttemptMetrics {
            destination: self.clone(),
            method: Arc::from(metrics::label(method)),
            begun: OnceLock::new(),
            succeeded: OnceLock::new(),
        }
    }
}

/// Of the attempts of one method at one destination.
pub(crate) struct AttemptMetrics {
    destination: DestinationMetrics,
    method: Arc<str>,
    begun: OnceLock<IntCounter>,
    succeeded: OnceLock<(Histogram, SizesOf)>,
}

impl AttemptMetrics {
    pub(crate) fn begin(&self) {
        let counter = self.begun.get_or_init(|| {
            let labels = [&*self.method, &*self.destination.destination];
            self.destination.all.attempts.with_label_values(&labels)
        });
        counter.inc();
    }

    pub(crate) fn end(&self, code: Code, seconds: f64, progress: &Progress) {
        let record = |(duration, sizes): &(Histogram, SizesOf)| {
            duration.observe(seconds);
            sizes.observe(progress);
        };
        match code {
            Code::Ok => record(self.succeeded.get_or_init(|| self.of(code))),
            _ => record(&self.of(code)),
        }
    }

    fn of(&self, code: Code) -> (Histogram, SizesOf) {
        let labels = [
            &*self.method,
            &*self.destination.destination,
            metrics::name(code),
        ];
        let ClientMetrics {
            duration, sizes, ..
        } = &self.destination.all;
        (duration.with_label_values(&labels), sizes.of(&labels))
    }
}
