//! The series of the current snapshot, and the observer of its exchanges.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{Registry, Result};

use crate::exchange::event::{ExchangeEvent, Observer};
use crate::metrics::Metrics;
use crate::metrics::discovery::DiscoveryMetrics;
use crate::metrics::kind::ErrorKind;
use crate::metrics::series::{Families, SeriesTable};
use crate::runtime::snapshot::Snapshot;

/// The series of the current snapshot.
pub(super) struct CurrentSeries {
    families: Families,
    pub(super) discovery: DiscoveryMetrics,
    table: Mutex<Arc<SeriesTable>>,
}

impl CurrentSeries {
    pub(super) fn new(registry: &Registry, snapshot: &Snapshot) -> Result<Self> {
        let families = Families::new(registry)?;
        let table = Mutex::new(Arc::new(SeriesTable::new(&families, snapshot, None)?));
        Ok(Self { families, discovery: DiscoveryMetrics::new(registry)?, table })
    }

    /// Makes the series of a snapshot that replaces the current one.
    pub(super) fn follow(&self, snapshot: &Snapshot) -> Result<()> {
        let mut table = self.table.lock();
        *table = Arc::new(SeriesTable::new(&self.families, snapshot, Some(&table))?);
        Ok(())
    }

    /// Removes the gauges of a backend.
    pub(super) fn remove_gauges(&self, pool: &str, backend: &str) {
        self.families.remove_gauges(pool, backend);
    }

    /// Removes the counters of a backend; returns the sum of its durations, in seconds, and their
    /// number.
    pub(super) fn remove_counters(&self, pool: &str, backend: &str) -> (f64, u64) {
        self.families.remove_counters(pool, backend)
    }

    pub(super) fn table(&self) -> Arc<SeriesTable> {
        Arc::clone(&self.table.lock())
    }
}

/// Counts what happens to the exchanges of one snapshot.
pub struct SnapshotMetrics {
    metrics: Arc<Metrics>,
    table: Arc<SeriesTable>,
}

impl SnapshotMetrics {
    /// For the current snapshot.
    #[must_use]
    pub fn new(metrics: &Arc<Metrics>) -> Self {
        Self { metrics: Arc::clone(metrics), table: metrics.series.table() }
    }
}

impl Observer for SnapshotMetrics {
    fn observe(&self, event: &ExchangeEvent<'_>) {
        let Self { metrics, table } = self;
        match event {
            ExchangeEvent::Connected { took, .. } => metrics.connect.observe(took.as_secs_f64()),
            ExchangeEvent::AttemptFailed { pool, backend, failure, retried } => {
                let kind = ErrorKind::of_attempt(*failure);
                table.series(Some(*pool), Some(*backend)).record_error(&metrics.errors, kind);
                if *retried {
                    table.record_retry(&metrics.retries, *pool, kind);
                }
            }
            ExchangeEvent::Breaker { pool, change } => table.record_breaker(*pool, change),
            ExchangeEvent::RetryBudgetExhausted { pool } => {
                table.record_budget_exhausted(*pool);
            }
            ExchangeEvent::Queued { pool, waited } => {
                table.queue(*pool).into_iter().for_each(|queue| queue.record_wait(*waited));
            }
            ExchangeEvent::QueueRefused { pool, reason } => {
                table.queue(*pool).into_iter().for_each(|queue| queue.record_refusal(*reason));
            }
            ExchangeEvent::Upgraded { pool } => table.record_upgrade(*pool),
            ExchangeEvent::RateLimited(scope) => metrics.limits.record_rate_limit(*scope),
            ExchangeEvent::Shed => metrics.limits.record_shed(),
            ExchangeEvent::Finished(summary) => metrics.finished(table, summary),
        }
    }
}
