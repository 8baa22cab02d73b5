//! The current snapshot of a worker. It is replaced when the members of a pool change.
//!
//! A request takes it once, at its start, and keeps what it got until it has ended.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::exchange::event::Observer;
use crate::runtime::snapshot::Snapshot;

/// What a request takes at its start.
#[derive(Clone)]
pub struct Serving {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// Logs and counts the requests of this snapshot.
    pub observer: Arc<dyn Observer>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Serving").field("snapshot", &self.snapshot).finish_non_exhaustive()
    }
}

/// The current snapshot, with the observer of its requests.
#[derive(Debug)]
pub struct CurrentSnapshot {
    serving: ArcSwap<Serving>,
    replaced: watch::Sender<()>,
}

impl CurrentSnapshot {
    /// The snapshot that a worker starts with.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, observer: Arc<dyn Observer>) -> Self {
        let serving = ArcSwap::from_pointee(Serving { snapshot, observer });
        Self { serving, replaced: watch::Sender::new(()) }
    }

    /// What a request takes at its start.
    #[must_use]
    pub fn serving(&self) -> Serving {
        Serving::clone(&self.serving.load())
    }

    /// The current snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.serving.load().snapshot)
    }

    /// Replaces it for all requests from now on, and notifies the subscribers.
    pub fn replace(&self, serving: Serving) {
        self.serving.store(Arc::new(serving));
        self.replaced.send_replace(());
    }

    /// Is notified of each replacement.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.replaced.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::event::ExchangeEvent;
    use crate::fixture;

    struct Ignored;

    impl Observer for Ignored {
        fn observe(&self, _: &ExchangeEvent<'_>) {}
    }

    #[test]
    fn a_replacement_is_announced_and_leaves_what_was_taken_before() {
        let observer: Arc<dyn Observer> = Arc::new(Ignored);
        let current = CurrentSnapshot::new(fixture::web(), Arc::clone(&observer));
        let replaced = current.subscribe();
        let taken = current.serving();
        let other = taken.snapshot.with_members(|_, _| Some(Vec::new()));
        current.replace(Serving { snapshot: Arc::new(other), observer });
        assert!(replaced.has_changed().unwrap());
        assert_eq!(taken.snapshot.pools[0].members.len(), 2);
        assert!(current.snapshot().pools[0].members.is_empty());
    }
}
