//! Limits the bytes of unread data, and selects what is aborted beyond the limits.
//!
//! There is a limit for all client connections, and one for each. Beyond either, exchanges are aborted
//! whose reader has read nothing for [`STALLED`], the oldest first. The further the total is above its
//! limit, the shorter this time: [`STALLED_TWICE`] above twice the limit, [`STALLED_FOUR_TIMES`] above four
//! times. It is never zero, because each response waits between two pieces, also if its client reads.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::time::Timestamp;

/// A reader that has read something within this time is slow, but not stalled. Over HTTP/2 the streams of
/// a connection take turns: 80 of them get 16 KiB each in this time at 1 Mbit/s.
pub const STALLED: Duration = Duration::from_secs(10);

/// The same above twice the limit. An HTTP/1 client at 10 KB/s reads something more often: the kernel asks
/// for more once a third of its buffer is free.
pub const STALLED_TWICE: Duration = Duration::from_secs(5);

/// The same above four times the limit.
pub const STALLED_FOUR_TIMES: Duration = Duration::from_secs(1);

/// The share of the total that one client connection may hold.
const SHARE: u64 = 4;

/// The limits for unread data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadLimits {
    /// Of all client connections.
    pub all: u64,
    /// Of one client connection.
    pub each: u64,
}

impl UnreadLimits {
    /// All connections may hold `all` bytes, and one a quarter of them. Either limit is at least
    /// `one`, the most that a single exchange holds. `None` means no limit.
    #[must_use]
    pub fn new(all: Option<u64>, one: u64) -> Self {
        let all = all.unwrap_or(u64::MAX).max(one);
        Self { all, each: (all / SHARE).max(one) }
    }
}

/// Identifies a waiting exchange: since when, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WaiterKey(Timestamp, u64);

#[derive(Debug)]
struct Waiter<T> {
    connection: usize,
    bytes: u64,
    what: T,
}

/// The waiting exchanges, without aborted ones.
#[derive(Debug)]
pub struct Unread<T> {
    limits: UnreadLimits,
    waiters: BTreeMap<WaiterKey, Waiter<T>>,
    bytes: u64,
    by_connection: HashMap<usize, u64>,
    next: u64,
}

impl<T> Unread<T> {
    /// Creates it without waiting exchanges.
    #[must_use]
    pub fn new(limits: UnreadLimits) -> Self {
        let (waiters, by_connection) = (BTreeMap::new(), HashMap::new());
        Self { limits, waiters, bytes: 0, by_connection, next: 0 }
    }

    /// From `now` on, `what` waits to be read and holds at most `bytes` bytes. `connection` is any
    /// number that identifies the client connection.
    pub fn enter(&mut self, now: Timestamp, connection: usize, bytes: u64, what: T) -> WaiterKey {
        let key = WaiterKey(now, self.next);
        self.next += 1;
        self.bytes += bytes;
        *self.by_connection.entry(connection).or_default() += bytes;
        self.waiters.insert(key, Waiter { connection, bytes, what });
        key
    }

    /// Ends the wait. Returns the exchange, unless it was aborted.
    pub fn leave(&mut self, key: WaiterKey) -> Option<T> {
        let Waiter { connection, bytes, what } = self.waiters.remove(&key)?;
        self.bytes -= bytes;
        if let Some(held) = self.by_connection.get_mut(&connection) {
            *held -= bytes;
            if *held == 0 {
                self.by_connection.remove(&connection);
            }
        }
        Some(what)
    }

    /// The number of unread bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The number of waiting exchanges.
    #[must_use]
    pub fn count(&self) -> usize {
        self.waiters.len()
    }

    /// Whether the total, or this connection, exceeds its limit.
    #[must_use]
    pub fn is_over(&self, connection: usize) -> bool {
        self.bytes > self.limits.all || self.of(connection) > self.limits.each
    }

    /// Whether any limit is exceeded.
    #[must_use]
    pub fn is_any_over(&self) -> bool {
        let each = self.limits.each;
        self.bytes > self.limits.all || self.by_connection.values().any(|held| *held > each)
    }

    /// Removes stalled exchanges, the oldest first, until no limit is exceeded: first of connections
    /// above their share, then of all.
    pub fn end_stalled(&mut self, now: Timestamp) -> Vec<T> {
        let oldest = self.waiters.iter().map(|(key, waiter)| (*key, waiter.connection));
        let oldest =
            oldest.take_while(|(WaiterKey(since, _), _)| *since + STALLED_FOUR_TIMES <= now);
        let oldest: Vec<(WaiterKey, usize)> = oldest.collect();
        let mut ended = Vec::new();
        for (key, connection) in &oldest {
            let patience = self.patience().unwrap_or(STALLED);
            if self.of(*connection) > self.limits.each && key.0 + patience <= now {
                ended.extend(self.leave(*key));
            }
        }
        for (key, _) in &oldest {
            if self.patience().is_some_and(|patience| key.0 + patience <= now) {
                ended.extend(self.leave(*key)); // nothing, if it was removed above
            }
        }
        ended
    }

    /// How long a reader may read nothing; `None` while the total is within its limit.
    fn patience(&self) -> Option<Duration> {
        let all = self.limits.all;
        match self.bytes {
            bytes if bytes <= all => None,
            bytes if bytes <= all.saturating_mul(2) => Some(STALLED),
            bytes if bytes <= all.saturating_mul(4) => Some(STALLED_TWICE),
            _ => Some(STALLED_FOUR_TIMES),
        }
    }

    fn of(&self, connection: usize) -> u64 {
        self.by_connection.get(&connection).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    /// 400 bytes for all, 100 for each connection.
    fn unread() -> Unread<u32> {
        Unread::new(UnreadLimits::new(Some(400), 10))
    }

    #[test]
    fn a_connection_may_hold_a_quarter_but_always_one_response() {
        assert_eq!(UnreadLimits::new(Some(400), 10), UnreadLimits { all: 400, each: 100 });
        assert_eq!(UnreadLimits::new(Some(400), 150), UnreadLimits { all: 400, each: 150 });
        assert_eq!(UnreadLimits::new(Some(1), 150), UnreadLimits { all: 150, each: 150 });
        assert_eq!(UnreadLimits::new(None, 150).all, u64::MAX);
    }

    #[test]
    fn within_the_limits_nothing_is_aborted_however_long_it_waits() {
        let mut unread = unread();
        for connection in 0..4 {
            unread.enter(at(0), connection, 100, 1);
        }
        assert!(!unread.is_any_over());
        assert!(unread.end_stalled(at(1000)).is_empty());
    }

    #[test]
    fn a_connection_over_its_share_loses_its_oldest_and_others_nothing() {
        let mut unread = unread();
        unread.enter(at(0), 1, 60, 1);
        unread.enter(at(1), 2, 60, 2);
        unread.enter(at(2), 2, 60, 3);
        assert!(unread.is_over(2) && !unread.is_over(1));
        assert!(unread.end_stalled(at(10)).is_empty(), "no one of them is stalled yet");
        assert_eq!(unread.end_stalled(at(11)), [2]);
        assert_eq!((unread.count(), unread.bytes(), unread.is_any_over()), (2, 120, false));
    }

    #[test]
    fn above_the_total_limit_the_oldest_stalled_exchanges_are_aborted() {
        let mut unread = unread();
        for number in 0..6 {
            unread.enter(at(u64::from(number)), usize::try_from(number).unwrap(), 90, number);
        }
        assert!(unread.end_stalled(at(9)).is_empty());
        assert_eq!(unread.end_stalled(at(10)), [0], "the second has not stalled");
        assert_eq!(unread.end_stalled(at(100)), [1], "four times 90 is within the limit");
    }

    #[test]
    fn connections_above_their_share_are_chosen_before_the_oldest_of_all() {
        let mut unread = unread();
        for connection in 1..=5 {
            unread.enter(at(0), connection, 50, 1);
        }
        for number in 20..25 {
            unread.enter(at(1), 6, 40, number);
        }
        assert_eq!(unread.bytes(), 450);
        assert_eq!(unread.end_stalled(at(11)), [20, 21, 22], "the rest is within both limits");
    }

    #[test]
    fn the_further_over_the_limit_the_sooner_a_reader_counts_as_stalled() {
        let millis = |millis| Timestamp::ZERO + Duration::from_millis(millis);
        let mut unread = unread();
        for connection in 0..34 {
            unread.enter(at(0), connection, 50, 1);
        }
        assert_eq!(unread.bytes(), 1700);
        assert!(unread.end_stalled(millis(999)).is_empty());
        assert_eq!(unread.end_stalled(at(1)).len(), 2, "down to four times");
        assert!(unread.end_stalled(millis(4_999)).is_empty());
        assert_eq!(unread.end_stalled(at(5)).len(), 16, "down to twice");
        assert!(unread.end_stalled(millis(9_999)).is_empty());
        assert_eq!(unread.end_stalled(at(10)).len(), 8, "down to the limit");
        assert!(unread.end_stalled(at(1000)).is_empty());
    }

    #[test]
    fn a_reader_that_takes_something_is_never_ended_however_much_waits() {
        let mut unread = unread();
        let mut keys: Vec<WaiterKey> = (0..100).map(|_| unread.enter(at(0), 1, 90, 1)).collect();
        for round in 1..200_u64 {
            let now = Timestamp::ZERO + Duration::from_millis(round * 900);
            for key in &mut keys {
                assert!(unread.leave(*key).is_some(), "it took something");
                *key = unread.enter(now, 1, 90, 1);
            }
            assert!(unread.end_stalled(now).is_empty());
        }
    }

    #[test]
    fn an_exchange_that_left_or_was_aborted_is_not_counted() {
        let mut unread = unread();
        let first = unread.enter(at(0), 1, 90, 1);
        let second = unread.enter(at(0), 1, 90, 2);
        assert_eq!(unread.end_stalled(at(10)), [1]);
        assert_eq!(unread.leave(first), None);
        assert_eq!(unread.leave(second), Some(2));
        assert_eq!((unread.count(), unread.bytes()), (0, 0));
        assert!(unread.by_connection.is_empty());
    }
}
