//! The metrics of the queues, and of requests that found no place at a backend.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Registry, Result,
};

use crate::metrics::register::{counters, gauges, register};
use crate::metrics::signed;
use crate::policy::wait_queue::QueueRefusal;
use crate::runtime::pool::Pool;

/// Buckets of the histogram of waiting, in seconds: from the time limit of `codel` to any reasonable one.
const QUEUE_SECONDS: [f64; 11] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// The value of `reason` for a pool without a queue.
const NO_QUEUE: &str = "no_queue";

/// The families of the series of queues.
pub(super) struct QueueFamilies {
    waiting: IntGaugeVec,
    seconds: HistogramVec,
    refused: IntCounterVec,
}

/// The series of one pool that has a backend with `max_requests`. All exist from the start.
pub(super) struct PoolQueue {
    waiting: IntGauge,    // lb_queue_requests{pool}
    seconds: Histogram,   // lb_queue_seconds{pool}
    no_queue: IntCounter, // lb_queue_refused_total{pool,reason}
    /// In the order of [`QueueRefusal::ALL`].
    refused: Vec<IntCounter>,
}

impl QueueFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let waiting = gauges(
            registry,
            ("lb_queue_requests", "Requests that wait for a place at a backend."),
            &["pool"],
        )?;
        let seconds = register(
            registry,
            HistogramVec::new(
                HistogramOpts::new(
                    "lb_queue_seconds",
                    "Time that requests waited for a place at a backend, served or not.",
                )
                .buckets(QUEUE_SECONDS.to_vec()),
                &["pool"],
            )?,
        )?;
        let refused = counters(
            registry,
            (
                "lb_queue_refused_total",
                "Requests rejected because no backend had a free place, by reason.",
            ),
            &["pool", "reason"],
        )?;
        Ok(Self { waiting, seconds, refused })
    }

    /// The series of one pool.
    pub(super) fn series(&self, pool: &Pool) -> Result<Option<PoolQueue>> {
        if !pool.has_places && pool.waiters.is_none() {
            return Ok(None);
        }
        let name = pool.name.as_str();
        let of = |reason: &str| self.refused.get_metric_with_label_values(&[name, reason]);
        let reasons = QueueRefusal::ALL.iter().map(|reason| of(reason.as_str()));
        Ok(Some(PoolQueue {
            waiting: self.waiting.get_metric_with_label_values(&[name])?,
            seconds: self.seconds.get_metric_with_label_values(&[name])?,
            no_queue: of(NO_QUEUE)?,
            refused: reasons.collect::<Result<_>>()?,
        }))
    }
}

impl PoolQueue {
    /// Counts a request that has waited.
    pub(super) fn record_wait(&self, waited: Duration) {
        self.seconds.observe(waited.as_secs_f64());
    }

    /// Counts a request that was rejected.
    pub(super) fn record_refusal(&self, reason: Option<QueueRefusal>) {
        let Some(reason) = reason else { return self.no_queue.inc() };
        let index = QueueRefusal::ALL.iter().position(|one| *one == reason);
        if let Some(counter) = index.and_then(|index| self.refused.get(index)) {
            counter.inc();
        }
    }

    /// Sets the gauge.
    pub(super) fn refresh(&self, pool: &Pool) {
        let waiting = pool.waiters.as_ref().map_or(0, |waiters| waiters.waiting());
        self.waiting.set(signed(u64::try_from(waiting).unwrap_or(u64::MAX)));
    }
}
