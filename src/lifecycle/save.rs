//! What of the life cycle goes over to the next image of the supervisor.

use std::time::Duration;

use super::{Counters, RejectedReload, WorkerId};
use crate::policy::operator::OverrideList;

/// What one image of the supervisor leaves to the next. There is no candidate: an upgrade waits
/// until none is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The worker that serves.
    pub current: Option<SavedWorker>,
    /// Workers that drain, oldest first, and for how long they still may.
    pub draining: Vec<(SavedWorker, Duration)>,
    /// What has happened so far.
    pub counters: Counters,
    /// The last reload, if it was rejected.
    pub rejected_reload: Option<RejectedReload>,
    /// What operators have set on backends.
    pub overrides: OverrideList,
    /// Whether a reload waits.
    pub reload_waits: bool,
    /// Whether an upgrade waits.
    pub upgrade_waits: bool,
}

/// A worker that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedWorker {
    /// Its number.
    pub id: WorkerId,
    /// How long it has lived.
    pub age: Duration,
    /// Whether it sends heartbeats.
    pub is_watched: bool,
    /// Whether it applies overrides of backends. Older versions do not.
    pub knows_overrides: bool,
}
