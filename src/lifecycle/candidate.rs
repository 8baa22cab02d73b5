//! A worker that was started and does not serve yet.

use std::time::Duration;

use super::worker::Worker;
use super::{Loaded, Payload, WorkerId};
use crate::time::Timestamp;

/// How long an old worker may take to hand over its state.
const HANDOVER_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a worker was started.
#[derive(Debug)]
pub(super) enum Purpose<R> {
    /// To serve the active configuration: at the start, or after a worker died.
    Restart,
    /// To serve what a reload has loaded; these clients wait for the result.
    Reload(Vec<R>),
}

/// How far a candidate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It loads its configuration, looks names up and checks backends.
    Warming,
    /// It is warm, and another candidate takes over at the moment.
    Queued,
    /// It is warm, and the old worker was asked for its state.
    AwaitingState {
        /// When the old worker was asked.
        since: Timestamp,
    },
    /// It was ordered to take over, so it may accept connections already.
    TakingOver,
}

impl Step {
    /// Its name for `weir status`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Warming => "warming",
            Self::Queued | Self::AwaitingState { .. } => "warm",
            Self::TakingOver => "taking_over",
        }
    }

    /// Whether it may accept connections already.
    pub(super) fn may_accept(self) -> bool {
        self == Self::TakingOver
    }

    /// Whether the old worker was asked for its state, so that it needs an order to resume if this one fails.
    pub(super) const fn asked_old_worker(self) -> bool {
        matches!(self, Self::AwaitingState { .. } | Self::TakingOver)
    }
}

/// A worker that does not serve yet.
#[derive(Debug)]
pub(super) struct Candidate<P: Payload> {
    pub(super) worker: Worker,
    pub(super) loaded: Loaded<P::Config>,
    pub(super) purpose: Purpose<P::Caller>,
    pub(super) step: Step,
    /// When it is given up.
    pub(super) ready_deadline: Timestamp,
    /// Why it will not serve. It counts as failed once its process has exited.
    failure: Option<String>,
}

impl<P: Payload> Candidate<P> {
    pub(super) const fn new(
        worker: Worker,
        loaded: Loaded<P::Config>,
        purpose: Purpose<P::Caller>,
        ready_deadline: Timestamp,
    ) -> Self {
        Self { worker, loaded, purpose, step: Step::Warming, ready_deadline, failure: None }
    }

    pub(super) const fn id(&self) -> WorkerId {
        self.worker.id()
    }

    pub(super) const fn is_reload(&self) -> bool {
        matches!(self.purpose, Purpose::Reload(_))
    }

    /// Whether it is about to serve.
    pub(super) fn is_taking_over(&self) -> bool {
        self.step.may_accept() && self.failure.is_none()
    }

    /// Whether it waits for the state of the old worker.
    pub(super) const fn awaits_state(&self) -> bool {
        matches!(self.step, Step::AwaitingState { .. }) && self.failure.is_none()
    }

    /// Whether it waits until another candidate has taken over.
    pub(super) fn is_queued(&self) -> bool {
        self.step == Step::Queued && self.failure.is_none()
    }

    /// Whether it will not serve. A reload is rejected once the process has exited.
    pub(super) const fn is_failed(&self) -> bool {
        self.failure.is_some()
    }

    /// Records why it will not serve. The first reason is the cause.
    pub(super) fn fail(&mut self, why: String) {
        self.failure.get_or_insert(why);
        self.ready_deadline = Timestamp::MAX;
    }

    /// Separates it from its process, which is gone. `why` is the reason unless it has failed before.
    pub(super) fn give_up(self, is_clean: bool, why: String) -> (Worker, Gone<P::Caller>) {
        let why = self.failure.unwrap_or(why);
        (self.worker, Gone { purpose: self.purpose, step: self.step, is_clean, why })
    }

    /// When the old worker has to have handed over, if this one waits for that.
    fn handover_deadline(&self) -> Option<Timestamp> {
        match self.step {
            Step::AwaitingState { since } if !self.is_failed() => Some(since + HANDOVER_TIMEOUT),
            Step::Warming | Step::Queued | Step::AwaitingState { .. } | Step::TakingOver => None,
        }
    }

    /// When something has to be done if nothing happens.
    pub(super) fn deadline(&self) -> Timestamp {
        self.handover_deadline().map_or(self.ready_deadline, |at| at.min(self.ready_deadline))
    }

    /// What has taken too long.
    pub(super) fn late(&self, now: Timestamp) -> Option<Late> {
        if self.ready_deadline <= now {
            return Some(Late::Ready);
        }
        self.handover_deadline().filter(|at| *at <= now).map(|_| Late::Handover)
    }
}

/// What has taken too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The candidate is not ready: it is given up.
    Ready,
    /// The old worker does not hand over: the candidate takes over by the last checkpoint.
    Handover,
}

/// A candidate whose process is gone.
#[derive(Debug)]
pub(super) struct Gone<R> {
    pub(super) purpose: Purpose<R>,
    pub(super) step: Step,
    /// Its exit code was 0.
    pub(super) is_clean: bool,
    /// Why it did not serve.
    pub(super) why: String,
}
