//! One counter or histogram with all its series: read from Prometheus types, serialized for another
//! process, and converted back.

use std::collections::BTreeMap;

use prometheus::proto::{Bucket, Counter, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use serde::{Deserialize, Serialize};

/// A counter or histogram with all its series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Family {
    pub(super) help: String,
    /// The bounds of a histogram's buckets; empty for a counter.
    #[serde(with = "bits::list")]
    pub(super) bounds: Vec<f64>,
    pub(super) series: Series,
}

/// Label names and values, in the order of the names.
pub(super) type Labels = Vec<(String, String)>;

/// Series with a value other than zero.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(Labels, SeriesValue)>", into = "Vec<(Labels, SeriesValue)>")]
pub(super) struct Series(pub(super) BTreeMap<Labels, SeriesValue>);

impl From<Vec<(Labels, SeriesValue)>> for Series {
    fn from(pairs: Vec<(Labels, SeriesValue)>) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl From<Series> for Vec<(Labels, SeriesValue)> {
    fn from(series: Series) -> Self {
        series.0.into_iter().collect()
    }
}

/// The value of one series.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct SeriesValue {
    /// The value of a counter; the sum of a histogram's observations.
    #[serde(with = "bits")]
    sum: f64,
    /// The number of a histogram's observations,
    count: u64,
    /// and how many of them are up to each bound.
    buckets: Vec<u64>,
}

impl Family {
    /// Reads a family of counters or histograms.
    pub(super) fn read(family: &MetricFamily) -> Self {
        let metrics = family.get_metric();
        let bounds = metrics.first().map(bounds_of).unwrap_or_default();
        let values =
            metrics.iter().map(|metric| (labels_of(metric), SeriesValue::of(family, metric)));
        let series = Series(values.filter(|(_, value)| !value.is_zero()).collect());
        Self { help: family.help().to_owned(), bounds, series }
    }

    /// Converts to other bucket bounds. Observations between two old bounds count towards the next
    /// new bound that is not below the upper one. So no bucket counts more than is certain, and
    /// count and sum stay exact.
    pub(super) fn with_bounds(&self, bounds: &[f64]) -> Self {
        let rebucket = |value: &SeriesValue| SeriesValue {
            buckets: bounds
                .iter()
                .map(|bound| {
                    let below = self.bounds.iter().zip(&value.buckets);
                    below.take_while(|(old, _)| *old <= bound).map(|(_, count)| *count).last()
                })
                .map(Option::unwrap_or_default)
                .collect(),
            ..value.clone()
        };
        let series = self.series.0.iter().map(|(labels, value)| (labels.clone(), rebucket(value)));
        Self { help: self.help.clone(), bounds: bounds.to_vec(), series: Series(series.collect()) }
    }

    /// Converts to a Prometheus family.
    pub(super) fn show(&self, name: &str) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(self.help.clone());
        family.set_field_type(self.kind());
        self.add_to(&mut family);
        family
    }

    pub(super) fn kind(&self) -> MetricType {
        if self.bounds.is_empty() { MetricType::COUNTER } else { MetricType::HISTOGRAM }
    }

    pub(super) fn add_to(&self, family: &mut MetricFamily) {
        let first = family.get_metric().first();
        let other_bounds = first.is_some_and(|metric| bounds_of(metric) != self.bounds);
        if family.get_field_type() != self.kind() || other_bounds {
            return;
        }
        let mut missing = self.series.0.clone();
        let mut metrics = family.take_metric();
        for metric in &mut metrics {
            if let Some(mut value) = missing.remove(&labels_of(metric)) {
                value.add(&SeriesValue::of(family, metric));
                self.write(&value, metric);
            }
        }
        metrics.extend(missing.iter().map(|(labels, value)| {
            let mut metric = Metric::from_label(labels.iter().map(label_pair).collect());
            self.write(value, &mut metric);
            metric
        }));
        metrics.sort_by_cached_key(labels_of);
        family.set_metric(metrics);
    }

    fn write(&self, value: &SeriesValue, metric: &mut Metric) {
        if self.bounds.is_empty() {
            let mut counter = Counter::default();
            counter.set_value(value.sum);
            return metric.set_counter(counter);
        }
        let buckets = self.bounds.iter().zip(&value.buckets).map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(*count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(value.count);
        histogram.set_sample_sum(value.sum);
        metric.set_histogram(histogram);
    }
}

impl SeriesValue {
    fn of(family: &MetricFamily, metric: &Metric) -> Self {
        if family.get_field_type() == MetricType::COUNTER {
            return Self { sum: metric.get_counter().get_value(), ..Self::default() };
        }
        let histogram = metric.get_histogram();
        Self {
            sum: histogram.get_sample_sum(),
            count: histogram.get_sample_count(),
            buckets: histogram.get_bucket().iter().map(Bucket::cumulative_count).collect(),
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.sum == 0.0 && self.count == 0
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        self.count += other.count;
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (bucket, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *bucket += more;
        }
    }

    pub(super) fn minus(&self, earlier: &Self) -> Self {
        let before = earlier.buckets.iter().copied().chain(std::iter::repeat(0));
        let buckets = self.buckets.iter().zip(before);
        Self {
            sum: (self.sum - earlier.sum).max(0.0),
            count: self.count.saturating_sub(earlier.count),
            buckets: buckets.map(|(now, before)| now.saturating_sub(before)).collect(),
        }
    }
}

pub(super) fn is_counted(family: &MetricFamily) -> bool {
    matches!(family.get_field_type(), MetricType::COUNTER | MetricType::HISTOGRAM)
}

fn bounds_of(metric: &Metric) -> Vec<f64> {
    metric.get_histogram().get_bucket().iter().map(Bucket::upper_bound).collect()
}

fn labels_of(metric: &Metric) -> Labels {
    let pairs = metric.get_label().iter();
    pairs.map(|pair| (pair.name().to_owned(), pair.value().to_owned())).collect()
}

fn label_pair((name, value): &(String, String)) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.clone());
    pair.set_value(value.clone());
    pair
}

/// Serializes floating-point numbers as their bits. Decimal text may be parsed as a neighbouring
/// number, and a slightly smaller sum looks like a counter reset.
pub(super) mod bits {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "this is how serde calls it")]
    pub(in super::super) fn serialize<S: Serializer>(
        number: &f64,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_u64(number.to_bits())
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }

    pub(super) mod list {
        use serde::{Deserialize, Deserializer, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            numbers: &[f64],
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_seq(numbers.iter().map(|number| number.to_bits()))
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Vec<f64>, D::Error> {
            let bits = Vec::<u64>::deserialize(from)?;
            Ok(bits.into_iter().map(f64::from_bits).collect())
        }
    }
}
