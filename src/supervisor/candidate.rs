//! A worker that was started and does not serve yet.

use std::sync::mpsc::Sender;
use std::time::Duration;

use super::Served;
use super::child::Child;
use super::control::Answer;
use crate::link::{State, ToWorker};
use crate::time::Timestamp;

/// A worker that does not serve yet.
pub(super) struct Candidate {
    pub(super) child: Child,
    pub(super) until: Timestamp,
    /// What it said of its failure.
    pub(super) why: Option<String>,
    pub(super) served: Served,
    pub(super) purpose: Purpose,
    pub(super) step: Step,
    /// When the old worker was asked for its state.
    pub(super) asked: Timestamp,
}

/// How long an old worker may take to hand over.
pub(super) const STATE_MAX: Duration = Duration::from_secs(5);

/// Why a worker is started.
pub(super) enum Purpose {
    /// There is none: at the start, or after one died.
    Restart,
    /// The file may have changed; whoever asked waits for an answer.
    Reload(Vec<Sender<Answer>>),
}

#[derive(PartialEq, Eq)]
pub(super) enum Step {
    /// It loads, looks names up, probes.
    Warming,
    /// The old worker was asked for its state.
    WaitingForState,
    /// It was told to take over.
    TakingOver,
}

impl Candidate {
    pub(super) fn is_waiting_for_state(&self) -> bool {
        self.step == Step::WaitingForState
    }

    pub(super) fn take_over(&mut self, state: &State) {
        self.child.tell(&ToWorker::TakeOver(Box::new(state.clone())));
        self.step = Step::TakingOver;
    }
}
