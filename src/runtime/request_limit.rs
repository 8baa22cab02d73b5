//! Counts the requests that a worker handles at the same time, up to a limit (`limits.requests`).

use std::num::NonZeroU32;
use std::sync::Arc;

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A limit on requests in progress.
#[derive(Debug)]
pub struct RequestLimit {
    max: NonZeroU32,
    in_progress: Arc<AtomicU32>,
}

impl RequestLimit {
    /// At most `max` requests at the same time.
    #[must_use]
    pub fn new(max: NonZeroU32) -> Self {
        Self { max, in_progress: Arc::default() }
    }

    /// Counts one more request, until the guard is dropped; `None` if there are as many as there may be.
    #[must_use]
    pub fn enter(&self) -> Option<RequestGuard> {
        // Never above the limit, not even for a moment: a request that is rejected must not make another
        // one be rejected for which a place has just become free.
        let more = |count: u32| (count < self.max.get()).then(|| count.saturating_add(1));
        self.in_progress.fetch_update(Relaxed, Relaxed, more).ok()?;
        Some(RequestGuard { in_progress: Arc::clone(&self.in_progress) })
    }

    /// The maximum number of requests in progress.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max.get()
    }

    /// The number of requests in progress.
    #[must_use]
    pub fn in_progress(&self) -> u32 {
        self.in_progress.load(Relaxed)
    }
}

/// One request in progress. Only dropping it ends the count.
#[derive(Debug)]
pub struct RequestGuard {
    in_progress: Arc<AtomicU32>,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.in_progress.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_enter_at_the_same_time_never_exceed_the_limit_and_leave_nothing() {
        let limit = RequestLimit::new(NonZeroU32::new(3).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let guard = limit.enter();
                        assert!(limit.in_progress() <= limit.max());
                        drop(guard);
                    }
                });
            }
        });
        assert_eq!(limit.in_progress(), 0);
        let guards: Vec<_> = std::iter::from_fn(|| limit.enter()).collect();
        assert_eq!((guards.len(), limit.in_progress()), (3, 3));
    }
}
