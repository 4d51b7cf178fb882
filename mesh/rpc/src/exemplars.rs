//! Exemplars: for each bucket of a histogram, a trace that fell into it.
//!
//! The `prometheus` crate knows none, so they travel through its registry as a family of their own, beside the
//! histogram's: gauges named `<histogram>_exemplar` with its labels, `le` and `trace_id`. Whoever writes OpenMetrics
//! puts them at their buckets, and nobody else shows them (`mesh_runtime::admin` does both).
//!
//! Deliberately without time stamps: OpenMetrics lets them out, and a trace says itself when it was.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    HistogramVec, Registry,
    core::{Collector, Desc},
    proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

/// The end of the name of a family of exemplars.
const SUFFIX: &str = "_exemplar";

/// The exemplars of a histogram. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Exemplars {
    inner: Arc<Inner>,
}

struct Inner {
    desc: Desc,
    labels: Vec<String>,
    /// Upper bounds, without the infinite one.
    buckets: Vec<f64>,
    children: Mutex<Vec<(Vec<String>, Kept)>>,
}

/// A bucket's last value, and its trace.
type Last = Mutex<Option<(f64, u128)>>;

/// The exemplars of one child of a histogram.
#[derive(Clone)]
pub(crate) struct Kept {
    buckets: Arc<[f64]>,
    /// One for each bucket and the infinite one.
    last: Arc<[Last]>,
}

impl Exemplars {
    /// Beside `histogram`, which has these labels and buckets.
    pub(crate) fn register(
        histogram: &HistogramVec,
        labels: &[&str],
        buckets: &[f64],
        registry: &Registry,
    ) -> prometheus::Result<Self> {
        let name = histogram.desc()[0].fq_name.clone() + SUFFIX;
        let own = labels.iter().chain(&["le", "trace_id"]);
        let own = own.map(|label| (*label).to_owned()).collect();
        let help = "The last trace in each bucket.".to_owned();
        let exemplars = Self {
            inner: Arc::new(Inner {
                desc: Desc::new(name, help, own, std::collections::HashMap::new())?,
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                buckets: buckets.to_vec(),
                children: Mutex::default(),
            }),
        };
        registry.register(Box::new(exemplars.clone()))?;
        Ok(exemplars)
    }

    /// Those of the child with these values of the labels; asked for once per child.
    pub(crate) fn keep(&self, values: &[&str]) -> Kept {
        let Inner {
            buckets, children, ..
        } = &*self.inner;
        let kept = Kept {
            buckets: buckets.clone().into(),
            last: (0..=buckets.len()).map(|_| Mutex::default()).collect(),
        };
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        let mut children = children.lock().unwrap_or_else(PoisonError::into_inner);
        children.push((values, kept.clone()));
        kept
    }
}

impl Kept {
    /// Takes the place of the bucket's last one. Who comes while another is being written is no loss.
    pub(crate) fn offer(&self, value: f64, trace: u128) {
        let at = self.buckets.partition_point(|bound| *bound < value);
        if let Ok(mut last) = self.last[at].try_lock() {
            *last = Some((value, trace));
        }
    }

    fn metrics(&self, labels: &[LabelPair]) -> Vec<Metric> {
        let metric = |(at, last): (usize, &Last)| {
            let (value, trace) = (*last.lock().unwrap_or_else(PoisonError::into_inner))?;
            let bound = self.buckets.get(at).copied().unwrap_or(f64::INFINITY);
            let le = if bound.is_finite() {
                bound.to_string()
            } else {
                "+Inf".to_owned()
            };
            let own = [pair("le", &le), pair("trace_id", &format!("{trace:032x}"))];
            let mut metric = Metric::default();
            metric.set_label(labels.iter().cloned().chain(own).collect());
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
            Some(metric)
        };
        self.last.iter().enumerate().filter_map(metric).collect()
    }
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

impl Collector for Exemplars {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.inner.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Inner {
            desc,
            labels,
            children,
            ..
        } = &*self.inner;
        let children = children.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = children.iter().flat_map(|(values, kept)| {
            let pairs = labels.iter().zip(values);
            let mut pairs: Vec<_> = pairs.map(|(name, value)| pair(name, value)).collect();
            pairs.sort_by(|a, b| a.name().cmp(b.name())); // As the histogram has them.
            kept.metrics(&pairs)
        });
        let mut family = MetricFamily::default();
        family.set_name(desc.fq_name.clone());
        family.set_help(desc.help.clone());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::HistogramOpts;

    use super::*;

    #[test]
    fn each_bucket_keeps_its_last_trace() {
        let registry = Registry::new();
        let opts = HistogramOpts::new("took_seconds", "Took.").buckets(vec![0.1, 1.0]);
        let histogram = HistogramVec::new(opts, &["method"]).unwrap();
        let exemplars = Exemplars::register(&histogram, &["method"], &[0.1, 1.0], &registry);
        let kept = exemplars.unwrap().keep(&["a.B/C"]);
        for (value, trace) in [(0.1, 1), (0.05, 2), (5.0, 3)] {
            kept.offer(value, trace);
        }
        let families = registry.gather();
        assert_eq!(families[0].name(), "took_seconds_exemplar");
        let found = families[0].get_metric().iter().map(|metric| {
            let labels = metric
                .get_label()
                .iter()
                .map(|label| label.value().to_owned());
            (labels.collect::<Vec<_>>(), metric.get_gauge().get_value())
        });
        let expected = |le: &str, trace: u128, value| {
            let labels = ["a.B/C", le, &format!("{trace:032x}")].map(str::to_owned);
            (labels.to_vec(), value)
        };
        let found: Vec<_> = found.collect();
        assert_eq!(found, [expected("+Inf", 3, 5.0), expected("0.1", 2, 0.05)]);
    }
}
