//! The connections of the admin port: how many there are, and which has to go when there are too
//! many.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes of responses that may be on their way at once, beside the newest one: clients that do not
/// read theirs must not add up.
const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Every open connection.
#[derive(Debug)]
pub(super) struct Table {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    turn: u64,
    /// Those that wait for a whole request, the one that has waited longest first.
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// Those whose response is on its way, with its size.
    responding: BTreeMap<u64, (usize, Arc<Notify>)>,
}

/// A connection's place. Dropping it makes room for another one.
#[derive(Debug)]
pub(super) struct Place {
    table: Arc<Table>,
    turn: u64,
    evicted: Arc<Notify>,
}

impl Inner {
    fn next(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    /// Whether the connection of this turn had a place until now.
    fn leave(&mut self, turn: u64) -> bool {
        self.waiting.remove(&turn).is_some() || self.responding.remove(&turn).is_some()
    }
}

impl Table {
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, inner: Mutex::default() })
    }

    /// A place for a new connection. If all are taken, the connection that has waited longest for a
    /// request loses its place. `None` if all of them are being answered.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Place> {
        let mut inner = self.inner.lock();
        if inner.waiting.len() + inner.responding.len() >= self.most {
            let (_, oldest) = inner.waiting.pop_first()?;
            oldest.notify_one();
        }
        let turn = inner.next();
        let evicted = Arc::new(Notify::new());
        inner.waiting.insert(turn, Arc::clone(&evicted));
        Some(Place { table: Arc::clone(self), turn, evicted })
    }
}

impl Place {
    /// A response of so many bytes is on its way. False if the place is lost.
    pub(super) fn responds(&mut self, bytes: usize) -> bool {
        let mut inner = self.table.inner.lock();
        if !inner.leave(self.turn) {
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

    /// The next request is waited for. False if the place is lost.
    pub(super) fn waits(&mut self) -> bool {
        let mut inner = self.table.inner.lock();
        if !inner.leave(self.turn) {
            return false;
        }
        self.turn = inner.next();
        inner.waiting.insert(self.turn, Arc::clone(&self.evicted));
        true
    }

    /// Waits until the place is lost.
    pub(super) async fn evicted(&self) {
        self.evicted.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.inner.lock().leave(self.turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_lost(place: &mut Place) -> bool {
        !place.waits()
    }

    #[test]
    fn the_connection_that_has_waited_longest_makes_room() {
        let table = Table::new(3);
        let [mut first, mut second, mut third] = [(); 3].map(|()| table.enter().unwrap());
        assert!(first.responds(1) && first.waits(), "now the second has waited longest");
        let fourth = table.enter().unwrap();
        assert!(has_lost(&mut second) && !has_lost(&mut first) && !has_lost(&mut third));
        drop((second, fourth));
        let _fifth = table.enter().unwrap();
        assert!(!has_lost(&mut first) && !has_lost(&mut third), "there was a place");
    }

    #[test]
    fn one_that_is_being_answered_keeps_its_place() {
        let table = Table::new(2);
        let [mut first, mut second] = [(); 2].map(|()| table.enter().unwrap());
        assert!(first.responds(1) && second.responds(1));
        assert!(table.enter().is_none());
        assert!(second.waits());
        assert!(table.enter().is_some());
        assert!(!second.responds(1), "it has lost its place in the meantime");
    }

    #[test]
    fn responses_that_nobody_reads_do_not_add_up() {
        let table = Table::new(64);
        let mut places: Vec<Place> = (0..64).map(|_| table.enter().unwrap()).collect();
        for place in &mut places {
            assert!(place.responds(RESPONSE_BYTES_MAX / 8));
        }
        let kept = places.iter_mut().filter_map(|place| place.waits().then_some(())).count();
        assert_eq!(kept, 9);
    }
}
