//! The reports of a draining worker, which its successor adds to its own counts.

use std::time::Duration;

use super::lifecycle::Lifecycle;
use crate::link::{DrainReport, State, ToSupervisor};
use crate::metrics::Counts;
use crate::runtime::debits::{Debits, SuccessorBuckets};
use crate::time::Timestamp;

/// The limiters' tables may have millions of slots. Looking through them takes at most one part in
/// this many of the control thread's time, so large tables are not looked through at every report.
const SCAN_PART: u32 = 20;

/// What the successor knows of this worker.
#[derive(Debug)]
pub(super) struct Reported {
    counts: Counts,
    limits: SuccessorBuckets,
    /// The limiters are not looked through before.
    next_scan: Timestamp,
}

impl Reported {
    /// What it knows by this state, which was taken at `now`.
    pub(super) fn by(state: &State, now: Timestamp) -> Self {
        let limits = SuccessorBuckets::from_handoff(&state.handoff, now);
        Self { counts: state.counts.clone(), limits, next_scan: now }
    }
}

impl Lifecycle<'_> {
    /// There is no successor: nothing that was until now is reported.
    pub(super) fn all_reported(&self) -> Reported {
        let limits = SuccessorBuckets::default();
        Reported { counts: self.counts(), limits, next_scan: Timestamp::ZERO }
    }

    /// Reports what has been done since the last report.
    pub(super) fn report(&self, reported: &mut Reported) {
        if self.quiesced {
            return; // it is reported later
        }
        let counts = self.counts();
        let report =
            DrainReport { counts: counts.since(&reported.counts), debits: self.debits(reported) };
        self.send(&ToSupervisor::Draining(Box::new(report), self.open()));
        reported.counts = counts;
    }

    /// The same, for the last time: however long it takes to look through the limiters.
    pub(super) fn report_all(&self, reported: &mut Reported) {
        reported.next_scan = Timestamp::ZERO;
        self.report(reported);
    }

    fn debits(&self, reported: &mut Reported) -> Debits {
        let now = self.components.proxy.clock.now();
        if now < reported.next_scan {
            return Debits::default();
        }
        let debits = reported.limits.debits(&self.components.proxy.snapshot, now);
        let end = self.components.proxy.clock.now();
        let pause: Duration = end.since(now).saturating_mul(SCAN_PART - 1);
        reported.next_scan = end + pause;
        debits
    }

    fn counts(&self) -> Counts {
        self.admin.metrics.export(&self.components.proxy.snapshot)
    }
}
