//! The pointer to the current snapshot.
//!
//! A worker's configuration never changes: a reload starts a new worker. The pointer exists so that the
//! members of a pool can change within a worker. A request loads the snapshot once and keeps it.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::runtime::snapshot::Snapshot;

/// The pointer to the current snapshot.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
}

impl Live {
    /// Creates the pointer.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot) }
    }

    /// Loads the current snapshot.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}
