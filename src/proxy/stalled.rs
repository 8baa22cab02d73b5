//! Responses that wait for their clients: how many there may be, and which are ended when there are
//! more.
//!
//! Each of them holds what its backend has sent and its client does not take. How much that is has a
//! bound ([`HELD`]), so a bound of their number bounds the memory of all of them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{IntCounter, IntGauge};

use super::line::Line;
use crate::clock::Clock;
use crate::metrics::ConnectionMetrics;
use crate::time::Timestamp;

/// What one response holds at most, in bytes, while its client takes nothing: ten pieces from its
/// backend (`upstream::bounded`), the buffer that they are read into, what HTTP/2 has taken of it, and
/// the connection itself. Measured: 351 KiB over HTTP/1, 257 KiB for a stream of HTTP/2.
const HELD: u64 = 384 * 1024;

/// A client that has taken something within this time is slow, and not stalled.
const SLOW: Duration = Duration::from_secs(5);

/// How often to look while there are too many.
const LOOK: Duration = Duration::from_millis(500);

/// Responses that wait for their clients.
pub(super) struct Stalled {
    waiting: Mutex<Waiting>,
    most: usize,
    clock: Clock,
    gauge: IntGauge,
    ended: IntCounter,
}

#[derive(Default)]
struct Waiting {
    /// By when they began to wait.
    lines: BTreeMap<(Timestamp, u64), Arc<Line>>,
    next: u64,
    /// Somebody looks from time to time whether there are too many.
    is_watched: bool,
}

impl Stalled {
    /// All of them together may hold `bytes`; `None` is for no bound.
    pub(super) fn new(bytes: Option<u64>, clock: Clock, metrics: &ConnectionMetrics) -> Arc<Self> {
        let most = bytes.map_or(u64::MAX, |bytes| (bytes / HELD).max(1));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let (gauge, ended) = (metrics.stalled.clone(), metrics.stalled_ended.clone());
        Arc::new(Self { waiting: Mutex::default(), most, clock, gauge, ended })
    }

    /// A response waits for its client from now on, until the ticket is dropped.
    pub(super) fn enter(self: &Arc<Self>, line: &Arc<Line>) -> Ticket {
        let now = self.clock.now();
        let mut waiting = self.waiting();
        let key = (now, waiting.next);
        waiting.next += 1;
        waiting.lines.insert(key, Arc::clone(line));
        self.gauge.inc();
        if waiting.lines.len() > self.most && !std::mem::replace(&mut waiting.is_watched, true) {
            tokio::spawn(Arc::clone(self).watch());
        }
        Ticket { stalled: Arc::clone(self), key }
    }

    /// Ends those that have waited for the longest, until there are few enough.
    async fn watch(self: Arc<Self>) {
        while self.are_too_many() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn are_too_many(&self) -> bool {
        let mut waiting = self.waiting();
        waiting.is_watched = waiting.lines.len() > self.most;
        if waiting.is_watched {
            self.end_the_oldest(&waiting);
        }
        waiting.is_watched
    }

    fn end_the_oldest(&self, waiting: &Waiting) {
        let now = self.clock.now();
        // Those that were given up are about to end.
        let open = || waiting.lines.iter().filter(|(_, line)| !line.was_given_up());
        let excess = open().count().saturating_sub(self.most);
        let is_stalled = |since: Timestamp| since + SLOW <= now;
        let oldest = open().take(excess).take_while(|((since, _), _)| is_stalled(*since));
        let mut ended = 0_u64;
        for (_, line) in oldest {
            line.give_up();
            ended += 1;
        }
        self.ended.inc_by(ended);
        if ended > 0 {
            log::warn!(
                "responses ended, their clients take nothing: responses={ended} waiting={} most={} \
                 (help: limits.response_buffers)",
                waiting.lines.len(),
                self.most
            );
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stalled {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stalled").field("most", &self.most).finish_non_exhaustive()
    }
}

/// A response that waits for its client.
#[derive(Debug)]
pub(super) struct Ticket {
    stalled: Arc<Stalled>,
    key: (Timestamp, u64),
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.stalled.waiting().lines.remove(&self.key);
        self.stalled.gauge.dec();
    }
}
