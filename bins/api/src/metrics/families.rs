//! Families of metrics in the making.

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// A label with its value.
pub(super) fn label(name: &str, value: impl Into<String>) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.into());
    pair
}

/// A count as the floating-point number that the format wants.
pub(super) fn number(count: usize) -> f64 {
    count as f64
}

/// Durations sorted by length.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sorted {
    /// Upper bound in seconds and how many were at most that long.
    pub up_to: Vec<(f64, u64)>,
    /// How many there were.
    pub count: u64,
    /// Their sum in seconds.
    pub sum: f64,
}

/// A list of families. One without a sample is left out, because the format has no place for it.
#[derive(Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    /// Values that only rise while the process lives.
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<LabelPair>, u64)>,
    ) {
        let samples = samples.into_iter();
        let metrics = samples.map(|(labels, count)| counter(labels, count as f64));
        self.add(name, help, MetricType::COUNTER, metrics.collect());
    }

    /// Seconds that only add up while the process lives.
    pub(super) fn seconds(&mut self, name: &str, help: &str, seconds: Option<f64>) {
        let metrics = seconds.map(|seconds| counter(Vec::new(), seconds));
        let metrics = metrics.into_iter().collect();
        self.add(name, help, MetricType::COUNTER, metrics);
    }

    /// Values that rise and fall.
    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<LabelPair>, f64)>,
    ) {
        let metrics = samples.into_iter().map(|(labels, value)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = Metric::from_label(labels);
            metric.set_gauge(gauge);
            metric
        });
        self.add(name, help, MetricType::GAUGE, metrics.collect());
    }

    /// One value that rises and falls.
    pub(super) fn level(&mut self, name: &str, help: &str, value: usize) {
        self.gauge(name, help, [(Vec::new(), number(value))]);
    }

    /// Distributions of durations.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<LabelPair>, Sorted)>,
    ) {
        let metrics = samples.into_iter().map(|(labels, sorted)| {
            let mut histogram = Histogram::default();
            histogram.set_sample_count(sorted.count);
            histogram.set_sample_sum(sorted.sum);
            let buckets = sorted.up_to.into_iter().map(|(bound, count)| {
                let mut bucket = Bucket::default();
                bucket.set_upper_bound(bound);
                bucket.set_cumulative_count(count);
                bucket
            });
            histogram.set_bucket(buckets.collect());
            let mut metric = Metric::from_label(labels);
            metric.set_histogram(histogram);
            metric
        });
        self.add(name, help, MetricType::HISTOGRAM, metrics.collect());
    }

    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    /// The text format.
    pub(super) fn encode(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.0)
    }
}

fn counter(labels: Vec<LabelPair>, value: f64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}
