//! The metrics of both stacks, in the names and units that Prometheus recommends.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use crate::stack::Side;

/// From half a millisecond to half a minute.
pub(crate) const BUCKETS_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Of one side. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Calls that have ended, by method and gRPC code.
    pub(crate) requests: IntCounterVec,
    /// From the start of a call to the end of its stream, by method.
    pub(crate) duration: HistogramVec,
    /// Calls that have not ended.
    pub(crate) in_flight: IntGauge,
}

impl Metrics {
    pub(crate) fn register(side: Side, registry: &Registry) -> prometheus::Result<Self> {
        let (side, doing) = match side {
            Side::Client => ("client", "made"),
            Side::Server => ("server", "served"),
        };
        let requests = IntCounterVec::new(
            Opts::new(
                format!("rpc_{side}_requests_total"),
                format!("Calls {doing}, by outcome."),
            ),
            &["method", "code"],
        )?;
        let duration = HistogramVec::new(
            HistogramOpts::new(
                format!("rpc_{side}_duration_seconds"),
                format!("How long calls {doing} took, to the end of their streams."),
            )
            .buckets(BUCKETS_SECONDS.to_vec()),
            &["method"],
        )?;
        let in_flight = IntGauge::new(
            format!("rpc_{side}_in_flight"),
            format!("Calls being {doing} at the moment."),
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        Ok(Self {
            requests,
            duration,
            in_flight,
        })
    }
}
