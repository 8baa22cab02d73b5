//! The last known state of the service: what the next worker starts from.

use std::time::Duration;

use crate::link::{DrainReport, State};
use crate::runtime::handoff::Handoff;
use crate::time::Timestamp;

/// How many reports are kept. Each draining worker sends ten a second while it completes requests.
const REPORTS_MAX: usize = 2000;

/// The last known state.
pub(super) struct Checkpoint {
    state: State,
    /// When it came.
    at: Timestamp,
    /// Reports of draining workers for which no worker served.
    reports: Vec<DrainReport>,
    /// Further ones were lost, and that is logged.
    is_full: bool,
}

impl Checkpoint {
    pub(super) const fn new(state: State, now: Timestamp) -> Self {
        Self { state, at: now, reports: Vec::new(), is_full: false }
    }

    pub(super) fn store(&mut self, state: State, now: Timestamp) {
        self.state.update(state);
        self.at = now;
    }

    /// The state, which contains how old it is by now.
    pub(super) fn aged(&self, now: Timestamp) -> State {
        let mut state = self.state.clone();
        state.handoff.add_age(self.age(now));
        state
    }

    /// The part of it that a worker needs while it starts. The rest comes when it takes over.
    pub(super) fn for_start(&self, now: Timestamp) -> State {
        let mut handoff = self.state.handoff.without_buckets();
        handoff.add_age(self.age(now));
        let (tickets, files) = (self.state.tickets.clone(), self.state.files.clone());
        State { handoff, tickets, files, ..State::default() }
    }

    fn age(&self, now: Timestamp) -> Duration {
        now.since(self.at)
    }

    pub(super) fn forget_in_flight(&mut self) {
        self.state.counts.forget_in_flight();
    }

    /// Takes over the host names of a worker that serves now. Returns what changed, for operators.
    pub(super) fn adopt_names(&mut self, names: Handoff) -> Vec<String> {
        let changes = self.state.handoff.report_names(&names);
        self.state.handoff.replace_names(names);
        changes
    }

    /// Keeps a report of a draining worker. Most say nothing new, and a service that cannot start a
    /// worker for long must not collect them without end.
    pub(super) fn keep_report(&mut self, report: DrainReport) {
        if report.is_empty() {
            return;
        }
        if self.reports.len() < REPORTS_MAX {
            self.reports.push(report);
        } else if !std::mem::replace(&mut self.is_full, true) {
            log::warn!(
                "counts of draining workers lost: no worker serves for too long, kept={REPORTS_MAX}"
            );
        }
    }

    pub(super) fn take_reports(&mut self) -> Vec<DrainReport> {
        self.is_full = false;
        std::mem::take(&mut self.reports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counts;

    fn report(sums: &str) -> DrainReport {
        let counts: Counts = serde_json::from_str(sums).unwrap();
        DrainReport { counts, ..DrainReport::default() }
    }

    #[test]
    fn a_worker_that_starts_gets_neither_buckets_nor_counts() {
        let limiter = r#"{"scope":"Global","ipv6_prefix":64,"buckets":"AgM"}"#;
        let text = format!(
            r#"{{"handoff":{{"seed":9,"limiters":[{limiter}]}},"counts":{{"sums":{{"succeeded":7}}}}}}"#
        );
        let mut checkpoint = Checkpoint::new(State::default(), Timestamp::ZERO);
        checkpoint.store(serde_json::from_str(&text).unwrap(), Timestamp::ZERO);
        let now = Timestamp::ZERO + Duration::from_secs(3);
        let (all, start) = (checkpoint.aged(now), checkpoint.for_start(now));
        assert_ne!(all.handoff, all.handoff.without_buckets());
        assert_eq!(start.handoff, all.handoff.without_buckets());
        assert_eq!((all.counts.is_empty(), start.counts.is_empty()), (false, true));
    }

    #[test]
    fn reports_are_kept_until_a_worker_serves_but_neither_empty_ones_nor_without_end() {
        let mut checkpoint = Checkpoint::new(State::default(), Timestamp::ZERO);
        checkpoint.keep_report(DrainReport::default());
        assert!(checkpoint.take_reports().is_empty());
        for _ in 0..REPORTS_MAX + 100 {
            checkpoint.keep_report(report(r#"{"sums":{"succeeded":1}}"#));
        }
        assert_eq!(checkpoint.take_reports().len(), REPORTS_MAX);
        assert!(checkpoint.take_reports().is_empty());
    }
}
