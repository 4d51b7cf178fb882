//! Metrics as text: OpenMetrics 1.0 for scrapers that ask for it, with exemplars, and Prometheus' own format for others.
//!
//! Exemplars come through the registry as gauges named `<histogram>_exemplar`, with the labels of the histogram, `le` and
//! `trace_id`; the `prometheus` crate has no other place for them. Here they are put at their buckets, and no format
//! shows them as metrics.
//!
//! Deliberately without units, creation times and native histograms.

use std::{collections::HashMap, fmt::Write as _};

use prometheus::{
    Encoder as _, TextEncoder,
    proto::{LabelPair, Metric, MetricFamily, MetricType},
};

/// The media type of [`encode`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const EXEMPLAR: &str = "_exemplar";

/// Whether a family is no metric, but the exemplars of one.
pub(crate) fn is_exemplars(family: &MetricFamily) -> bool {
    family.name().ends_with(EXEMPLAR)
}

/// Whether an `Accept` header takes OpenMetrics.
pub(crate) fn is_accepted(accept: Option<&str>) -> bool {
    let accepted = accept.unwrap_or_default().split(',');
    let mut types = accepted.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    types.any(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"))
}

/// Prometheus' text format, version 0.0.4.
pub(crate) fn encode_plain(mut families: Vec<MetricFamily>) -> prometheus::Result<Vec<u8>> {
    families.retain(|family| !is_exemplars(family));
    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text)?;
    Ok(text)
}

/// OpenMetrics 1.0.
pub(crate) fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        if !is_exemplars(family) {
            let beside = family.name().to_owned() + EXEMPLAR;
            let exemplars = families.iter().find(|other| other.name() == beside);
            write_family(&mut text, family, &exemplars.map(read).unwrap_or_default());
        }
    }
    text.push_str("# EOF\n");
    text
}

/// Trace and value by the child's labels and the bits of the bucket's bound.
type Exemplars<'f> = HashMap<(String, u64), (&'f str, f64)>;

fn read(family: &MetricFamily) -> Exemplars<'_> {
    let metrics = family.get_metric().iter();
    metrics
        .filter_map(|metric| {
            let find = |name: &str| {
                let found = metric.get_label().iter().find(|pair| pair.name() == name);
                found.map(LabelPair::value)
            };
            let bound = find("le")?.parse::<f64>().ok()?;
            let own = |pair: &&LabelPair| !matches!(pair.name(), "le" | "trace_id");
            let labels = labels(metric.get_label().iter().filter(own), None);
            let exemplar = (find("trace_id")?, metric.get_gauge().get_value());
            Some(((labels, bound.to_bits()), exemplar))
        })
        .collect()
}

fn write_family(text: &mut String, family: &MetricFamily, exemplars: &Exemplars<'_>) {
    let kind = family.get_field_type();
    let name = match kind {
        // A counter's family has no suffix, its sample has.
        MetricType::COUNTER => family
            .name()
            .strip_suffix("_total")
            .unwrap_or(family.name()),
        _ => family.name(),
    };
    let kind_name = match kind {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY => "summary",
        MetricType::UNTYPED => "unknown",
    };
    let help = escaped(family.help());
    line(text, format_args!("# TYPE {name} {kind_name}"));
    line(text, format_args!("# HELP {name} {help}"));
    for metric in family.get_metric() {
        let labels = labels(metric.get_label().iter(), None);
        match kind {
            MetricType::COUNTER => {
                let value = number(metric.get_counter().get_value());
                line(text, format_args!("{name}_total{labels} {value}"));
            }
            MetricType::HISTOGRAM => write_histogram(text, name, metric, exemplars),
            MetricType::SUMMARY => {
                let summary = metric.get_summary();
                let (sum, count) = (number(summary.sample_sum()), summary.sample_count());
                line(text, format_args!("{name}_sum{labels} {sum}"));
                line(text, format_args!("{name}_count{labels} {count}"));
            }
            MetricType::GAUGE | MetricType::UNTYPED => {
                let value = number(metric.get_gauge().get_value());
                line(text, format_args!("{name}{labels} {value}"));
            }
        }
    }
}

fn write_histogram(text: &mut String, name: &str, metric: &Metric, exemplars: &Exemplars<'_>) {
    let histogram = metric.get_histogram();
    let own = labels(metric.get_label().iter(), None);
    let count = histogram.get_sample_count();
    let buckets = histogram.get_bucket().iter();
    let buckets = buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    let finite = buckets.filter(|(bound, _)| bound.is_finite());
    for (bound, below) in finite.chain([(f64::INFINITY, count)]) {
        let labels = labels(metric.get_label().iter(), Some(bound));
        let exemplar = match exemplars.get(&(own.clone(), bound.to_bits())) {
            Some((trace, value)) => format!(" # {{trace_id=\"{trace}\"}} {}", number(*value)),
            None => String::new(),
        };
        line(
            text,
            format_args!("{name}_bucket{labels} {below}{exemplar}"),
        );
    }
    let sum = number(histogram.get_sample_sum());
    line(text, format_args!("{name}_sum{own} {sum}"));
    line(text, format_args!("{name}_count{own} {count}"));
}

fn line(text: &mut String, what: std::fmt::Arguments<'_>) {
    writeln!(text, "{what}").expect("a string takes everything");
}

/// `{a="b",le="0.5"}`; nothing where there are none.
fn labels<'l>(pairs: impl Iterator<Item = &'l LabelPair>, bound: Option<f64>) -> String {
    let pairs = pairs.map(|pair| format!("{}=\"{}\"", pair.name(), escaped(pair.value())));
    let bound = bound.map(|bound| format!("le=\"{}\"", number(bound)));
    let all: Vec<_> = pairs.chain(bound).collect();
    if all.is_empty() {
        return String::new();
    }
    format!("{{{}}}", all.join(","))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('\n', "\\n")
        .replace('"', "\\\"")
}

/// Whole numbers with one decimal, as OpenMetrics writes the bounds of buckets.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        format!("{value:?}")
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounter, IntGaugeVec, Opts, Registry};

    use super::*;

    fn registry() -> Registry {
        let registry = Registry::new();
        let sold = IntCounter::new("sold_total", "Sold \"here\".").unwrap();
        sold.inc_by(3);
        let open = Gauge::new("open", "Open.").unwrap();
        open.set(0.5);
        let opts = HistogramOpts::new("took_seconds", "Took.").buckets(vec![0.1, 1.0]);
        let took = HistogramVec::new(opts, &["method"]).unwrap();
        took.with_label_values(&["a\\b"]).observe(0.25);
        let exemplars = Opts::new("took_seconds_exemplar", "Traces.");
        let exemplars = IntGaugeVec::new(exemplars, &["method", "le", "trace_id"]).unwrap();
        exemplars.with_label_values(&["a\\b", "1", "00ff"]).set(7);
        exemplars
            .with_label_values(&["a\\b", "+Inf", "00ee"])
            .set(9);
        registry.register(Box::new(sold)).unwrap();
        registry.register(Box::new(open)).unwrap();
        registry.register(Box::new(took)).unwrap();
        registry.register(Box::new(exemplars)).unwrap();
        registry
    }

    #[test]
    fn exemplars_stand_at_their_buckets() {
        let expected = r#"# TYPE open gauge
# HELP open Open.
open 0.5
# TYPE sold counter
# HELP sold Sold \"here\".
sold_total 3.0
# TYPE took_seconds histogram
# HELP took_seconds Took.
took_seconds_bucket{method="a\\b",le="0.1"} 0
took_seconds_bucket{method="a\\b",le="1.0"} 1 # {trace_id="00ff"} 7.0
took_seconds_bucket{method="a\\b",le="+Inf"} 1 # {trace_id="00ee"} 9.0
took_seconds_sum{method="a\\b"} 0.25
took_seconds_count{method="a\\b"} 1
# EOF
"#;
        assert_eq!(encode(&registry().gather()), expected);
    }

    #[test]
    fn the_plain_format_has_no_exemplars() {
        let text = encode_plain(registry().gather()).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("took_seconds_count{") && text.contains("sold_total 3"));
        assert!(!text.contains("exemplar"), "{text}");
    }

    #[test]
    fn open_metrics_is_for_those_who_ask() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,*/*;q=0.1";
        assert!(is_accepted(Some(prometheus)));
        assert!(is_accepted(Some(
            "text/plain, application/OpenMetrics-Text"
        )));
        assert!(!is_accepted(Some("text/plain;version=0.0.4, */*")));
        assert!(!is_accepted(None));
    }
}
