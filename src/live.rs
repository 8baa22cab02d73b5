//! The pointer to the current snapshot.
//!
//! A worker's configuration never changes while it runs (a reload is a new worker), so the
//! pointer is for what does change inside a worker: who the members of a pool are. A request
//! takes the snapshot once and keeps it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::runtime::snapshot::Snapshot;

/// The pointer to the current snapshot.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
}

impl Live {
    /// Starts with this snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot) }
    }

    /// The current snapshot, for as long as the caller keeps it.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}
