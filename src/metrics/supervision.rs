//! Metrics of the supervisor.
//!
//! The supervisor lives as long as the service, and keeps its own counts. The worker that received
//! them last exposes them; workers never inherit them from each other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::runtime::in_flight::InFlight;

/// A metric that workers have too, each its own.
pub(super) const LOG_DROPPED: (&str, &str) =
    ("lb_log_dropped_total", "Log lines that could not be written, by process.");

/// What the supervisor sends to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorStats {
    /// The number of this worker, from 1.
    pub generation: u64,
    /// Reloads that replaced the configuration.
    pub reloads_done: u64,
    /// Reloads that were rejected.
    pub reloads_refused: u64,
    /// Completed upgrades of the supervisor itself.
    #[serde(default)]
    pub upgrades_done: u64,
    /// Upgrades that were rejected.
    #[serde(default)]
    pub upgrades_refused: u64,
    /// Workers that died and were replaced.
    pub restarts: u64,
    /// Workers that hung and were killed. Those that served are included in `restarts`.
    #[serde(default)]
    pub hangs: u64,
    /// Former workers that are still draining.
    pub draining_workers: u64,
    /// Their connections.
    pub draining_connections: u64,
    /// Lines of the supervisor's own log that were lost.
    #[serde(default)]
    pub log_dropped: u64,
    /// Their requests in flight.
    #[serde(default)]
    pub draining_requests: Vec<InFlight>,
    /// Whether the last configuration could be used.
    pub last_reload_ok: bool,
    /// When the active configuration was loaded.
    pub last_reload_at: SystemTime,
    /// The uptime of the service, across all workers and upgrades.
    #[serde(default)]
    pub uptime: Duration,
    /// How long a worker may make no progress before it is replaced; `None`: workers are not
    /// watched.
    #[serde(default)]
    pub hang_timeout: Option<Duration>,
}

impl SupervisorStats {
    /// The state of a service that starts.
    #[must_use]
    pub const fn at(now: SystemTime, hang_timeout: Option<Duration>) -> Self {
        Self {
            generation: 0,
            reloads_done: 0,
            reloads_refused: 0,
            upgrades_done: 0,
            upgrades_refused: 0,
            restarts: 0,
            hangs: 0,
            draining_workers: 0,
            draining_connections: 0,
            log_dropped: 0,
            draining_requests: Vec::new(),
            last_reload_ok: true,
            last_reload_at: now,
            uptime: Duration::ZERO,
            hang_timeout,
        }
    }
}

impl Metrics {
    /// Records the supervisor's current state.
    pub fn set_supervisor_stats(&self, supervision: &SupervisorStats) {
        self.reload_success.set(i64::from(supervision.last_reload_ok));
        let at = supervision.last_reload_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reload_timestamp.set(super::signed(at.as_secs()));
        *self.supervision.lock() = Some(supervision.clone());
    }

    /// The supervisor's last state; `None` if there is none.
    #[must_use]
    pub fn supervision(&self) -> Option<SupervisorStats> {
        self.supervision.lock().clone()
    }

    pub(super) fn supervisor_families(&self) -> Vec<MetricFamily> {
        let Some(stats) = self.supervision() else { return Vec::new() };
        vec![
            family(
                "lb_config_reloads_total",
                "Reloads of the configuration, by outcome.",
                vec![
                    counter(Some(("outcome", "done")), stats.reloads_done),
                    counter(Some(("outcome", "rejected")), stats.reloads_refused),
                ],
            ),
            family(
                "lb_supervisor_upgrades_total",
                "Upgrades of the supervisor to another binary, by outcome.",
                vec![
                    counter(Some(("outcome", "done")), stats.upgrades_done),
                    counter(Some(("outcome", "rejected")), stats.upgrades_refused),
                ],
            ),
            family(
                "lb_worker_restarts_total",
                "Workers that died and were replaced.",
                vec![counter(None, stats.restarts)],
            ),
            family(
                "lb_worker_hangs_total",
                "Workers that made no progress for longer than `--hang-timeout` and were killed.",
                vec![counter(None, stats.hangs)],
            ),
            family(
                "lb_worker_generation",
                "The number of the serving worker, counted from the start of the service.",
                vec![gauge(stats.generation)],
            ),
            family(
                "lb_draining_workers",
                "Former workers that are still draining.",
                vec![gauge(stats.draining_workers)],
            ),
            family(
                "lb_draining_connections",
                "Client connections of draining workers.",
                vec![gauge(stats.draining_connections)],
            ),
            family(
                LOG_DROPPED.0,
                LOG_DROPPED.1,
                vec![counter(Some(("process", "supervisor")), stats.log_dropped)],
            ),
        ]
    }
}

fn family(name: &str, help: &str, metrics: Vec<Metric>) -> MetricFamily {
    let is_counter = name.ends_with("_total");
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(if is_counter { MetricType::COUNTER } else { MetricType::GAUGE });
    family.set_metric(metrics);
    family
}

fn counter(label: Option<(&str, &str)>, number: u64) -> Metric {
    let pairs = label.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    });
    let mut counter = Counter::default();
    counter.set_value(float(number));
    let mut metric = Metric::from_label(pairs.collect());
    metric.set_counter(counter);
    metric
}

fn gauge(number: u64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(float(number));
    Metric::from_gauge(gauge)
}

#[expect(clippy::as_conversions, reason = "the format has no other numbers")]
fn float(number: u64) -> f64 {
    number as f64
}
