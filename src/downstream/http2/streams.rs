//! The streams that are open on an HTTP/2 connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::{Mutex, MutexGuard};

use crate::downstream::connection_state::Line;
use crate::downstream::tracker::Place;
use crate::exchange::refusal::Abort;
use crate::time::Timestamp;

/// The streams of a connection.
pub(crate) struct Streams {
    open: AtomicUsize,
    /// The lines of those that are open, by the number in `next`.
    lines: Mutex<HashMap<u64, Arc<Line>>>,
    next: AtomicU64,
    /// Of the connection.
    pub(crate) line: Arc<Line>,
    /// The connection is open as long as one of them is.
    _place: Arc<Place>,
}

/// One stream, until it is dropped.
pub(crate) struct Open(Arc<Streams>, u64);

impl Streams {
    /// None yet.
    pub(crate) fn new(line: &Arc<Line>, place: Arc<Place>) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            lines: Mutex::default(),
            next: AtomicU64::new(0),
            line: Arc::clone(line),
            _place: place,
        })
    }

    /// Whether none is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.load(Relaxed) == 0
    }

    /// One more, until it is dropped.
    pub(crate) fn enter(self: &Arc<Self>, line: &Arc<Line>) -> Open {
        self.open.fetch_add(1, Relaxed);
        let number = self.next.fetch_add(1, Relaxed);
        self.lines().insert(number, Arc::clone(line));
        Open(Arc::clone(self), number)
    }

    /// Ends every stream for the reason for which the connection has to end.
    pub(crate) fn cut(&self, now: Timestamp, reason: Abort) {
        for line in self.lines().values() {
            line.cut(now, reason);
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<u64, Arc<Line>>> {
        self.lines.lock()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lines().remove(&self.1);
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.line.wake();
        }
    }
}
