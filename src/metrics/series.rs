//! The handles of the series that exist for each (pool, backend).
//!
//! A request is counted in one of three places: for a backend, for a pool without a backend, or
//! without a pool. Each place has its [`RequestSeries`], found by index.

use std::sync::{Arc, OnceLock};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, Result,
};

use crate::http::metric_label::{MethodLabel, StatusLabel};
use crate::metrics::breaker::{BreakerFamilies, PoolBreakers};
use crate::metrics::queue::{PoolQueue, QueueFamilies};
use crate::metrics::register::{counters, gauges, register};
use crate::metrics::{ErrorKind, discovery, signed};
use crate::runtime::backend::Member;
use crate::runtime::breakers::BreakerChange;
use crate::runtime::ids::{BackendId, PoolId, PoolMap};
use crate::runtime::pool::Pool;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// Buckets of the request histogram, in seconds: from a response out of memory on the same network
/// to one step beyond the longest default timeout.
const REQUEST_SECONDS: [f64; 19] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// The label value for no backend, or no pool.
const NO_LABEL: &str = "";

/// The families of a table's series.
pub(super) struct Families {
    pub(super) duration: HistogramVec,
    pub(super) up: IntGaugeVec,
    pub(super) active: IntGaugeVec,
    pub(super) weight: GaugeVec,
    pub(super) unresolved: IntGaugeVec,
    pub(super) healthy: IntGaugeVec,
    pub(super) tunnels: IntGaugeVec,
    pub(super) tunnelled: IntCounterVec,
    pub(super) budget_exhausted: IntCounterVec,
    pub(super) breakers: BreakerFamilies,
    pub(super) queues: QueueFamilies,
}

impl Families {
    /// Those of every (pool, backend), and of each pool.
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            duration: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "lb_request_duration_seconds",
                        "Time from the first byte of a request to the last byte of its response.",
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
                ("lb_backend_in_flight_requests", "Requests in flight to a backend."),
                &["pool", "backend"],
            )?,
            weight: register(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "lb_backend_weight",
                        "Effective weight of a backend: its weight, reduced during a slow start.",
                    ),
                    &["pool", "backend"],
                )?,
            )?,
            unresolved: gauges(
                registry,
                ("lb_backend_unresolved", "Whether the host name of a backend is not resolved."),
                &["pool", "backend"],
            )?,
            healthy: gauges(
                registry,
                ("lb_healthy_backends", "Healthy backends of a pool."),
                &["pool"],
            )?,
            tunnels: gauges(registry, ("lb_tunnels", "Open WebSockets."), &["pool"])?,
            tunnelled: counters(
                registry,
                ("lb_tunnels_total", "Requests upgraded to a WebSocket."),
                &["pool"],
            )?,
            budget_exhausted: counters(
                registry,
                (
                    "lb_retry_budget_exhausted_total",
                    "Failed attempts that were not retried because the retry budget was exhausted.",
                ),
                &["pool"],
            )?,
            breakers: BreakerFamilies::new(registry)?,
            queues: QueueFamilies::new(registry)?,
        })
    }
}

impl Families {
    pub(super) fn remove_gauges(&self, pool: &str, backend: &str) {
        for family in [&self.up, &self.active, &self.unresolved] {
            discovery::remove(family, pool, backend);
        }
        self.breakers.remove_gauges(pool, backend);
    }

    pub(super) fn remove_counters(&self, pool: &str, backend: &str) -> (f64, u64) {
        let durations = self.duration.get_metric_with_label_values(&[pool, backend]);
        let sums = durations.map_or((0.0, 0), |it| (it.get_sample_sum(), it.get_sample_count()));
        discovery::remove(&self.duration, pool, backend);
        self.breakers.remove_counters(pool, backend);
        sums
    }
}

/// All series of one snapshot, by the ids that exchanges use.
///
/// A pool beyond the snapshot is counted as no pool, so a series is never created.
pub(super) struct SeriesTable {
    /// Those of a pool are shared with the table before if its members are the same.
    pools: PoolMap<Arc<PoolSeries>>,
    no_pool: RequestSeries,
}

struct PoolSeries {
    name: Arc<str>,
    /// The members that `backends` are for.
    members: Arc<[Member]>,
    backends: Vec<(RequestSeries, BackendGauges)>,
    no_backend: RequestSeries,
    healthy: IntGauge,
    tunnels: IntGauge,
    tunnelled: IntCounter,
    /// If the pool has a retry budget.
    budget_exhausted: Option<IntCounter>,
    /// The same ones for every snapshot.
    retries: Arc<[LazyCounter; ErrorKind::COUNT]>,
    breakers: PoolBreakers,
    /// If a backend of the pool has `max_requests`.
    queue: Option<PoolQueue>,
}

struct BackendGauges {
    up: IntGauge,
    active: IntGauge,
    weight: Gauge,
    /// For a backend with a host name.
    unresolved: Option<IntGauge>,
}

/// The counters of one place.
pub(super) struct RequestSeries {
    pool: Arc<str>,
    backend: Arc<str>,
    duration: Histogram,
    errors: [LazyCounter; ErrorKind::COUNT],
    /// By status and method; created with the first request, because a configuration may have many
    /// unused backends.
    requests: OnceLock<Box<[LazyCounter]>>,
}

/// A counter that is looked up at its first use.
#[derive(Default)]
struct LazyCounter(OnceLock<Option<IntCounter>>);

impl LazyCounter {
    fn inc(&self, family: &IntCounterVec, labels: &[&str]) {
        // A family rejects only a wrong number of labels, and these are written next to it.
        let counter = self.0.get_or_init(|| family.get_metric_with_label_values(labels).ok());
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    fn get(&self) -> u64 {
        self.0.get().and_then(Option::as_ref).map_or(0, IntCounter::get)
    }
}

impl SeriesTable {
    /// `before`: the table of the snapshot that this one replaces.
    pub(super) fn new(
        families: &Families,
        snapshot: &Snapshot,
        before: Option<&Self>,
    ) -> Result<Self> {
        let series = |(id, pool): (PoolId, &Pool)| {
            let before = before.and_then(|before| before.pools.get(id));
            let same = before.filter(|before| Arc::ptr_eq(&before.members, &pool.members));
            if let Some(same) = same {
                return Ok(Arc::clone(same));
            }
            let retries = before.map(|before| Arc::clone(&before.retries));
            PoolSeries::new(families, pool, retries.unwrap_or_default()).map(Arc::new)
        };
        let pools = snapshot.pools.entries().map(series).collect::<Result<PoolMap<_>>>()?;
        let no_label: Arc<str> = NO_LABEL.into();
        Ok(Self { pools, no_pool: RequestSeries::new(families, &no_label, &no_label)? })
    }

    /// The series for a request with this pool and this last backend.
    pub(super) fn series(
        &self,
        pool: Option<PoolId>,
        backend: Option<BackendId>,
    ) -> &RequestSeries {
        let Some(pool) = pool.and_then(|id| self.pools.get(id)) else {
            return &self.no_pool;
        };
        let backend = backend.and_then(|id| pool.backends.get(id.position()));
        backend.map_or(&pool.no_backend, |(series, _)| series)
    }

    /// Counts a retry in this pool.
    pub(super) fn record_retry(&self, family: &IntCounterVec, pool: PoolId, kind: ErrorKind) {
        if let Some(pool) = self.pools.get(pool)
            && let Some(counter) = pool.retries.get(kind.index())
        {
            counter.inc(family, &[&*pool.name, kind.as_str()]);
        }
    }

    /// Counts an upgrade to WebSocket in this pool.
    pub(super) fn record_upgrade(&self, pool: PoolId) {
        if let Some(pool) = self.pools.get(pool) {
            pool.tunnelled.inc();
        }
    }

    /// Counts an attempt that was not retried because the retry budget was exhausted.
    pub(super) fn record_budget_exhausted(&self, pool: PoolId) {
        let counter = self.pools.get(pool).and_then(|pool| pool.budget_exhausted.as_ref());
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    /// Counts a change of a circuit breaker in this pool.
    pub(super) fn record_breaker(&self, pool: PoolId, change: &BreakerChange) {
        if let Some(pool) = self.pools.get(pool) {
            pool.breakers.record(change);
        }
    }

    /// The series of the queue of this pool.
    pub(super) fn queue(&self, pool: PoolId) -> Option<&PoolQueue> {
        self.pools.get(pool)?.queue.as_ref()
    }

    /// Attempts after the first, in all pools.
    pub(super) fn retries(&self) -> u64 {
        self.pools.iter().flat_map(|pool| &*pool.retries).map(LazyCounter::get).sum()
    }

    /// The sum of all durations, in seconds, and their number.
    pub(super) fn durations(&self) -> (f64, u64) {
        let (mut sum, mut count) = (0.0, 0_u64);
        for series in self.all() {
            sum += series.duration.get_sample_sum();
            count += series.duration.get_sample_count();
        }
        (sum, count)
    }

    fn all(&self) -> impl Iterator<Item = &RequestSeries> {
        let backends = self.pools.iter().flat_map(|pool| &pool.backends).map(|(series, _)| series);
        let pools = self.pools.iter().map(|pool| &pool.no_backend);
        backends.chain(pools).chain([&self.no_pool])
    }

    /// Sets the gauges from the snapshot that the table was made for.
    pub(super) fn refresh(&self, snapshot: &Snapshot, now: Timestamp) {
        for (series, pool) in self.pools.iter().zip(&snapshot.pools) {
            pool.balancing.refresh(&pool.members, now);
            let mut healthy = 0;
            for ((_, gauges), member) in series.backends.iter().zip(&*series.members) {
                let up = i64::from(member.backend.is_healthy());
                healthy += up;
                gauges.up.set(up);
                gauges.active.set(signed(member.backend.in_flight()));
                gauges.weight.set(member.backend.weight.units());
                if let Some(unresolved) = &gauges.unresolved {
                    unresolved.set(i64::from(member.backend.address().is_none()));
                }
            }
            series.healthy.set(healthy);
            series.tunnels.set(signed(pool.tunnels.open()));
            series.breakers.refresh(&series.members, now);
            if let Some(queue) = &series.queue {
                queue.refresh(pool);
            }
        }
    }
}

impl PoolSeries {
    fn new(
        families: &Families,
        pool: &Pool,
        retries: Arc<[LazyCounter; ErrorKind::COUNT]>,
    ) -> Result<Self> {
        let name: Arc<str> = pool.name.as_str().into();
        let mut backends = Vec::with_capacity(pool.members.len());
        for member in &*pool.members {
            let label = &member.backend.label;
            let labels: [&str; 2] = [&name, label];
            let is_named = member.backend.endpoint.host().is_some();
            let unresolved =
                is_named.then(|| families.unresolved.get_metric_with_label_values(&labels));
            let gauges = BackendGauges {
                unresolved: unresolved.transpose()?,
                up: families.up.get_metric_with_label_values(&labels)?,
                active: families.active.get_metric_with_label_values(&labels)?,
                weight: families.weight.get_metric_with_label_values(&labels)?,
            };
            backends.push((RequestSeries::new(families, &name, label)?, gauges));
        }
        let exhausted = || families.budget_exhausted.get_metric_with_label_values(&[&*name]);
        let budget_exhausted = pool.retry_budget.as_ref().map(|_| exhausted()).transpose()?;
        Ok(Self {
            budget_exhausted,
            no_backend: RequestSeries::new(families, &name, &NO_LABEL.into())?,
            healthy: families.healthy.get_metric_with_label_values(&[&*name])?,
            tunnels: families.tunnels.get_metric_with_label_values(&[&*name])?,
            tunnelled: families.tunnelled.get_metric_with_label_values(&[&*name])?,
            breakers: families.breakers.series(pool)?,
            queue: families.queues.series(pool)?,
            retries,
            members: Arc::clone(&pool.members),
            backends,
            name,
        })
    }
}

impl RequestSeries {
    fn new(families: &Families, pool: &Arc<str>, backend: &Arc<str>) -> Result<Self> {
        Ok(Self {
            duration: families.duration.get_metric_with_label_values(&[&**pool, &**backend])?,
            pool: Arc::clone(pool),
            backend: Arc::clone(backend),
            errors: Default::default(),
            requests: OnceLock::new(),
        })
    }

    /// Counts a completed request.
    pub(super) fn record_response(
        &self,
        family: &IntCounterVec,
        method: MethodLabel,
        status: StatusLabel,
    ) {
        let counters = self.requests.get_or_init(|| {
            std::iter::repeat_with(LazyCounter::default)
                .take(MethodLabel::COUNT * StatusLabel::COUNT)
                .collect()
        });
        if let Some(counter) = counters.get(status.index() * MethodLabel::COUNT + method.index()) {
            counter.inc(family, &[&*self.pool, &*self.backend, method.as_str(), status.as_str()]);
        }
    }

    /// Records the duration of a request.
    pub(super) fn record_duration(&self, seconds: f64) {
        self.duration.observe(seconds);
    }

    /// Counts an error.
    pub(super) fn record_error(&self, family: &IntCounterVec, kind: ErrorKind) {
        if let Some(counter) = self.errors.get(kind.index()) {
            counter.inc(family, &[&*self.pool, &*self.backend, kind.as_str()]);
        }
    }
}
