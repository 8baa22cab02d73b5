//! The reports of a draining worker, which its successor adds to its own counts.

use std::sync::Arc;
use std::time::Duration;

use super::Components;
use crate::clock::Clock;
use crate::link::{DrainReport, State};
use crate::metrics::{Counts, Metrics};
use crate::runtime::debits::{Debits, SuccessorBuckets};
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

/// The limiters' tables may have millions of slots. Looking through them takes at most one part in
/// this many of the control thread's time, so large tables are not looked through at every report.
const SCAN_PART: u32 = 20;

/// Reports what the worker has done since its last report.
pub(super) struct DrainReporter {
    metrics: Arc<Metrics>,
    snapshot: Arc<Snapshot>,
    clock: Clock,
    reported: Reported,
}

/// What was sent to the successor.
#[derive(Debug)]
pub(super) struct Reported {
    counts: Counts,
    limits: SuccessorBuckets,
    /// The limiters are not looked through before.
    next_scan: Timestamp,
}

impl Reported {
    /// What this state contains, which was taken at `now`.
    pub(super) fn by(state: &State, now: Timestamp) -> Self {
        let limits = SuccessorBuckets::from_handoff(&state.handoff, now);
        Self { counts: state.counts.clone(), limits, next_scan: now }
    }
}

impl DrainReporter {
    /// `handed_over`: what was sent to the successor. `None`: there is no successor, and nothing that was
    /// done until now is reported.
    pub(super) fn new(
        components: &Components,
        metrics: &Arc<Metrics>,
        handed_over: Option<Reported>,
    ) -> Self {
        let snapshot = components.proxy.current.snapshot();
        let reported = handed_over.unwrap_or_else(|| Reported {
            counts: metrics.export(&snapshot),
            limits: SuccessorBuckets::default(),
            next_scan: Timestamp::ZERO,
        });
        Self { metrics: Arc::clone(metrics), snapshot, clock: components.proxy.clock, reported }
    }

    /// What has been done since the last report.
    pub(super) fn report(&mut self) -> DrainReport {
        let counts = self.metrics.export(&self.snapshot);
        let report =
            DrainReport { counts: counts.since(&self.reported.counts), debits: self.debits() };
        self.reported.counts = counts;
        report
    }

    /// The same, for the last time: however long it takes to look through the limiters.
    pub(super) fn last_report(&mut self) -> DrainReport {
        self.reported.next_scan = Timestamp::ZERO;
        self.report()
    }

    fn debits(&mut self) -> Debits {
        let now = self.clock.now();
        if now < self.reported.next_scan {
            return Debits::default();
        }
        let debits = self.reported.limits.debits(&self.snapshot, now);
        let end = self.clock.now();
        let pause: Duration = end.since(now).saturating_mul(SCAN_PART - 1);
        self.reported.next_scan = end + pause;
        debits
    }
}
