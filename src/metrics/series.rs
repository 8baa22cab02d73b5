//! The handles of the series that exist once for each (pool, backend).
//!
//! Three kinds of place can answer a request: a backend, a pool none of whose backends was tried,
//! and the balancer before it knew a pool. Each has its [`Series`], found by index.

use std::sync::{Arc, OnceLock};

use prometheus::{
    Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Result,
};

use crate::http::label::{MethodLabel, StatusLabel};
use crate::metrics::{ErrorKind, signed};
use crate::runtime::snapshot::Snapshot;

/// What a place that is not a backend, or not in a pool, has as its label.
const NOBODY: &str = "";

/// The families that a table's series belong to.
pub(super) struct Families {
    pub(super) duration: HistogramVec,
    pub(super) up: IntGaugeVec,
    pub(super) active: IntGaugeVec,
    pub(super) unresolved: IntGaugeVec,
    pub(super) healthy: IntGaugeVec,
    pub(super) tunnels: IntGaugeVec,
    pub(super) tunnelled: IntCounterVec,
}

/// Every series of one snapshot, at the indices that exchanges know.
///
/// It is made for the pools and backends of the snapshot that a worker starts with. An index
/// beyond it is counted where no pool is known: a series is never invented.
pub(super) struct Table {
    pools: Vec<PoolSeries>,
    no_pool: Series,
}

struct PoolSeries {
    name: Arc<str>,
    backends: Vec<(Series, BackendGauges)>,
    no_backend: Series,
    healthy: IntGauge,
    tunnels: IntGauge,
    tunnelled: IntCounter,
    retries: [Cell; ErrorKind::COUNT],
}

struct BackendGauges {
    up: IntGauge,
    active: IntGauge,
    /// Of one that has a name.
    unresolved: Option<IntGauge>,
}

/// The counters of one place where requests are answered.
pub(super) struct Series {
    pool: Arc<str>,
    backend: Arc<str>,
    duration: Histogram,
    errors: [Cell; ErrorKind::COUNT],
    /// By status and method; made with the first request, because a file may name many backends
    /// that are never used.
    requests: OnceLock<Box<[Cell]>>,
}

/// A counter that is looked up when it is first counted.
#[derive(Default)]
struct Cell(OnceLock<Option<IntCounter>>);

impl Cell {
    fn inc(&self, family: &IntCounterVec, labels: &[&str]) {
        // A family refuses only labels of the wrong number, and these are written next to it.
        let counter = self.0.get_or_init(|| family.get_metric_with_label_values(labels).ok());
        if let Some(counter) = counter {
            counter.inc();
        }
    }

    fn get(&self) -> u64 {
        self.0.get().and_then(Option::as_ref).map_or(0, IntCounter::get)
    }
}

impl Table {
    pub(super) fn new(families: &Families, snapshot: &Snapshot) -> Result<Self> {
        let nobody: Arc<str> = NOBODY.into();
        let mut pools = Vec::with_capacity(snapshot.pools.len());
        for pool in &snapshot.pools {
            let name: Arc<str> = pool.name.as_str().into();
            let mut backends = Vec::with_capacity(pool.members.len());
            for member in &pool.members {
                let label = &member.backend.label;
                let labels: [&str; 2] = [&name, label];
                let is_named = member.backend.endpoint.host().is_some();
                let unresolved =
                    is_named.then(|| families.unresolved.get_metric_with_label_values(&labels));
                let gauges = BackendGauges {
                    unresolved: unresolved.transpose()?,
                    up: families.up.get_metric_with_label_values(&labels)?,
                    active: families.active.get_metric_with_label_values(&labels)?,
                };
                backends.push((Series::new(families, &name, label)?, gauges));
            }
            pools.push(PoolSeries {
                no_backend: Series::new(families, &name, &nobody)?,
                healthy: families.healthy.get_metric_with_label_values(&[&*name])?,
                tunnels: families.tunnels.get_metric_with_label_values(&[&*name])?,
                tunnelled: families.tunnelled.get_metric_with_label_values(&[&*name])?,
                retries: Default::default(),
                backends,
                name,
            });
        }
        Ok(Self { pools, no_pool: Series::new(families, &nobody, &nobody)? })
    }

    /// Where an exchange belongs that got so far.
    pub(super) fn series(&self, pool: Option<usize>, backend: Option<usize>) -> &Series {
        let Some(pool) = pool.and_then(|index| self.pools.get(index)) else {
            return &self.no_pool;
        };
        let backend = backend.and_then(|index| pool.backends.get(index));
        backend.map_or(&pool.no_backend, |(series, _)| series)
    }

    /// Counts another attempt, in this pool.
    pub(super) fn retried(&self, family: &IntCounterVec, pool: usize, kind: ErrorKind) {
        if let Some(pool) = self.pools.get(pool)
            && let Some(cell) = pool.retries.get(kind.index())
        {
            cell.inc(family, &[&*pool.name, kind.as_str()]);
        }
    }

    /// Counts another tunnel, in this pool.
    pub(super) fn tunnelled(&self, pool: usize) {
        if let Some(pool) = self.pools.get(pool) {
            pool.tunnelled.inc();
        }
    }

    /// Attempts after the first, in all pools.
    pub(super) fn retries(&self) -> u64 {
        self.pools.iter().flat_map(|pool| &pool.retries).map(Cell::get).sum()
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

    fn all(&self) -> impl Iterator<Item = &Series> {
        let backends = self.pools.iter().flat_map(|pool| &pool.backends).map(|(series, _)| series);
        let pools = self.pools.iter().map(|pool| &pool.no_backend);
        backends.chain(pools).chain([&self.no_pool])
    }

    /// Sets the gauges to what the snapshot says now.
    pub(super) fn refresh(&self, snapshot: &Snapshot) {
        for (series, pool) in self.pools.iter().zip(&snapshot.pools) {
            let mut healthy = 0;
            for ((_, gauges), member) in series.backends.iter().zip(&pool.members) {
                let up = i64::from(member.backend.is_healthy());
                healthy += up;
                gauges.up.set(up);
                gauges.active.set(signed(member.backend.in_flight()));
                if let Some(unresolved) = &gauges.unresolved {
                    unresolved.set(i64::from(member.backend.address().is_none()));
                }
            }
            series.healthy.set(healthy);
            series.tunnels.set(signed(pool.tunnels.open()));
        }
    }
}

impl Series {
    fn new(families: &Families, pool: &Arc<str>, backend: &Arc<str>) -> Result<Self> {
        Ok(Self {
            duration: families.duration.get_metric_with_label_values(&[&**pool, &**backend])?,
            pool: Arc::clone(pool),
            backend: Arc::clone(backend),
            errors: Default::default(),
            requests: OnceLock::new(),
        })
    }

    /// Counts an answer.
    pub(super) fn answered(
        &self,
        family: &IntCounterVec,
        method: MethodLabel,
        status: StatusLabel,
    ) {
        let cells = self.requests.get_or_init(|| {
            std::iter::repeat_with(Cell::default)
                .take(MethodLabel::COUNT * StatusLabel::COUNT)
                .collect()
        });
        if let Some(cell) = cells.get(status.index() * MethodLabel::COUNT + method.index()) {
            cell.inc(family, &[&*self.pool, &*self.backend, method.as_str(), status.as_str()]);
        }
    }

    /// Counts how long an exchange took.
    pub(super) fn took(&self, seconds: f64) {
        self.duration.observe(seconds);
    }

    /// Counts an error.
    pub(super) fn went_wrong(&self, family: &IntCounterVec, kind: ErrorKind) {
        if let Some(cell) = self.errors.get(kind.index()) {
            cell.inc(family, &[&*self.pool, &*self.backend, kind.as_str()]);
        }
    }
}
