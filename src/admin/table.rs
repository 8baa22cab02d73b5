//! The open connections of the admin port, and which of them is closed if there are too many.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The maximum size of all responses in progress, not counting the newest one. Otherwise clients
/// that do not read their responses could use any amount of memory.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Every open connection.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    capacity: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    turn: u64,
    /// Connections that wait for a complete request, the longest wait first.
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// Connections with a response in progress, and its size.
    responding: BTreeMap<u64, (usize, Arc<Notify>)>,
}

/// The slot of one connection. Dropping it frees the slot.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    table: Arc<ConnectionTable>,
    turn: u64,
    evicted: Arc<Notify>,
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Removes the slot of this turn. Returns false if it was evicted before.
    fn remove(&mut self, turn: u64) -> bool {
        self.waiting.remove(&turn).is_some() || self.responding.remove(&turn).is_some()
    }
}

impl ConnectionTable {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, inner: Mutex::default() })
    }

    /// Allocates a slot for a new connection. If all are in use, the connection that has waited the
    /// longest for a request is evicted. `None` if all have a response in progress.
    pub(super) fn admit(self: &Arc<Self>) -> Option<ConnectionSlot> {
        let mut inner = self.inner.lock();
        if inner.waiting.len() + inner.responding.len() >= self.capacity {
            let (_, oldest) = inner.waiting.pop_first()?;
            oldest.notify_one();
        }
        let turn = inner.next();
        let evicted = Arc::new(Notify::new());
        inner.waiting.insert(turn, Arc::clone(&evicted));
        Some(ConnectionSlot { table: Arc::clone(self), turn, evicted })
    }
}

impl ConnectionSlot {
    /// Records that a response of this size is in progress. Returns false if the slot was evicted.
    pub(super) fn start_response(&mut self, bytes: usize) -> bool {
        let mut inner = self.table.inner.lock();
        if !inner.remove(self.turn) {
            return false;
        }
        let mut total: usize = inner.responding.values().map(|(bytes, _)| *bytes).sum();
        while total > RESPONSE_BYTES_MAX {
            let Some((_, (bytes, oldest))) = inner.responding.pop_first() else { break };
            oldest.notify_one();
            total -= bytes;
        }
        self.turn = inner.next();
        inner.responding.insert(self.turn, (bytes, Arc::clone(&self.evicted)));
        true
    }

    /// Records that the connection waits for its next request. Returns false if the slot was evicted.
    pub(super) fn wait_for_request(&mut self) -> bool {
        let mut inner = self.table.inner.lock();
        if !inner.remove(self.turn) {
            return false;
        }
        self.turn = inner.next();
        inner.waiting.insert(self.turn, Arc::clone(&self.evicted));
        true
    }

    /// Waits until the slot is evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.table.inner.lock().remove(self.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_evicted(slot: &mut ConnectionSlot) -> bool {
        !slot.wait_for_request()
    }

    #[test]
    fn the_connection_that_has_waited_longest_is_evicted() {
        let table = ConnectionTable::new(3);
        let [mut first, mut second, mut third] = [(); 3].map(|()| table.admit().unwrap());
        assert!(
            first.start_response(1) && first.wait_for_request(),
            "now the second has waited longest"
        );
        let fourth = table.admit().unwrap();
        assert!(is_evicted(&mut second) && !is_evicted(&mut first) && !is_evicted(&mut third));
        drop((second, fourth));
        let _fifth = table.admit().unwrap();
        assert!(!is_evicted(&mut first) && !is_evicted(&mut third), "there was a free slot");
    }

    #[test]
    fn a_connection_with_a_response_in_progress_is_not_evicted() {
        let table = ConnectionTable::new(2);
        let [mut first, mut second] = [(); 2].map(|()| table.admit().unwrap());
        assert!(first.start_response(1) && second.start_response(1));
        assert!(table.admit().is_none());
        assert!(second.wait_for_request());
        assert!(table.admit().is_some());
        assert!(!second.start_response(1), "it was evicted in the meantime");
    }

    #[test]
    fn unread_responses_do_not_add_up() {
        let table = ConnectionTable::new(64);
        let mut slots: Vec<ConnectionSlot> = (0..64).map(|_| table.admit().unwrap()).collect();
        for slot in &mut slots {
            assert!(slot.start_response(RESPONSE_BYTES_MAX / 8));
        }
        let kept =
            slots.iter_mut().filter_map(|slot| slot.wait_for_request().then_some(())).count();
        assert_eq!(kept, 9);
    }
}
