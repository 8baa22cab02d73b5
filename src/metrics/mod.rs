//! Every metric the balancer exposes, on one screen.
//!
//! Labels come from the configuration or from a closed set, never from a request: a client must
//! not be able to invent a time series.
//!
//! Counting is on the request path, so no label is looked up there. What the configuration names
//! has its handles before the first request; a counter that also depends on how a request went
//! (method, status, kind of error) is looked up when that combination is first seen, and kept.
//! Gauges that only repeat what the snapshot knows are set when somebody scrapes.

mod connections;
mod counts;
mod family;
mod kind;
mod known;
mod series;
mod supervision;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

use crate::exchange::event::{Event, Observer, Summary};
use crate::exchange::refusal::{Ending, Scope};
use crate::http::label::{MethodLabel, StatusLabel};
use crate::metrics::kind::ErrorKind;
use crate::metrics::series::Table;
use crate::policy::limiter::RateLimiter;
use crate::runtime::snapshot::Snapshot;

pub use connections::ConnectionMetrics;
pub use counts::Counts;
pub use supervision::Supervision;

/// Bounds of the request histogram, in seconds: from an answer out of memory on the same network
/// to the longest default timeout and one step beyond.
const REQUEST_SECONDS: [f64; 19] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// Bounds of the connect histogram, in seconds: from the same host, over a lost SYN (1 s, 3 s), to
/// any sane timeout.
const CONNECT_SECONDS: [f64; 11] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 3.0];

/// Every metric.
pub struct Metrics {
    /// Requests answered, by whoever answered them; see [`Table`] for the handles.
    requests: IntCounterVec, // lb_requests_total{pool,backend,method,status}
    /// What went wrong, by [`ErrorKind`].
    errors: IntCounterVec, // lb_errors_total{pool,backend,type}
    /// Attempts that were followed by another one, by the attempt's [`ErrorKind`].
    retries: IntCounterVec, // lb_retries_total{pool,reason}
    /// Of one (pool, backend), with `lb_request_duration_seconds`, `lb_backend_up` and
    /// `lb_active_connections`; of one pool, `lb_tunnels` and `lb_tunnels_total`.
    table: Table,
    /// Requests refused by a rate limit, one for each [`Scope`].
    rate_limited: [IntCounter; Scope::ALL.len()], // lb_rate_limited_requests_total{scope}
    /// Clients whose bucket is remembered, one for each [`Scope`].
    rate_limit_clients: [IntGauge; Scope::ALL.len()], // lb_rate_limit_clients{scope}
    /// Time to make a new connection to a backend; one that is used again is not counted.
    connect: Histogram, // lb_upstream_connect_seconds
    /// Client connections.
    connections: ConnectionMetrics,
    /// Access log lines that could not be written.
    log_dropped: IntCounter, // lb_access_log_dropped_total
    /// Panics that were caught; each has cost one request.
    panics: IntCounter, // lb_panics_total
    /// Whether the configuration that was last given could be used.
    reload_success: IntGauge, // lb_config_reload_success
    /// When the configuration in use was loaded.
    reload_timestamp: IntGauge, // lb_config_last_reload_timestamp_seconds
    succeeded: AtomicU64,
    failed: AtomicU64,
    declined: AtomicU64,
    /// Where all of these are registered.
    registry: Registry,
    /// What others have counted.
    inherited: Mutex<Counts>,
    /// What the supervisor said.
    supervision: Mutex<Option<Supervision>>,
}

/// What was counted since the start of the service.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Totals {
    /// Exchanges that are over.
    pub requests: u64,
    /// Those that a backend, or a route itself, answered with a status below 500.
    pub success: u64,
    /// Those that went wrong on our side of the client: a status of 500 or above, whoever gave
    /// it, an answer that was cut, an exchange that was abandoned. What is neither success nor
    /// failure was the client's own doing: a refusal below 500, or it left.
    pub failed: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Requests that a rate limit refused.
    pub rate_limited: u64,
    /// From first byte to last, on average over all exchanges; 0 before the first.
    pub latency_seconds: f64,
}

impl Metrics {
    /// Registers every metric, with a series for each pool and backend of the snapshot.
    ///
    /// # Errors
    /// A metric of one of these names is registered already.
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
                ("lb_errors_total", "Attempts and exchanges that went wrong."),
                &["pool", "backend", "type"],
            )?,
            retries: counters(
                registry,
                ("lb_retries_total", "Failed attempts that were followed by another one."),
                &["pool", "reason"],
            )?,
            table: table(registry, snapshot)?,
            rate_limited: by_scope(&counters(
                registry,
                ("lb_rate_limited_requests_total", "Requests refused by a rate limit."),
                &["scope"],
            )?)?,
            rate_limit_clients: by_scope_gauge(&gauges(
                registry,
                ("lb_rate_limit_clients", "Clients that rate limits remember."),
                &["scope"],
            )?)?,
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
            panics: counter(registry, ("lb_panics_total", "Panics that were caught."))?,
            reload_success: gauge(
                registry,
                ("lb_config_reload_success", "Whether the last configuration could be used."),
            )?,
            reload_timestamp: gauge(
                registry,
                (
                    "lb_config_last_reload_timestamp_seconds",
                    "When the configuration in use was loaded, in Unix time.",
                ),
            )?,
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            declined: AtomicU64::new(0),
            registry: registry.clone(),
            inherited: Mutex::default(),
            supervision: Mutex::default(),
        };
        let Self { requests, errors, retries, .. } = &metrics;
        known::Counters { requests, errors, retries }.create(snapshot)?;
        describe_process(registry)?;
        Ok(metrics)
    }

    /// Notes that the configuration in use was loaded at `at`.
    pub fn config_loaded(&self, at: SystemTime) {
        self.reload_success.set(1);
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.reload_timestamp.set(signed(seconds));
    }

    /// To be counted by whoever accepts connections.
    #[must_use]
    pub fn connections(&self) -> &ConnectionMetrics {
        &self.connections
    }

    /// To be counted up for each access log line that is lost.
    #[must_use]
    pub fn access_log_dropped(&self) -> IntCounter {
        self.log_dropped.clone()
    }

    /// Shows what [`log_dropped`] has made.
    ///
    /// # Errors
    /// It is shown already.
    pub fn show_log_dropped(&self, dropped: &IntCounter) -> Result<()> {
        self.registry.register(Box::new(dropped.clone()))
    }

    /// To be counted up for each panic that is caught.
    #[must_use]
    pub fn panics(&self) -> IntCounter {
        self.panics.clone()
    }

    /// Brings the gauges that repeat the snapshot up to date. For whoever gathers, just before.
    pub fn refresh(&self, snapshot: &Snapshot) {
        self.table.refresh(snapshot);
        let clients = |limiter: Option<&RateLimiter>| limiter.map_or(0, RateLimiter::clients);
        let routes = snapshot.routes.iter().map(|route| clients(route.limiter.as_ref())).sum();
        let pools = snapshot.pools.iter().map(|pool| clients(pool.limiter.as_ref())).sum();
        let remembered = [clients(snapshot.limiter.as_ref()), routes, pools];
        for (gauge, clients) in self.rate_limit_clients.iter().zip(remembered) {
            gauge.set(i64::try_from(clients).unwrap_or(i64::MAX));
        }
    }

    /// What was counted since the start of the service.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let sums = self.sums();
        #[expect(clippy::as_conversions, reason = "an average does not need the last of 53 bits")]
        let durations = sums.durations.max(1) as f64;
        Totals {
            requests: sums.succeeded + sums.failed + sums.declined,
            success: sums.succeeded,
            failed: sums.failed,
            retries: sums.retries,
            rate_limited: sums.rate_limited,
            latency_seconds: sums.seconds / durations,
        }
    }

    fn finished(&self, summary: &Summary<'_>) {
        let exchange = summary.exchange;
        let last = exchange.attempts().last().map(|attempt| attempt.backend);
        let series = self.table.series(exchange.pool_index(), last);
        let status = summary.wire.map_or(0, |wire| wire.status);
        let method = summary.wire.map_or(MethodLabel::Other, |wire| wire.method_label);
        // How long a tunnel was open says nothing about how fast anybody was.
        let ended = exchange.tunnel_since().unwrap_or(summary.ended);
        series.took(ended.since(exchange.started()).as_secs_f64());
        series.answered(&self.requests, method, StatusLabel::from(status));
        if let Some(kind) = ErrorKind::of_ending(summary.ending) {
            series.went_wrong(&self.errors, kind);
        }
        self.outcome(summary.ending, status).fetch_add(1, Relaxed);
    }

    fn outcome(&self, ending: Ending, status: u16) -> &AtomicU64 {
        match ending {
            Ending::Answered | Ending::Redirected | Ending::Responded
                if (1..500).contains(&status) =>
            {
                &self.succeeded
            }
            Ending::Refused(refusal) if refusal.status() < 500 => &self.declined,
            Ending::TunnelIdle | Ending::TunnelDrained => &self.succeeded,
            Ending::ClientClosed | Ending::ClientStalled => &self.declined,
            Ending::Answered
            | Ending::Redirected
            | Ending::Responded
            | Ending::Refused(_)
            | Ending::Cut
            | Ending::Aborted(_)
            | Ending::Dropped => &self.failed,
        }
    }
}

impl Observer for Metrics {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::Connected { took, .. } => self.connect.observe(took.as_secs_f64()),
            Event::AttemptFailed { pool, backend, failure, retried } => {
                let kind = ErrorKind::of_attempt(*failure);
                self.table.series(Some(*pool), Some(*backend)).went_wrong(&self.errors, kind);
                if *retried {
                    self.table.retried(&self.retries, *pool, kind);
                }
            }
            Event::Tunnelled { pool } => self.table.tunnelled(*pool),
            Event::RateLimited(scope) => {
                let [global, route, pool] = &self.rate_limited;
                match scope {
                    Scope::Global => global.inc(),
                    Scope::Route => route.inc(),
                    Scope::Pool => pool.inc(),
                }
            }
            Event::Finished(summary) => self.finished(summary),
        }
    }
}

/// What is known of every (pool, backend), and of each pool.
fn table(registry: &Registry, snapshot: &Snapshot) -> Result<Table> {
    let families = series::Families {
        duration: register(
            registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "lb_request_duration_seconds",
                    "Time from a request's first byte to its answer's last.",
                )
                .buckets(REQUEST_SECONDS.to_vec()),
                &["pool", "backend"],
            )?,
        )?,
        up: gauges(
            registry,
            ("lb_backend_up", "Whether a backend is healthy."),
            &["pool", "backend"],
        )?,
        active: gauges(
            registry,
            ("lb_active_connections", "Requests sent to a backend and not yet finished."),
            &["pool", "backend"],
        )?,
        unresolved: gauges(
            registry,
            ("lb_backend_unresolved", "Whether the name of a backend has no address."),
            &["pool", "backend"],
        )?,
        healthy: gauges(
            registry,
            ("lb_healthy_backends", "How many backends of a pool are healthy."),
            &["pool"],
        )?,
        tunnels: gauges(registry, ("lb_tunnels", "WebSockets that are open."), &["pool"])?,
        tunnelled: counters(
            registry,
            ("lb_tunnels_total", "Exchanges that became a WebSocket."),
            &["pool"],
        )?,
    };
    Table::new(&families, snapshot)
}

/// `lb_build_info`, and what the kernel knows of this process.
fn describe_process(registry: &Registry) -> Result<()> {
    let build = gauges(registry, ("lb_build_info", "1, with the version of Weir."), &["version"])?;
    build.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Ok(())
}

/// A counter for lost lines of a worker's own log, which there is before there are [`Metrics`].
///
/// # Errors
/// None: its name and its label are valid.
pub fn log_dropped() -> Result<IntCounter> {
    let (name, help) = supervision::LOG_DROPPED;
    IntCounter::with_opts(Opts::new(name, help).const_label("process", "worker"))
}

/// A metric's name and what its `# HELP` line says.
type Named = (&'static str, &'static str);

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counters(registry: &Registry, named: Named, labels: &[&str]) -> Result<IntCounterVec> {
    register(registry, IntCounterVec::new(Opts::new(named.0, named.1), labels)?)
}

fn gauges(registry: &Registry, named: Named, labels: &[&str]) -> Result<IntGaugeVec> {
    register(registry, IntGaugeVec::new(Opts::new(named.0, named.1), labels)?)
}

fn counter(registry: &Registry, named: Named) -> Result<IntCounter> {
    register(registry, IntCounter::new(named.0, named.1)?)
}

fn gauge(registry: &Registry, named: Named) -> Result<IntGauge> {
    register(registry, IntGauge::new(named.0, named.1)?)
}

fn by_scope(counters: &IntCounterVec) -> Result<[IntCounter; Scope::ALL.len()]> {
    let of = |scope: Scope| counters.get_metric_with_label_values(&[scope.as_str()]);
    Ok([of(Scope::Global)?, of(Scope::Route)?, of(Scope::Pool)?])
}

fn by_scope_gauge(gauges: &IntGaugeVec) -> Result<[IntGauge; Scope::ALL.len()]> {
    let of = |scope: Scope| gauges.get_metric_with_label_values(&[scope.as_str()]);
    Ok([of(Scope::Global)?, of(Scope::Route)?, of(Scope::Pool)?])
}

/// A gauge's number; beyond its range, the largest.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
