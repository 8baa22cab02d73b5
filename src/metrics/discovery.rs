//! The metrics of sources of backends, and what remains of backends that are gone.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{IntCounterVec, IntGaugeVec, Registry, Result};

use crate::metrics::register::{counters, gauges};
use crate::metrics::signed;

/// The metrics of sources of backends.
pub(super) struct DiscoveryMetrics {
    discovered: IntGaugeVec, // lb_backends_discovered{pool,source}
    failures: IntCounterVec, // lb_discovery_failures_total{source}
}

impl DiscoveryMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            discovered: gauges(
                registry,
                (
                    "lb_backends_discovered",
                    "Backends of a pool that a host name, a service or a file gives.",
                ),
                &["pool", "source"],
            )?,
            failures: counters(
                registry,
                (
                    "lb_discovery_failures_total",
                    "Lookups of a host name, a service or a file that failed or found no backend.",
                ),
                &["source"],
            )?,
        })
    }

    /// Shows the number of backends of a source.
    pub(super) fn discovered(&self, pool: &str, source: &str, backends: usize) {
        let count = signed(u64::try_from(backends).unwrap_or(u64::MAX));
        self.discovered.with_label_values(&[pool, source]).set(count);
        // It exists from the start.
        self.failures.with_label_values(&[source]).inc_by(0);
    }

    /// Counts a failed lookup.
    pub(super) fn failed(&self, source: &str) {
        self.failures.with_label_values(&[source]).inc();
    }
}

/// Removes the series of a family that belong to a backend.
pub(super) fn remove<B: MetricVecBuilder>(family: &MetricVec<B>, pool: &str, backend: &str)
where
    MetricVec<B>: Collector,
{
    for metric in family.collect().iter().flat_map(|family| family.get_metric()) {
        let labels: HashMap<&str, &str> =
            metric.get_label().iter().map(|pair| (pair.name(), pair.value())).collect();
        let is_own = labels.get("pool") == Some(&pool) && labels.get("backend") == Some(&backend);
        if is_own && let Err(error) = family.remove(&labels) {
            log::debug!("series not removed: pool={pool} backend={backend} error=\"{error}\"");
        }
    }
}
