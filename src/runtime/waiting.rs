//! The attempts that wait for the response headers of one backend.

use std::task::Waker;

use slab::Slab;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// The measured attempts that have no response headers yet.
#[derive(Debug, Default)]
pub struct WaitingAttempts {
    count: AtomicU32,
    /// Of those that could be moved to another backend. They are woken when the circuit breaker takes
    /// the backend out: a timer for each of them would cost more than this.
    movable: Mutex<Slab<Waker>>,
}

impl WaitingAttempts {
    /// Counts one more, until [`Self::subtract`].
    pub fn add(&self) {
        self.count.fetch_add(1, Relaxed);
    }

    /// One has its response headers, or has ended.
    pub fn subtract(&self) {
        self.count.fetch_sub(1, Relaxed);
    }

    /// Their number.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }

    /// Adds one that could be moved, until [`Self::remove`] with the result.
    pub fn insert(&self, waker: Waker) -> usize {
        self.movable.lock().insert(waker)
    }

    /// Removes one.
    pub fn remove(&self, key: usize) {
        let removed = self.movable.lock().try_remove(key);
        drop(removed); // not while it is locked: this may be the last reference to a connection
    }

    /// Wakes all that could be moved.
    pub fn wake_all(&self) {
        self.movable.lock().iter().for_each(|(_, waker)| waker.wake_by_ref());
    }

    /// Whether one could be moved.
    #[cfg(test)]
    pub(crate) fn has_movable(&self) -> bool {
        !self.movable.lock().is_empty()
    }
}
