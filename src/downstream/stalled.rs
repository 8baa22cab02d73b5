//! Responses and upgraded connections that wait to be read.
//!
//! Each of them holds data that one side has sent and the other does not read. The most that one
//! can hold is known ([`held`]), so all of them together can be kept below a limit in bytes
//! (`policy/unread.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use pingora_core::protocols::Digest;
use prometheus::{IntCounter, IntGauge};

use crate::clock::Clock;
use crate::metrics::ConnectionMetrics;
use crate::policy::unread::{Unread, UnreadLimits, WaiterKey};
use crate::upstream::bounded::{Http1State, PIECE, PIECE_GROWN};

/// What one response or upgraded connection holds at most while one side does not read, in bytes:
/// ten pieces of 16 KiB, a read buffer of 64 KiB, 32 KiB in the HTTP/2 library, both connections,
/// and what the allocator loses. `tests/it/memory.rs` and `scripts/stalled_memory.py` measure it.
const HELD: u64 = 448 * 1024;

/// Added if the client's connection is over TLS: encrypted data that is not written yet.
const HELD_BY_TLS: u64 = 64 * 1024;

/// Added if the backend speaks HTTP/2: the window of its stream.
const HELD_BY_WINDOW: u64 = 256 * 1024;

/// Added once the response of an HTTP/1 backend is read in large pieces: ten of them.
const HELD_BY_GROWN: u64 = 10 * (PIECE_GROWN - PIECE);

/// The most that any of them holds.
const HELD_MAX: u64 = HELD + HELD_BY_TLS + max(HELD_BY_WINDOW, HELD_BY_GROWN);

const fn max(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
}

/// How often the limit is checked while it is exceeded.
const LOOK: Duration = Duration::from_millis(500);

/// A client connection or HTTP/2 stream whose response or upgraded connection may wait to be read.
pub(crate) trait Stallable: Sized + Send + Sync + 'static {
    /// Identifies the client's connection. Streams of one connection have the same.
    fn connection_key(&self) -> usize;

    /// Whether the client's connection is over TLS.
    fn is_tls(&self) -> bool;

    /// Whether the backend speaks HTTP/2.
    fn is_backend_http2(&self) -> bool;

    /// Where it is counted while it waits; `None` if nothing counts it.
    fn stalled(&self) -> Option<&Arc<Stalled<Self>>>;

    /// What its client sends on an upgraded connection.
    fn to_backend(&self) -> &ToBackend<Self>;

    /// Ends the response or the upgraded connection, because `reader` does not read.
    fn give_up(&self, reader: Reader);

    /// Who did not read, if it was ended for that.
    fn given_up_for(&self) -> Option<Reader>;
}

/// What this one holds at most, in bytes.
fn held<L: Stallable>(waiting: &L) -> u64 {
    let by_tls = if waiting.is_tls() { HELD_BY_TLS } else { 0 };
    let by_window = if waiting.is_backend_http2() { HELD_BY_WINDOW } else { 0 };
    let by_grown = if waiting.to_backend().is_grown() { HELD_BY_GROWN } else { 0 };
    HELD + by_tls + by_window + by_grown
}

/// The side that has to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The client: a response, or data of the backend on an upgraded connection.
    Client,
    /// The backend: data of the client on an upgraded connection.
    Backend,
}

/// All that wait to be read.
pub(crate) struct Stalled<L> {
    state: Mutex<StalledState<L>>,
    clock: Clock,
    gauge: IntGauge,
    ended: IntCounter,
}

struct StalledState<L> {
    unread: Unread<(Arc<L>, Reader)>,
    /// A task is checking the limit.
    is_watched: bool,
    /// How many were ended and are not logged yet.
    unlogged: usize,
}

impl<L: Stallable> Stalled<L> {
    /// All of them together may hold `bytes`; `None` for no limit.
    pub(crate) fn new(bytes: Option<u64>, clock: Clock, metrics: &ConnectionMetrics) -> Arc<Self> {
        let unread = Unread::new(UnreadLimits::new(bytes, HELD_MAX));
        let state = Mutex::new(StalledState { unread, is_watched: false, unlogged: 0 });
        let (gauge, ended) = (metrics.stalled.clone(), metrics.stalled_ended.clone());
        Arc::new(Self { state, clock, gauge, ended })
    }

    /// Counts one more until the ticket is dropped.
    fn enter(self: &Arc<Self>, waiting: &Arc<L>, reader: Reader) -> Ticket<L> {
        let connection = waiting.connection_key();
        let (now, bytes) = (self.clock.now(), held(&**waiting));
        let mut state = self.state();
        let key = state.unread.enter(now, connection, bytes, (Arc::clone(waiting), reader));
        self.gauge.inc();
        if state.unread.is_over(connection) && !std::mem::replace(&mut state.is_watched, true) {
            tokio::spawn(Arc::clone(self).watch());
        }
        Ticket { stalled: Arc::clone(self), key }
    }

    /// Ends those that have waited longest, until the limit is kept.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.enforce() {
                return;
            }
        }
    }

    /// Ends those that have waited longest while the limit is exceeded. Returns whether it still is.
    fn enforce(&self) -> bool {
        let mut state = self.state();
        let stalled = state.unread.end_stalled(self.clock.now());
        self.end(&mut state, &stalled);
        let ended = std::mem::take(&mut state.unlogged);
        if ended > 0 {
            log::warn!(
                "unread responses or WebSockets closed: ended={ended} left={} bytes={} \
                 (help: limits.response_buffers)",
                state.unread.count(),
                state.unread.bytes(),
            );
        }
        state.is_watched = state.unread.is_any_over();
        state.is_watched
    }

    fn end(&self, state: &mut StalledState<L>, stalled: &[(Arc<L>, Reader)]) {
        for (waiting, reader) in stalled {
            waiting.give_up(*reader);
            self.ended.inc();
        }
        state.unlogged += stalled.len();
    }
}

impl<L> Stalled<L> {
    fn state(&self) -> MutexGuard<'_, StalledState<L>> {
        self.state.lock()
    }
}

impl<L> fmt::Debug for Stalled<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stalled").finish_non_exhaustive()
    }
}

/// One that waits to be read.
#[derive(Debug)]
struct Ticket<L> {
    stalled: Arc<Stalled<L>>,
    key: WaiterKey,
}

impl<L> Drop for Ticket<L> {
    fn drop(&mut self) {
        let left = self.stalled.state().unread.leave(self.key);
        drop(left); // only after the lock is released
        self.stalled.gauge.dec();
    }
}

/// Whether one side has to read before more can be written to it.
#[derive(Debug)]
pub(crate) struct Wait<L> {
    /// Whether there is a ticket. It is read after each write, so it is outside of the lock.
    is_waiting: AtomicBool,
    ticket: Mutex<Option<Ticket<L>>>,
}

impl<L> Default for Wait<L> {
    fn default() -> Self {
        Self { is_waiting: AtomicBool::new(false), ticket: Mutex::new(None) }
    }
}

impl<L: Stallable> Wait<L> {
    /// Data was written. `waits` says whether the other side has to read before more can be.
    pub(crate) fn set(&self, waits: bool, waiting: &Arc<L>, reader: Reader) {
        if self.is_waiting.load(Relaxed) == waits {
            return;
        }
        self.is_waiting.store(waits, Relaxed);
        let stalled = waiting.stalled().filter(|_| waits);
        let ticket = stalled.map(|stalled| stalled.enter(waiting, reader));
        let mut held = self.ticket.lock();
        let _returned = std::mem::replace(&mut *held, ticket);
    }
}

/// Data of the client on an upgraded connection, on its way to the backend.
#[derive(Debug)]
pub(crate) struct ToBackend<L> {
    /// The writes to the backend, until the connection is upgraded.
    writes: Mutex<Option<Arc<Http1State>>>,
    wait: Wait<L>,
}

impl<L> Default for ToBackend<L> {
    fn default() -> Self {
        Self { writes: Mutex::new(None), wait: Wait::default() }
    }
}

impl<L: Stallable> ToBackend<L> {
    /// The request was sent on this connection to a backend.
    pub(crate) fn connected(&self, connection: Option<&Digest>) {
        let writes = connection.and_then(Http1State::of).cloned();
        *self.writes.lock() = writes;
    }

    /// Whether the response is read in large pieces.
    fn is_grown(&self) -> bool {
        let writes = self.writes.lock();
        writes.as_ref().is_some_and(|writes| writes.is_grown())
    }

    /// The connection was upgraded. From now on it is counted while its backend does not read.
    pub(crate) fn opened(waiting: &Arc<L>) {
        // Taken out, because the callback holds the connection.
        let mut writes = waiting.to_backend().writes.lock();
        let Some(writes) = writes.take() else { return };
        let waiting = Waiting(Arc::clone(waiting));
        writes.watch(move |pending| {
            waiting.0.to_backend().wait.set(pending, &waiting.0, Reader::Backend);
            waiting.0.given_up_for() != Some(Reader::Backend)
        });
    }
}

/// Ends the wait for the backend once the connection to it is dropped.
struct Waiting<L: Stallable>(Arc<L>);

impl<L: Stallable> Drop for Waiting<L> {
    fn drop(&mut self) {
        self.0.to_backend().wait.set(false, &self.0, Reader::Backend);
    }
}
