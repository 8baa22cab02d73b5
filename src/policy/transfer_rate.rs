//! The minimum transfer rate of a client.
//!
//! Weir has a time budget for stalls of a client. Waiting uses it up, and each byte transferred
//! after a wait earns some back, as much as it may take at the minimum rate. It never exceeds its
//! initial value, so a client that was fast at first cannot be slow later. Time during which Weir
//! does not wait for the client costs nothing: a stream that is silent for hours is not a slow
//! client.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::time::Timestamp;

/// The minimum transfer rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinTransferRate {
    /// Bytes that must be transferred per second.
    pub bytes_per_second: NonZeroU64,
    /// How long a stall may last.
    pub grace: Duration,
}

/// The stall budget in one direction of one request.
#[derive(Debug, Clone, Copy)]
pub struct StallBudget {
    pace: MinTransferRate,
    left: Duration,
    waiting_since: Option<Timestamp>,
}

impl StallBudget {
    /// A full budget.
    #[must_use]
    pub const fn new(pace: MinTransferRate) -> Self {
        Self { pace, left: pace.grace, waiting_since: None }
    }

    /// Nothing is transferred. Returns when the budget will be used up if that continues.
    pub fn wait(&mut self, now: Timestamp) -> Timestamp {
        let since = *self.waiting_since.get_or_insert(now);
        since + self.left
    }

    /// `bytes` bytes were transferred; the wait is over.
    pub fn on_transfer(&mut self, bytes: u64, now: Timestamp) {
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

    fn budget() -> StallBudget {
        let bytes_per_second = NonZeroU64::new(100).unwrap();
        StallBudget::new(MinTransferRate { bytes_per_second, grace: Duration::from_secs(10) })
    }

    #[test]
    fn a_client_that_sends_nothing_has_the_whole_grace_and_no_more() {
        let mut budget = budget();
        assert_eq!(budget.wait(at(5)), at(15));
        assert_eq!(budget.wait(at(9)), at(15), "a second call does not restart the wait");
    }

    #[test]
    fn a_trickle_below_the_rate_only_delays_the_end() {
        let mut budget = budget();
        // 50 bytes every 4 s earn half a second and cost four.
        let mut due = budget.wait(at(0));
        for turn in 1..=2 {
            assert!(due > at(4 * turn), "{turn}");
            budget.on_transfer(50, at(4 * turn));
            due = budget.wait(at(4 * turn));
        }
        assert_eq!(due, at(8) + Duration::from_secs(3), "10 - 4 + ½ - 4 + ½ are left");
    }

    #[test]
    fn a_client_at_the_rate_continues_for_ever() {
        let mut budget = budget();
        for turn in 0..1000 {
            assert!(budget.wait(at(4 * turn)) > at(4 * turn + 4));
            budget.on_transfer(400, at(4 * turn + 4));
        }
    }

    #[test]
    fn a_client_that_was_fast_cannot_be_slow_later() {
        let mut budget = budget();
        budget.on_transfer(1_000_000_000, at(0));
        assert_eq!(budget.wait(at(0)), at(10));
    }

    #[test]
    fn time_without_waiting_costs_nothing() {
        let mut budget = budget();
        budget.wait(at(0));
        budget.on_transfer(0, at(1));
        assert_eq!(budget.wait(at(1000)), at(1009));
    }

    #[test]
    fn no_number_of_bytes_overflows() {
        let mut budget = budget();
        budget.on_transfer(u64::MAX, at(0));
        assert_eq!(budget.wait(at(0)), at(10));
    }
}
