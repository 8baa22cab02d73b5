//! Every open client connection: how many there are, and that they hear of the draining.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;
use tokio::sync::Notify;

use super::line::Line;
use crate::time::Timestamp;

/// Every open client connection.
#[derive(Debug)]
pub struct Connections {
    lines: Mutex<Lines>,
    next: AtomicU64,
    open: AtomicUsize,
    /// Ended before they were done.
    cut: AtomicUsize,
    gauge: IntGauge,
    emptied: Notify,
}

/// Those that speak HTTP already.
#[derive(Debug, Default)]
struct Lines {
    by_place: HashMap<u64, Arc<Line>>,
    draining_since: Option<Timestamp>,
}

impl Connections {
    /// None yet. Their number is also kept in `gauge`.
    #[must_use]
    pub fn new(gauge: IntGauge) -> Self {
        Self {
            lines: Mutex::default(),
            next: AtomicU64::new(0),
            open: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            gauge,
            emptied: Notify::new(),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Returns once there is none.
    pub async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            let mut emptied = pin!(emptied);
            emptied.as_mut().enable();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Tells every connection that draining has begun, those to come included.
    pub fn drain(&self, now: Timestamp) {
        let mut lines = self.lines();
        let since = *lines.draining_since.get_or_insert(now);
        lines.by_place.values().for_each(|line| line.drain(since));
    }

    /// How many are tunnels, and how many are not.
    pub(super) fn tunnels(&self) -> (usize, usize) {
        let tunnels = self.lines().by_place.values().filter(|line| line.is_tunnel()).count();
        (tunnels, self.open().saturating_sub(tunnels))
    }

    /// Ends those that are no tunnels.
    pub(super) fn cut_others(&self, now: Timestamp) {
        for line in self.lines().by_place.values().filter(|line| !line.is_tunnel()) {
            line.cut(now);
            self.cut.fetch_add(1, Relaxed);
        }
    }

    /// How many had to be cut, or will be if the process ends now.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.open() + self.cut.load(Relaxed)
    }

    /// A place for one more, unless there are `most` already.
    pub(super) fn enter(self: &Arc<Self>, most: usize) -> Option<Place> {
        self.gauge.inc();
        if self.open.fetch_add(1, Relaxed) >= most {
            self.leave();
            return None;
        }
        let id = self.next.fetch_add(1, Relaxed);
        Some(Place { connections: Arc::clone(self), id })
    }

    fn leave(&self) {
        self.gauge.dec();
        if self.open.fetch_sub(1, Relaxed) == 1 {
            self.emptied.notify_waiters();
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection among the others, until it is dropped.
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
}

impl Place {
    /// From now on the line hears of the draining.
    pub(super) fn speaks(&self, line: &Arc<Line>) {
        let mut lines = self.connections.lines();
        if let Some(since) = lines.draining_since {
            line.drain(since);
        }
        lines.by_place.insert(self.id, Arc::clone(line));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lines().by_place.remove(&self.id);
        self.connections.leave();
    }
}
