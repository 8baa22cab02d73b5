//! The current snapshot of a worker. It is replaced when the members of a pool change.
//!
//! A request takes it once, at its start, and keeps what it got until it has ended.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::exchange::event::Observer;
use crate::runtime::snapshot::Snapshot;
use crate::time::Timestamp;

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
    /// The sources of backends, by pool and source.
    sources: Mutex<BTreeMap<(String, String), SourceState>>,
}

/// A source of backends, and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownSource {
    /// The pool.
    pub pool: String,
    /// The source, as in the log.
    pub source: String,
    /// What is known of it.
    pub state: SourceState,
}

/// What is known of a source of backends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceState {
    /// How many members of the pool it gives.
    pub backends: usize,
    /// When it was last looked up.
    pub looked_up: Option<Timestamp>,
    /// When it last gave an answer.
    pub answered: Option<Timestamp>,
    /// Who gave it: a name server or a file.
    pub by: String,
    /// How long that answer is valid.
    pub ttl: Duration,
    /// Why the last lookup failed; `None` if it did not.
    pub last_error: Option<String>,
}

impl CurrentSnapshot {
    /// The snapshot that a worker starts with.
    #[must_use]
    pub fn new(snapshot: Arc<Snapshot>, observer: Arc<dyn Observer>) -> Self {
        let serving = ArcSwap::from_pointee(Serving { snapshot, observer });
        Self { serving, replaced: watch::Sender::new(()), sources: Mutex::default() }
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

    /// What is known of a source.
    #[must_use]
    pub fn source(&self, pool: &str, source: &str) -> Option<SourceState> {
        self.sources.lock().get(&(pool.to_owned(), source.to_owned())).cloned()
    }

    /// Records what is known of a source.
    pub fn set_source(&self, pool: String, source: String, state: SourceState) {
        self.sources.lock().insert((pool, source), state);
    }

    /// Every source.
    #[must_use]
    pub fn sources(&self) -> Vec<KnownSource> {
        let sources = self.sources.lock();
        let each = |(key, state): (&(String, String), &SourceState)| {
            let (pool, name) = key;
            KnownSource { pool: pool.clone(), source: name.clone(), state: state.clone() }
        };
        sources.iter().map(each).collect()
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
    fn a_source_is_known_by_its_pool_and_name() {
        let current = CurrentSnapshot::new(fixture::web(), Arc::new(Ignored));
        assert_eq!(current.source("web", "dns a:80"), None);
        let state = SourceState { backends: 3, ..SourceState::default() };
        current.set_source("web".to_owned(), "dns a:80".to_owned(), state.clone());
        assert_eq!(current.source("web", "dns a:80"), Some(state));
        assert_eq!(current.source("api", "dns a:80"), None);
        assert_eq!(current.sources().len(), 1);
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
