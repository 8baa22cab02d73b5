//! Creates and registers metrics.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, Result};

use crate::exchange::refusal::Scope;

/// The name and the `# HELP` text of a metric.
pub(super) type Named = (&'static str, &'static str);

pub(super) fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    collector: C,
) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

pub(super) fn counters(
    registry: &Registry,
    named: Named,
    labels: &[&str],
) -> Result<IntCounterVec> {
    register(registry, IntCounterVec::new(Opts::new(named.0, named.1), labels)?)
}

pub(super) fn gauges(registry: &Registry, named: Named, labels: &[&str]) -> Result<IntGaugeVec> {
    register(registry, IntGaugeVec::new(Opts::new(named.0, named.1), labels)?)
}

pub(super) fn counter(registry: &Registry, named: Named) -> Result<IntCounter> {
    register(registry, IntCounter::new(named.0, named.1)?)
}

pub(super) fn gauge(registry: &Registry, named: Named) -> Result<IntGauge> {
    register(registry, IntGauge::new(named.0, named.1)?)
}

pub(super) fn by_scope(counters: &IntCounterVec) -> Result<[IntCounter; Scope::ALL.len()]> {
    let of = |scope: Scope| counters.get_metric_with_label_values(&[scope.as_str()]);
    Ok([of(Scope::Global)?, of(Scope::Route)?, of(Scope::Pool)?])
}

pub(super) fn by_scope_gauge(gauges: &IntGaugeVec) -> Result<[IntGauge; Scope::ALL.len()]> {
    let of = |scope: Scope| gauges.get_metric_with_label_values(&[scope.as_str()]);
    Ok([of(Scope::Global)?, of(Scope::Route)?, of(Scope::Pool)?])
}
