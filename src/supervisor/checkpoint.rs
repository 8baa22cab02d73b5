//! The last known state of the service: what the next worker starts from.

use std::time::Duration;

use crate::link::State;
use crate::runtime::handoff::Handoff;
use crate::time::Timestamp;

/// The last known state.
pub(super) struct Checkpoint {
    state: State,
    /// When it came.
    at: Timestamp,
}

impl Checkpoint {
    pub(super) const fn new(state: State, now: Timestamp) -> Self {
        Self { state, at: now }
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
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
