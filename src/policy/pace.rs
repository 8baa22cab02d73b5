//! How slow a client may be.
//!
//! Whoever waits for a client has patience. Waiting uses it up, and each byte that comes of the
//! waiting gives some back, as much as it may take at the slowest rate; but never more than there
//! was at the start, so that who was quick at first has nothing to be slow on later. Time in which
//! nobody waits for the client costs nothing: a stream that is silent for hours is no slow client.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::time::Timestamp;

/// The slowest a client may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes that must come or go in a second.
    pub bytes_per_second: NonZeroU64,
    /// How long may be waited for nothing.
    pub grace: Duration,
}

/// What patience is left in one direction of one exchange.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pace: Pace,
    left: Duration,
    waiting_since: Option<Timestamp>,
}

impl Patience {
    /// All of it.
    #[must_use]
    pub const fn new(pace: Pace) -> Self {
        Self { pace, left: pace.grace, waiting_since: None }
    }

    /// Nothing moves. When patience will be at an end if it stays so.
    pub fn wait(&mut self, now: Timestamp) -> Timestamp {
        let since = *self.waiting_since.get_or_insert(now);
        since + self.left
    }

    /// So many bytes have moved; nobody waits any more.
    pub fn moved(&mut self, bytes: u64, now: Timestamp) {
        if let Some(since) = self.waiting_since.take() {
            self.left = self.left.saturating_sub(now.since(since));
        }
        let earned_ns = bytes.saturating_mul(1_000_000_000) / self.pace.bytes_per_second;
        self.left = (self.left + Duration::from_nanos(earned_ns)).min(self.pace.grace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_secs(seconds)
    }

    fn patience() -> Patience {
        let bytes_per_second = NonZeroU64::new(100).unwrap();
        Patience::new(Pace { bytes_per_second, grace: Duration::from_secs(10) })
    }

    #[test]
    fn who_sends_nothing_has_the_whole_grace_and_no_more() {
        let mut patience = patience();
        assert_eq!(patience.wait(at(5)), at(15));
        assert_eq!(patience.wait(at(9)), at(15), "to look again is not to begin anew");
    }

    #[test]
    fn a_trickle_below_the_rate_only_puts_the_end_off() {
        let mut patience = patience();
        // 50 bytes every 4 s earn half a second and cost four.
        let mut due = patience.wait(at(0));
        for turn in 1..=2 {
            assert!(due > at(4 * turn), "{turn}");
            patience.moved(50, at(4 * turn));
            due = patience.wait(at(4 * turn));
        }
        assert_eq!(due, at(8) + Duration::from_secs(3), "10 - 4 + ½ - 4 + ½ are left");
    }

    #[test]
    fn who_keeps_to_the_rate_goes_on_for_ever() {
        let mut patience = patience();
        for turn in 0..1000 {
            assert!(patience.wait(at(4 * turn)) > at(4 * turn + 4));
            patience.moved(400, at(4 * turn + 4));
        }
    }

    #[test]
    fn who_was_quick_has_nothing_to_be_slow_on_later() {
        let mut patience = patience();
        patience.moved(1_000_000_000, at(0));
        assert_eq!(patience.wait(at(0)), at(10));
    }

    #[test]
    fn time_in_which_nobody_waits_costs_nothing() {
        let mut patience = patience();
        patience.wait(at(0));
        patience.moved(0, at(1));
        assert_eq!(patience.wait(at(1000)), at(1009));
    }

    #[test]
    fn no_number_of_bytes_overflows() {
        let mut patience = patience();
        patience.moved(u64::MAX, at(0));
        assert_eq!(patience.wait(at(0)), at(10));
    }
}
