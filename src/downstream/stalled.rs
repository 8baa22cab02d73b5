//! Exchanges that wait to be read: responses by their clients, tunnels by either side.
//!
//! Each of them holds what one side has sent and the other does not take. How much that is at most is
//! known ([`held`]), so that a limit in bytes can be kept (`policy/unread.rs`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use pingora_core::protocols::Digest;
use prometheus::{IntCounter, IntGauge};

use crate::clock::Clock;
use crate::metrics::ConnectionMetrics;
use crate::policy::unread::{Key, Limits, Unread};
use crate::upstream::bounded::{PIECE, PIECE_GROWN, Writes};

/// What one exchange holds at most, in bytes, while one side takes nothing: ten pieces of 16 KiB, the
/// buffer of 64 KiB that they are read into, what HTTP/2 has taken of it (32 KiB), the two connections,
/// and what the allocator loses. `tests/it/memory.rs` measures it, as does `scripts/stalled_memory.py`.
const HELD: u64 = 448 * 1024;

/// What comes on top where the client's connection is over TLS: encrypted, and not written yet.
const HELD_BY_TLS: u64 = 64 * 1024;

/// What comes on top where the backend speaks HTTP/2: the window of its stream.
const HELD_BY_WINDOW: u64 = 256 * 1024;

/// What comes on top once the response of an HTTP/1 backend is read in large pieces: ten of them.
const HELD_BY_GROWN: u64 = 10 * (PIECE_GROWN - PIECE);

/// What one exchange holds at most, whichever it is.
const HELD_MAX: u64 = HELD + HELD_BY_TLS + max(HELD_BY_WINDOW, HELD_BY_GROWN);

const fn max(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
}

/// How often to look while a limit is exceeded.
const LOOK: Duration = Duration::from_millis(500);

/// One client connection, or one HTTP/2 stream, whose response or tunnel may wait to be read.
pub(crate) trait Stallable: Sized + Send + Sync + 'static {
    /// Identifies the client's connection. Streams of one connection have the same.
    fn connection_key(&self) -> usize;

    /// Whether the client's connection is over TLS.
    fn is_tls(&self) -> bool;

    /// Whether the backend speaks HTTP/2.
    fn is_backend_http2(&self) -> bool;

    /// Where it is counted while it waits; `None` if nothing counts it.
    fn stalled(&self) -> Option<&Arc<Stalled<Self>>>;

    /// What its client sends into a tunnel.
    fn to_backend(&self) -> &ToBackend<Self>;

    /// Ends the response or the tunnel, because `reader` does not read.
    fn give_up(&self, reader: Reader);

    /// Who did not read, if it was ended for that.
    fn given_up_for(&self) -> Option<Reader>;
}

/// What one exchange holds at most, in bytes.
fn held<L: Stallable>(waiting: &L) -> u64 {
    let by_tls = if waiting.is_tls() { HELD_BY_TLS } else { 0 };
    let by_window = if waiting.is_backend_http2() { HELD_BY_WINDOW } else { 0 };
    let by_grown = if waiting.to_backend().is_grown() { HELD_BY_GROWN } else { 0 };
    HELD + by_tls + by_window + by_grown
}

/// Who is to read what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The client, a response or what its backend sends into a tunnel.
    Client,
    /// The backend, what its client sends into a tunnel.
    Backend,
}

/// Exchanges that wait to be read.
pub(crate) struct Stalled<L> {
    state: Mutex<State<L>>,
    clock: Clock,
    gauge: IntGauge,
    ended: IntCounter,
}

struct State<L> {
    unread: Unread<(Arc<L>, Reader)>,
    /// A task looks from time to time whether a limit is exceeded.
    is_watched: bool,
    /// Ended, and not logged yet.
    unlogged: usize,
}

impl<L: Stallable> Stalled<L> {
    /// All of them together may hold `bytes`; `None` is for no limit.
    pub(crate) fn new(bytes: Option<u64>, clock: Clock, metrics: &ConnectionMetrics) -> Arc<Self> {
        let unread = Unread::new(Limits::new(bytes, HELD_MAX));
        let state = Mutex::new(State { unread, is_watched: false, unlogged: 0 });
        let (gauge, ended) = (metrics.stalled.clone(), metrics.stalled_ended.clone());
        Arc::new(Self { state, clock, gauge, ended })
    }

    /// An exchange waits to be read from now on, until the ticket is dropped.
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

    /// Ends those that have waited for the longest, until no limit is exceeded.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.is_over() {
                return;
            }
        }
    }

    fn is_over(&self) -> bool {
        let mut state = self.state();
        let stalled = state.unread.end_stalled(self.clock.now());
        self.end(&mut state, &stalled);
        let ended = std::mem::take(&mut state.unlogged);
        if ended > 0 {
            log::warn!(
                "unread responses or tunnels ended: ended={ended} left={} bytes={} \
                 (help: limits.response_buffers)",
                state.unread.count(),
                state.unread.bytes(),
            );
        }
        state.is_watched = state.unread.is_any_over();
        state.is_watched
    }

    fn end(&self, state: &mut State<L>, stalled: &[(Arc<L>, Reader)]) {
        for (waiting, reader) in stalled {
            waiting.give_up(*reader);
            self.ended.inc();
        }
        state.unlogged += stalled.len();
    }
}

impl<L> Stalled<L> {
    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock()
    }
}

impl<L> fmt::Debug for Stalled<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Stalled").finish_non_exhaustive()
    }
}

/// An exchange that waits to be read.
#[derive(Debug)]
struct Ticket<L> {
    stalled: Arc<Stalled<L>>,
    key: Key,
}

impl<L> Drop for Ticket<L> {
    fn drop(&mut self) {
        let left = self.stalled.state().unread.leave(self.key);
        drop(left); // not before the lock is given back
        self.stalled.gauge.dec();
    }
}

/// Whether one side of an exchange is waited for to read.
#[derive(Debug)]
pub(crate) struct Wait<L> {
    /// Whether there is a ticket: it is asked after each write.
    is_waiting: AtomicBool,
    ticket: Mutex<Option<Ticket<L>>>,
}

impl<L> Default for Wait<L> {
    fn default() -> Self {
        Self { is_waiting: AtomicBool::new(false), ticket: Mutex::new(None) }
    }
}

impl<L: Stallable> Wait<L> {
    /// Something was written, and the other side is waited for, or not.
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

/// What a client sends into a tunnel, on its way to the backend.
#[derive(Debug)]
pub(crate) struct ToBackend<L> {
    /// Of the connection to the backend, until the tunnel opens.
    writes: Mutex<Option<Arc<Writes>>>,
    wait: Wait<L>,
}

impl<L> Default for ToBackend<L> {
    fn default() -> Self {
        Self { writes: Mutex::new(None), wait: Wait::default() }
    }
}

impl<L: Stallable> ToBackend<L> {
    /// The request goes to a backend on this connection.
    pub(crate) fn connected(&self, connection: Option<&Digest>) {
        let writes = connection.and_then(Writes::of).cloned();
        *self.writes.lock() = writes;
    }

    /// Whether its response is read in large pieces.
    fn is_grown(&self) -> bool {
        let writes = self.writes.lock();
        writes.as_ref().is_some_and(|writes| writes.is_grown())
    }

    /// The tunnel of this line has opened. While its backend does not read, it is one that waits.
    pub(crate) fn opened(waiting: &Arc<L>) {
        // Taken out, as the watcher holds the line.
        let mut writes = waiting.to_backend().writes.lock();
        let Some(writes) = writes.take() else { return };
        let waiting = Waiting(Arc::clone(waiting));
        writes.watch(move |pending| {
            waiting.0.to_backend().wait.set(pending, &waiting.0, Reader::Backend);
            waiting.0.given_up_for() != Some(Reader::Backend)
        });
    }
}

/// A tunnel waits no more for its backend once the connection to it is gone.
struct Waiting<L: Stallable>(Arc<L>);

impl<L: Stallable> Drop for Waiting<L> {
    fn drop(&mut self) {
        self.0.to_backend().wait.set(false, &self.0, Reader::Backend);
    }
}
