//! What the supervisor says of itself.
//!
//! It lives as long as the service does, and its counts are its own: they are shown by whichever
//! worker it told last, and never inherited from one worker by the next.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;
use crate::runtime::in_flight::InFlight;

/// A metric that workers have too, each for itself.
pub(super) const LOG_DROPPED: (&str, &str) =
    ("lb_log_dropped_total", "Lines of the log that could not be written, by the process.");

/// What a supervisor tells a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// Which worker this is, from 1.
    pub generation: u64,
    /// Configurations that were put in place of another.
    pub reloads_done: u64,
    /// Configurations that could not be used.
    pub reloads_refused: u64,
    /// Replacements of the supervisor itself.
    #[serde(default)]
    pub upgrades_done: u64,
    /// Binaries that it would not make way for.
    #[serde(default)]
    pub upgrades_refused: u64,
    /// Workers that died and were replaced.
    pub restarts: u64,
    /// Workers that hung and were killed. Those that served are among `restarts` as well.
    #[serde(default)]
    pub hangs: u64,
    /// Former workers that still serve what they have.
    pub draining_workers: u64,
    /// Their connections.
    pub draining_connections: u64,
    /// Lines of its own log that were lost.
    #[serde(default)]
    pub log_dropped: u64,
    /// Their requests in flight.
    #[serde(default)]
    pub draining_requests: Vec<InFlight>,
    /// Whether the configuration that was last given could be used.
    pub last_reload_ok: bool,
    /// When the configuration in use was loaded.
    pub last_reload_at: SystemTime,
    /// How long the service is up, however many workers and images it has had.
    #[serde(default)]
    pub uptime: Duration,
    /// For how long a worker may be silent before it is replaced; `None`: it is not watched.
    #[serde(default)]
    pub hang_timeout: Option<Duration>,
}

impl Supervision {
    /// Of a service that begins.
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
    /// Takes in what the supervisor says now.
    pub fn supervised(&self, supervision: &Supervision) {
        self.reload_success.set(i64::from(supervision.last_reload_ok));
        let at = supervision.last_reload_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reload_timestamp.set(super::signed(at.as_secs()));
        *self.supervision.lock() = Some(supervision.clone());
    }

    /// What the supervisor said last; `None` if there is none.
    #[must_use]
    pub fn supervision(&self) -> Option<Supervision> {
        self.supervision.lock().clone()
    }

    pub(super) fn supervisors_families(&self) -> Vec<MetricFamily> {
        let Some(told) = self.supervision() else { return Vec::new() };
        vec![
            family(
                "lb_config_reloads_total",
                "Configurations that were given while the service ran, by what became of them.",
                vec![
                    counter(Some(("outcome", "done")), told.reloads_done),
                    counter(Some(("outcome", "refused")), told.reloads_refused),
                ],
            ),
            family(
                "lb_supervisor_upgrades_total",
                "Times the supervisor was to be replaced by another binary, by what became of it.",
                vec![
                    counter(Some(("outcome", "done")), told.upgrades_done),
                    counter(Some(("outcome", "refused")), told.upgrades_refused),
                ],
            ),
            family(
                "lb_worker_restarts_total",
                "Workers that died and were replaced.",
                vec![counter(None, told.restarts)],
            ),
            family(
                "lb_worker_hangs_total",
                "Workers that made no progress for longer than `--hang-timeout` and were killed.",
                vec![counter(None, told.hangs)],
            ),
            family(
                "lb_worker_generation",
                "Which worker serves, counted from the start of the service.",
                vec![gauge(told.generation)],
            ),
            family(
                "lb_draining_workers",
                "Former workers that still serve what they have.",
                vec![gauge(told.draining_workers)],
            ),
            family(
                "lb_draining_connections",
                "Client connections of draining workers.",
                vec![gauge(told.draining_connections)],
            ),
            family(
                LOG_DROPPED.0,
                LOG_DROPPED.1,
                vec![counter(Some(("process", "supervisor")), told.log_dropped)],
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

#[expect(clippy::as_conversions, reason = "the format knows no other numbers")]
fn float(number: u64) -> f64 {
    number as f64
}
