//! The open streams of an HTTP/2 connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use crate::downstream::connection_state::ConnectionState;
use crate::downstream::tracker::ConnectionPermit;
use crate::exchange::refusal::Abort;
use crate::time::Timestamp;

/// The open streams of a connection.
pub(crate) struct StreamTracker {
    open: AtomicUsize,
    /// The states of the open streams, by number.
    states: Mutex<HashMap<u64, Arc<ConnectionState>>>,
    next: AtomicU64,
    /// The state of the connection.
    pub(crate) state: Arc<ConnectionState>,
    /// The connection counts as open while a stream is.
    _permit: Arc<ConnectionPermit>,
}

/// An open stream, until it is dropped.
pub(crate) struct StreamGuard(Arc<StreamTracker>, u64);

impl StreamTracker {
    /// Without streams.
    pub(crate) fn new(state: &Arc<ConnectionState>, permit: Arc<ConnectionPermit>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            states: Mutex::default(),
            next: AtomicU64::new(0),
            state: Arc::clone(state),
            _permit: permit,
        })
    }

    /// Whether no stream is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.load(Relaxed) == 0
    }

    /// Counts one more stream until the guard is dropped.
    pub(crate) fn open_stream(self: &Arc<Self>, state: &Arc<ConnectionState>) -> StreamGuard {
        self.open.fetch_add(1, Relaxed);
        let number = self.next.fetch_add(1, Relaxed);
        self.states().insert(number, Arc::clone(state));
        StreamGuard(Arc::clone(self), number)
    }

    /// Closes all streams by force, for the reason for which the connection is closed.
    pub(crate) fn force_close(&self, now: Timestamp, reason: Abort) {
        for state in self.states().values() {
            state.force_close(now, reason);
        }
    }

    fn states(&self) -> MutexGuard<'_, HashMap<u64, Arc<ConnectionState>>> {
        self.states.lock()
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.0.states().remove(&self.1);
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.state.wake();
        }
    }
}
