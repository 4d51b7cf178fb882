//! The metrics of the calls of both stacks, by gRPC's own names (gRFC A66) as OpenTelemetry translates them for
//! Prometheus: dots become underscores, the unit is a suffix. Those of attempts and of what the client decides are in
//! `client/metrics.rs`.
//!
//! A method's label is its name in the contract, else `other`: nobody can fill the registry with names. Buckets are
//! fewer than A66 proposes, because there is a histogram for each method and outcome.
//!
//! Deliberately without a look-up by text on the way of a call: what a method needs is found at its first call.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    core::Collector,
};
use tonic::Code;

use crate::{
    Contract,
    exemplars::{Exemplars, Kept},
    stack::{Progress, Side},
};

/// From half a millisecond to half a minute.
pub(crate) const BUCKETS_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];
/// From 1 KiB to the default limit of a message, 4 MiB.
const BUCKETS_BYTES: [f64; 7] = [
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
];

pub(crate) const TARGET: &str = "grpc_target";
pub(crate) const METHOD: &str = "grpc_method";
pub(crate) const STATUS: &str = "grpc_status";
/// The label of every method that the contract does not know.
pub(crate) const OTHER: &str = "other";

/// A method as A66 writes it: `package.Service/Method`.
pub(crate) fn label(path: &str) -> &str {
    path.strip_prefix('/').unwrap_or(path)
}

/// A code as gRPC and google/rpc/code.proto spell it: `NOT_FOUND`.
pub fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// How many codes there are.
const CODES: usize = 17;

pub(crate) fn added<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

/// Two histograms of message bytes, `prefix` with `sent_…` and `rcvd_…`.
#[derive(Clone)]
pub(crate) struct Sizes {
    sent: HistogramVec,
    received: HistogramVec,
}

impl Sizes {
    pub(crate) fn register(
        prefix: &str,
        what: &str,
        labels: &[&str],
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let histogram = |way: &str, done: &str| {
            let opts = HistogramOpts::new(
                format!("{prefix}_{way}_total_compressed_message_size_bytes"),
                format!(
                    "Bytes of all messages {done} per {what}, as they cross the wire (gRFC A66)."
                ),
            );
            let opts = opts.buckets(BUCKETS_BYTES.to_vec());
            added(registry, HistogramVec::new(opts, labels)?)
        };
        Ok(Self {
            sent: histogram("sent", "sent")?,
            received: histogram("rcvd", "received")?,
        })
    }

    pub(crate) fn of(&self, labels: &[&str]) -> SizesOf {
        SizesOf {
            sent: self.sent.with_label_values(labels),
            received: self.received.with_label_values(labels),
        }
    }
}

/// Of one method and outcome.
pub(crate) struct SizesOf {
    sent: Histogram,
    received: Histogram,
}

impl SizesOf {
    pub(crate) fn observe(&self, progress: &Progress) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a histogram of bytes is no exact number"
        )]
        let observe = |histogram: &Histogram, bytes: u64| histogram.observe(bytes as f64);
        observe(&self.sent, progress.sent());
        observe(&self.received, progress.received());
    }
}

/// The calls of one side. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Metrics {
    side: Side,
    contract: Contract,
    /// To the end of their streams.
    duration: HistogramVec,
    exemplars: Exemplars,
    in_flight: IntGauge,
    /// The server's; the client's are its attempts'.
    served: Option<(IntCounterVec, Sizes)>,
}

impl Metrics {
    pub(crate) fn register(
        side: Side,
        contract: &Contract,
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let (name, doing, labels) = match side {
            Side::Client => ("client", "made", &[METHOD, STATUS, TARGET][..]),
            Side::Server => ("server", "served", &[METHOD, STATUS][..]),
        };
        let opts = HistogramOpts::new(
            format!("grpc_{name}_call_duration_seconds"),
            format!("How long calls {doing} took, to the end of their streams (gRFC A66)."),
        );
        let duration = HistogramVec::new(opts.buckets(BUCKETS_SECONDS.to_vec()), labels)?;
        let duration = added(registry, duration)?;
        let exemplars = Exemplars::register(&duration, labels, &BUCKETS_SECONDS, registry)?;
        let in_flight = IntGauge::new(
            format!("mesh_{name}_calls_in_flight"),
            format!("Calls being {doing} at the moment."),
        )?;
        let started = Opts::new(
            "grpc_server_call_started_total",
            "Calls that were begun (gRFC A66).",
        );
        let served = match side {
            Side::Client => None,
            Side::Server => Some((
                added(registry, IntCounterVec::new(started, &[METHOD])?)?,
                Sizes::register("grpc_server_call", "call", labels, registry)?,
            )),
        };
        Ok(Self {
            side,
            contract: contract.clone(),
            duration,
            exemplars,
            in_flight: added(registry, in_flight)?,
            served,
        })
    }

    /// The calls to one destination; or those that are served, where `target` is nothing.
    pub(crate) fn of(&self, target: &str) -> Arc<Calls> {
        let known = self.contract.methods();
        let known = known.map(|known| (known.path.clone(), Outcomes::default()));
        Arc::new(Calls {
            target: target.to_owned(),
            known: known.collect(),
            other: Outcomes::default(),
            all: self.clone(),
        })
    }
}

/// The calls to one destination, or those that are served.
pub(crate) struct Calls {
    target: String,
    known: HashMap<String, Outcomes>,
    other: Outcomes,
    all: Metrics,
}

/// One method.
#[derive(Default)]
struct Outcomes {
    begun: OnceLock<IntCounter>,
    by_code: [OnceLock<Box<Outcome>>; CODES],
}

struct Outcome {
    duration: Histogram,
    exemplars: Kept,
    sizes: Option<SizesOf>,
}

impl Calls {
    pub(crate) fn begin(&self, path: &str) {
        self.all.in_flight.inc();
        if let Some((started, _)) = &self.all.served {
            let (outcomes, method) = self.method(path);
            let begun = outcomes
                .begun
                .get_or_init(|| started.with_label_values(&[method]));
            begun.inc();
        }
    }

    pub(crate) fn end(
        &self,
        path: &str,
        code: Code,
        seconds: f64,
        trace: u128,
        progress: &Progress,
    ) {
        self.all.in_flight.dec();
        let (outcomes, method) = self.method(path);
        let at = usize::try_from(i32::from(code)).unwrap_or(0) % CODES;
        let outcome = outcomes.by_code[at].get_or_init(|| {
            let with_target = [method, name(code), &*self.target];
            let labels = match self.all.side {
                Side::Client => &with_target[..],
                Side::Server => &with_target[..2],
            };
            Box::new(Outcome {
                duration: self.all.duration.with_label_values(labels),
                exemplars: self.all.exemplars.keep(labels),
                sizes: self.all.served.as_ref().map(|(_, sizes)| sizes.of(labels)),
            })
        });
        outcome.duration.observe(seconds);
        outcome.exemplars.offer(seconds, trace);
        if let Some(sizes) = &outcome.sizes {
            sizes.observe(progress);
        }
    }

    fn method<'p>(&'p self, path: &'p str) -> (&'p Outcomes, &'p str) {
        match self.known.get(path) {
            Some(outcomes) => (outcomes, label(path)),
            None => (&self.other, OTHER),
        }
    }
}
