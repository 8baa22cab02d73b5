//! A worker that was started and does not serve yet.

use std::sync::mpsc::Sender;
use std::time::Duration;

use super::Served;
use super::child::Child;
use super::control::Answer;
use crate::link::{State, ToWorker};
use crate::runtime::handoff::Handoff;
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
    /// What it has found of the backends' host names.
    pub(super) names: Handoff,
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
    /// It could serve, and another one is just taking over.
    Waiting,
    /// The old worker was asked for its state.
    WaitingForState,
    /// It was told to take over.
    TakingOver,
}

impl Step {
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Warming => "warming",
            Self::Waiting | Self::WaitingForState => "warm",
            Self::TakingOver => "taking_over",
        }
    }
}

impl Candidate {
    pub(super) fn is_waiting_for_state(&self) -> bool {
        self.step == Step::WaitingForState
    }

    /// Whether it may accept already.
    pub(super) fn is_taking_over(&self) -> bool {
        self.step == Step::TakingOver
    }

    pub(super) fn take_over(&mut self, state: &State) {
        self.child.tell(&ToWorker::TakeOver(Box::new(state.clone())));
        self.step = Step::TakingOver;
    }

    /// It will not serve: it is ended, and counts as failed when it is gone.
    pub(super) fn fail(&mut self, why: &str) {
        self.why = Some(why.to_owned());
        self.until = Timestamp::MAX;
        self.child.kill();
    }
}
