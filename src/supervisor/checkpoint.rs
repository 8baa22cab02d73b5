//! The last known state of the service: what the next worker starts from.

use std::time::Duration;

use crate::link::{DrainReport, State};
use crate::runtime::handoff::Handoff;
use crate::time::Timestamp;

/// The last known state.
pub(super) struct Checkpoint {
    state: State,
    /// When it came.
    at: Timestamp,
    /// Reports of draining workers for which no worker served.
    reports: Vec<DrainReport>,
}

impl Checkpoint {
    pub(super) const fn new(state: State, now: Timestamp) -> Self {
        Self { state, at: now, reports: Vec::new() }
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

    pub(super) fn keep_report(&mut self, report: DrainReport) {
        self.reports.push(report);
    }

    pub(super) fn take_reports(&mut self) -> Vec<DrainReport> {
        std::mem::take(&mut self.reports)
    }
}
