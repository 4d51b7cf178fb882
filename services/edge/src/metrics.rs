//! What the edge counts. The calls behind it are counted by the mesh.

use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// The edge's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: IntCounterVec,
    /// Answers 504 of which the client's own deadline is the reason.
    pub(crate) client_deadlines: IntCounter,
    duration: HistogramVec,
    /// Streams and WebSockets that are open.
    pub(crate) streams: IntGauge,
}

impl Metrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "edge_requests_total",
                "HTTP requests answered, by RPC and HTTP status.",
            ),
            &["rpc", "status"],
        )?;
        let client_deadlines = IntCounter::new(
            "edge_client_deadlines_total",
            "Requests answered 504 since the deadline had passed that their client had asked for.",
        )?;
        let buckets = vec![
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let duration = HistogramVec::new(
            HistogramOpts::new(
                "edge_request_duration_seconds",
                "Time until the answer's headers, by RPC.",
            )
            .buckets(buckets),
            &["rpc"],
        )?;
        let streams = IntGauge::new("edge_streams", "Streams and WebSockets that are open.")?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(client_deadlines.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(streams.clone()))?;
        Ok(Self {
            requests,
            client_deadlines,
            duration,
            streams,
        })
    }

    /// `rpc` is a method's gRPC path, or `-` where there is none: never a text of the client.
    pub(crate) fn answered(&self, rpc: &str, status: u16, seconds: f64) {
        self.requests
            .with_label_values(&[rpc, &status.to_string()])
            .inc();
        self.duration.with_label_values(&[rpc]).observe(seconds);
    }
}
