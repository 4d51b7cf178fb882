//! Prometheus' families as OTLP's metrics, under the same names. Sums and histograms are cumulative from the start of the
//! process. Pure.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
        Summary, SummaryDataPoint, metric::Data, number_data_point,
    },
};
use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use crate::open_metrics;

/// Every family but the exemplars, which are no metrics.
pub(super) fn metrics(families: &[MetricFamily], began_ns: u64, now_ns: u64) -> Vec<Metric> {
    let families = families
        .iter()
        .filter(|family| !open_metrics::is_exemplars(family));
    let times = Times { began_ns, now_ns };
    let metric = |family: &MetricFamily| Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        data: Some(times.data(family)),
        ..Metric::default()
    };
    families.map(metric).collect()
}

#[derive(Clone, Copy)]
struct Times {
    began_ns: u64,
    now_ns: u64,
}

impl Times {
    fn data(self, family: &MetricFamily) -> Data {
        let cumulative = AggregationTemporality::Cumulative.into();
        let metrics = family.get_metric().iter();
        match family.get_field_type() {
            MetricType::COUNTER => Data::Sum(Sum {
                data_points: metrics
                    .map(|one| self.number(one.get_label(), one.get_counter().get_value()))
                    .collect(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            MetricType::GAUGE | MetricType::UNTYPED => Data::Gauge(Gauge {
                data_points: metrics
                    .map(|one| self.number(one.get_label(), one.get_gauge().get_value()))
                    .collect(),
            }),
            MetricType::HISTOGRAM => Data::Histogram(Histogram {
                data_points: metrics
                    .map(|one| self.histogram(one.get_label(), one.get_histogram()))
                    .collect(),
                aggregation_temporality: cumulative,
            }),
            MetricType::SUMMARY => Data::Summary(Summary {
                data_points: metrics
                    .map(|one| SummaryDataPoint {
                        attributes: attributes(one.get_label()),
                        start_time_unix_nano: self.began_ns,
                        time_unix_nano: self.now_ns,
                        count: one.get_summary().sample_count(),
                        sum: one.get_summary().sample_sum(),
                        ..SummaryDataPoint::default()
                    })
                    .collect(),
            }),
        }
    }

    fn number(self, labels: &[LabelPair], value: f64) -> NumberDataPoint {
        NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.began_ns,
            time_unix_nano: self.now_ns,
            value: Some(number_data_point::Value::AsDouble(value)),
            ..NumberDataPoint::default()
        }
    }

    /// Prometheus counts what is at or below each bound; OTLP what is between two, and above the last.
    fn histogram(
        self,
        labels: &[LabelPair],
        histogram: &prometheus::proto::Histogram,
    ) -> HistogramDataPoint {
        let (count, mut below) = (histogram.get_sample_count(), 0);
        let (mut bounds, mut counts) = (Vec::new(), Vec::new());
        let buckets = histogram.get_bucket().iter();
        for bucket in buckets.filter(|bucket| bucket.upper_bound().is_finite()) {
            bounds.push(bucket.upper_bound());
            counts.push(bucket.cumulative_count().saturating_sub(below));
            below = bucket.cumulative_count();
        }
        counts.push(count.saturating_sub(below));
        HistogramDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: self.began_ns,
            time_unix_nano: self.now_ns,
            count,
            sum: Some(histogram.get_sample_sum()),
            bucket_counts: counts,
            explicit_bounds: bounds,
            ..HistogramDataPoint::default()
        }
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    let labels = labels.iter();
    labels
        .map(|pair| attribute(pair.name(), pair.value()))
        .collect()
}

/// Text under a name.
pub(in crate::telemetry) fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

    use super::*;

    #[test]
    fn every_kind_arrives_with_its_labels_and_exemplars_do_not() {
        let registry = Registry::new();
        let calls = IntCounterVec::new(Opts::new("calls_total", "Calls."), &["method"]).unwrap();
        let open = IntGauge::new("open", "Open.").unwrap();
        let seconds = HistogramOpts::new("seconds", "Time.").buckets(vec![1.0, 2.0]);
        let seconds = HistogramVec::new(seconds, &["method"]).unwrap();
        let exemplar = IntGauge::new("seconds_exemplar", "No metric.").unwrap();
        registry.register(Box::new(calls.clone())).unwrap();
        registry.register(Box::new(open.clone())).unwrap();
        registry.register(Box::new(seconds.clone())).unwrap();
        registry.register(Box::new(exemplar)).unwrap();
        calls.with_label_values(&["Buy"]).inc_by(3);
        open.set(-2);
        for value in [0.5, 1.0, 1.5, 9.0] {
            seconds.with_label_values(&["Buy"]).observe(value);
        }
        let translated = metrics(&registry.gather(), 1, 2);
        let names: Vec<_> = translated.iter().map(|metric| &*metric.name).collect();
        assert_eq!(names, ["calls_total", "open", "seconds"]);
        let Some(Data::Sum(sum)) = &translated[0].data else {
            panic!("{translated:?}")
        };
        assert!(sum.is_monotonic);
        let point = &sum.data_points[0];
        assert_eq!(point.value, Some(number_data_point::Value::AsDouble(3.0)));
        assert_eq!(point.attributes, [attribute("method", "Buy")]);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        let Some(Data::Gauge(gauge)) = &translated[1].data else {
            panic!("{translated:?}")
        };
        let value = gauge.data_points[0].value;
        assert_eq!(value, Some(number_data_point::Value::AsDouble(-2.0)));
        let Some(Data::Histogram(histogram)) = &translated[2].data else {
            panic!("{translated:?}")
        };
        let point = &histogram.data_points[0];
        assert_eq!(point.explicit_bounds, [1.0, 2.0]);
        assert_eq!(point.bucket_counts, [2, 1, 1]);
        assert_eq!((point.count, point.sum), (4, Some(12.0)));
    }
}
