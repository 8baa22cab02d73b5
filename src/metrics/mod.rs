//! All metrics of the load balancer.
//!
//! Label values come from the configuration or from a closed set, never from a request: a client
//! must not be able to create a time series.
//!
//! Counting is on the request path, so it must not look up labels. Handles for everything in the
//! configuration are created before the first request. A counter that also depends on the request
//! (method, status, kind of error) is looked up at its first use, and then cached. Gauges that only
//! repeat the snapshot are set at each scrape.

mod breaker;
mod connections;
mod counts;
mod current;
mod deprecated;
mod discovery;
mod family;
mod kind;
mod known;
mod limits;
mod queue;
mod register;
mod series;
mod supervision;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, Result,
};

use crate::exchange::event::Summary;
use crate::exchange::refusal::Outcome;
use crate::http::metric_label::{MethodLabel, StatusLabel};
use crate::metrics::current::CurrentSeries;
use crate::metrics::kind::ErrorKind;
use crate::metrics::limits::LimitSeries;
use crate::metrics::register::{counter, counters, gauge, gauges, register};
use crate::metrics::series::SeriesTable;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

pub use connections::ConnectionMetrics;
pub use counts::Counts;
pub use current::SnapshotMetrics;
pub use supervision::SupervisorStats;

/// Buckets of the connect histogram, in seconds: from the same host, over a lost SYN (1 s, 3 s), to
/// any reasonable timeout.
const CONNECT_SECONDS: [f64; 11] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 3.0];

/// All metrics.
pub struct Metrics {
    /// Requests completed, by pool, backend, method and status; [`SeriesTable`] has the handles.
    requests: IntCounterVec, // lb_requests_total{pool,backend,method,status}
    /// Errors, by [`ErrorKind`].
    errors: IntCounterVec, // lb_errors_total{pool,backend,type}
    /// Attempts that were retried, by the [`ErrorKind`] of the attempt.
    retries: IntCounterVec, // lb_retries_total{pool,reason}
    /// Per (pool, backend), with `lb_request_duration_seconds`, `lb_backend_up`, `lb_backend_weight`
    /// and `lb_backend_in_flight_requests`; per pool, `lb_tunnels` and `lb_tunnels_total`; and the series
    /// of the circuit breakers. The current table; a request uses that of its own snapshot.
    series: CurrentSeries,
    /// Rate limits, and the limit on requests in progress.
    limits: LimitSeries,
    /// Time to make a new connection to a backend; a reused connection is not counted.
    connect: Histogram, // lb_upstream_connect_seconds
    /// Client connections.
    connections: ConnectionMetrics,
    /// Access log lines that could not be written.
    log_dropped: IntCounter, // lb_access_log_dropped_total
    /// Caught panics; each aborts one request.
    panics: IntCounter, // lb_panics_total
    /// Whether the last configuration could be used.
    reload_success: IntGauge, // lb_config_reload_success
    /// When the active configuration was loaded.
    reload_timestamp: IntGauge, // lb_config_last_reload_timestamp_seconds
    succeeded: AtomicU64,
    failed: AtomicU64,
    client_errors: AtomicU64,
    /// Where all of these are registered.
    registry: Registry,
    /// The counts of former workers.
    inherited: Mutex<Counts>,
    /// The last state that the supervisor sent.
    supervision: Mutex<Option<SupervisorStats>>,
}

/// Totals since the start of the service.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Completed requests.
    pub requests: u64,
    /// Those whose response, by a backend or a route, has a status below 500.
    pub success: u64,
    /// Those that failed and were not the client's fault: a status of 500 or above from any source,
    /// a truncated response, an abandoned request. Requests that are neither success nor failure
    /// were the client's fault: a rejection with a status below 500, or a disconnect.
    pub failed: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Requests rejected by a rate limit.
    pub rate_limited: u64,
    /// Average time from first byte to last over all requests; 0 before the first.
    pub latency_seconds: f64,
}

impl Metrics {
    /// Registers all metrics, with series for each pool and backend of the snapshot.
    ///
    /// # Errors
    /// A metric of one of these names is already registered.
    pub fn new(registry: &Registry, snapshot: &Snapshot) -> Result<Self> {
        let metrics = Self {
            requests: counters(
                registry,
                (
                    "lb_requests_total",
                    "Requests completed or aborted, by pool, backend, method and status.",
                ),
                &["pool", "backend", "method", "status"],
            )?,
            errors: counters(
                registry,
                ("lb_errors_total", "Failed attempts and requests."),
                &["pool", "backend", "type"],
            )?,
            retries: counters(
                registry,
                ("lb_retries_total", "Failed attempts that were retried."),
                &["pool", "reason"],
            )?,
            series: CurrentSeries::new(registry, snapshot)?,
            limits: LimitSeries::new(registry)?,
            connect: register(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "lb_upstream_connect_seconds",
                        "Time to make a new connection to a backend.",
                    )
                    .buckets(CONNECT_SECONDS.to_vec()),
                )?,
            )?,
            connections: ConnectionMetrics::new(registry)?,
            log_dropped: counter(
                registry,
                ("lb_access_log_dropped_total", "Access log lines that could not be written."),
            )?,
            panics: counter(registry, ("lb_panics_total", "Caught panics."))?,
            reload_success: gauge(
                registry,
                ("lb_config_reload_success", "Whether the last configuration could be used."),
            )?,
            reload_timestamp: gauge(
                registry,
                (
                    "lb_config_last_reload_timestamp_seconds",
                    "When the active configuration was loaded, in Unix time.",
                ),
            )?,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            client_errors: AtomicU64::new(0),
            registry: registry.clone(),
            inherited: Mutex::default(),
            supervision: Mutex::default(),
        };
        metrics.create_known(snapshot)?;
        describe_process(registry)?;
        Ok(metrics)
    }

    fn create_known(&self, snapshot: &Snapshot) -> Result<()> {
        let Self { requests, errors, retries, .. } = self;
        known::SeriesFamilies { requests, errors, retries }.create(snapshot)
    }

    /// Makes the series of a snapshot that replaces the current one.
    ///
    /// # Errors
    /// None: the number of labels is right.
    pub fn follow(&self, snapshot: &Snapshot) -> Result<()> {
        self.create_known(snapshot)?;
        self.series.follow(snapshot)
    }

    /// Shows the number of backends that a source gives to a pool.
    pub fn backends_discovered(&self, pool: &str, source: &str, backends: usize) {
        self.series.discovery.discovered(pool, source, backends);
    }

    /// Counts a lookup of a source that failed or found nothing.
    pub fn discovery_failed(&self, source: &str) {
        self.series.discovery.failed(source);
    }

    /// Removes the gauges of a backend that is no longer a member of its pool.
    pub fn remove_gauges(&self, pool: &str, backend: &str) {
        self.series.remove_gauges(pool, backend);
    }

    /// Removes the counters of a backend that is gone. The totals of `/status` keep their counts.
    pub fn forget_backend(&self, pool: &str, backend: &str) {
        let (seconds, durations) = self.series.remove_counters(pool, backend);
        discovery::remove(&self.requests, pool, backend);
        discovery::remove(&self.errors, pool, backend);
        let mut inherited = self.inherited.lock();
        inherited.forget_backend(pool, backend);
        inherited.sums.seconds += seconds;
        inherited.sums.durations += durations;
    }

    /// Records that the active configuration was loaded at `at`.
    pub fn config_loaded(&self, at: SystemTime) {
        self.reload_success.set(1);
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.reload_timestamp.set(signed(seconds));
    }

    /// The metrics for the code that accepts connections.
    #[must_use]
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.connections
    }

    /// The counter to increment for each lost access log line.
    #[must_use]
    pub fn access_log_dropped(&self) -> IntCounter {
        self.log_dropped.clone()
    }

    /// Registers the counter of [`log_dropped`].
    ///
    /// # Errors
    /// It is already registered.
    pub fn show_log_dropped(&self, dropped: &IntCounter) -> Result<()> {
        self.registry.register(Box::new(dropped.clone()))
    }

    /// The counter to increment for each caught panic.
    #[must_use]
    pub fn panics(&self) -> IntCounter {
        self.panics.clone()
    }

    /// Updates the gauges that repeat the snapshot. To be called just before metrics are gathered.
    pub fn refresh(&self, snapshot: &Snapshot, now: Timestamp) {
        self.series.table().refresh(snapshot, now);
        self.limits.refresh(snapshot);
    }

    /// Totals since the start of the service.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sums = self.sums();
        #[expect(clippy::as_conversions, reason = "an average does not need the last of 53 bits")]
        let durations = sums.durations.max(1) as f64;
        Totals {
            requests: sums.succeeded + sums.failed + sums.client_errors,
            success: sums.succeeded,
            failed: sums.failed,
            retries: sums.retries,
            rate_limited: sums.rate_limited,
            latency_seconds: sums.seconds / durations,
        }
    }

    fn finished(&self, table: &SeriesTable, summary: &Summary<'_>) {
        let exchange = summary.exchange;
        let last = exchange.attempts().last().map(|attempt| attempt.backend);
        let series = table.series(exchange.pool_id(), last);
        let status = summary.wire.map_or(0, |wire| wire.status);
        let method = summary.wire.map_or(MethodLabel::Other, |wire| wire.method_label);
        // The lifetime of a WebSocket is not part of the request's duration.
        let ended = exchange.tunnel_since().unwrap_or(summary.ended);
        series.record_duration(ended.since(exchange.started()).as_secs_f64());
        series.record_response(&self.requests, method, StatusLabel::from(status));
        if let Some(kind) = ErrorKind::of_ending(summary.ending) {
            series.record_error(&self.errors, kind);
        }
        self.outcome(summary.ending, status).fetch_add(1, Relaxed);
    }

    fn outcome(&self, ending: Outcome, status: u16) -> &AtomicU64 {
        match ending {
            Outcome::Completed | Outcome::Redirected | Outcome::Responded
                if (1..500).contains(&status) =>
            {
                &self.succeeded
            }
            Outcome::Refused(refusal) if refusal.status() < 500 => &self.client_errors,
            Outcome::TunnelIdle | Outcome::TunnelDrained => &self.succeeded,
            Outcome::ClientAborted | Outcome::ClientWriteTimeout => &self.client_errors,
            Outcome::Completed
            | Outcome::Redirected
            | Outcome::Responded
            | Outcome::Refused(_)
            | Outcome::UpstreamAborted
            | Outcome::Aborted(_)
            | Outcome::Abandoned => &self.failed,
        }
    }
}

/// `lb_build_info`, and the kernel's metrics of this process.
fn describe_process(registry: &Registry) -> Result<()> {
    let build = gauges(
        registry,
        ("lb_build_info", "Always 1; the label is the version of Weir."),
        &["version"],
    )?;
    build.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(())
}

/// A counter for lost lines of a worker's own log, which exists before [`Metrics`] do.
///
/// # Errors
/// None: its name and its label are valid.
pub fn log_dropped() -> Result<IntCounter> {
    let (name, help) = supervision::LOG_DROPPED;
    IntCounter::with_opts(Opts::new(name, help).const_label("process", "worker"))
}

/// A gauge's value, clamped to its range.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
