//! What can be seen of the service from outside, for `weir status` and the log.

use std::time::Duration;

use super::candidate::Step;
use super::{Counters, Loaded, RejectedReload, WorkerId};

/// A worker, as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerView {
    /// Its number.
    pub id: WorkerId,
    /// What it does.
    pub role: Role,
    /// How long it has lived.
    pub age: Duration,
    /// How long it has sent nothing, if that is suspicious.
    pub silent: Option<Duration>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It serves.
    Serving,
    /// It is a candidate, this far.
    Candidate(Step),
    /// It drains.
    Draining,
}

/// The service, as an operator sees it.
#[derive(Debug)]
pub struct View<'a, C> {
    /// What is served.
    pub active: &'a Loaded<C>,
    /// What has happened so far.
    pub counters: Counters,
    /// Why the last upgrade was rejected, if one was.
    pub rejected_upgrade: Option<&'a str>,
    /// The last reload, if it was rejected.
    pub rejected_reload: Option<RejectedReload>,
    /// Every worker: the one that serves, candidates, and those that drain, oldest first.
    pub workers: Vec<WorkerView>,
    /// When no worker serves: how long until the next one is started, if none is on its way.
    pub restart_in: Option<Duration>,
}

impl<C> View<'_, C> {
    /// The worker that serves.
    #[must_use]
    pub fn current(&self) -> Option<&WorkerView> {
        self.workers.iter().find(|worker| worker.role == Role::Serving)
    }

    /// The workers that drain, oldest first.
    pub fn draining(&self) -> impl Iterator<Item = WorkerId> {
        let draining = self.workers.iter().filter(|worker| worker.role == Role::Draining);
        draining.map(|worker| worker.id)
    }

    /// Whether a worker serves and makes progress.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.current().is_some_and(|current| current.silent.is_none())
    }
}
