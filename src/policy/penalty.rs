//! Failures that go on counting as load for a while.
//!
//! A backend that fails at once has the fewest requests in flight, so it would attract nearly all of
//! them. Therefore each failed attempt counts as one more request in flight, which halves every
//! second.

use std::time::Duration;

use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::time::Timestamp;

/// After this time a penalty is half of what it was.
pub const HALF_LIFE: Duration = Duration::from_secs(1);

/// One failure, in the units of a penalty.
const ONE: u64 = 256;
/// The largest penalty: the load of 255 requests.
const MOST: u64 = 0xFFFF;
/// The lower bits of the word are the penalty, the others the milliseconds of its time.
const BITS: u32 = 16;

/// The penalty of one backend, with its time, in one word. Zero means none.
#[derive(Debug, Default)]
pub struct Penalty(AtomicU64);

impl Penalty {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one failure.
    pub fn add(&self, now: Timestamp) {
        let before = self.0.load(Relaxed);
        let penalty = (decayed(before, now) + ONE).min(MOST);
        // Two failures at the same time may count as one. It is a weight, not a count.
        self.0.store(millis(now) << BITS | penalty, Relaxed);
    }

    /// The penalty as requests in flight, rounded: a failure counts for one second.
    #[must_use]
    pub fn load(&self, now: Timestamp) -> u64 {
        let word = self.0.load(Relaxed);
        if word == 0 {
            return 0;
        }
        let left = decayed(word, now);
        if left == 0 {
            self.0.store(0, Relaxed);
        }
        left.saturating_add(ONE / 2) / ONE
    }
}

fn millis(now: Timestamp) -> u64 {
    now.as_nanos() / 1_000_000
}

/// What is left of a penalty: whole half-lives by shifting, the rest in a straight line.
fn decayed(word: u64, now: Timestamp) -> u64 {
    const HALF: u64 = 1000;
    let elapsed = millis(now).saturating_sub(word >> BITS);
    let halves = u32::try_from(elapsed / HALF).unwrap_or(u32::MAX);
    let left = (word & MOST).checked_shr(halves).unwrap_or(0);
    left - left * (elapsed % HALF) / (2 * HALF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn a_failure_counts_as_a_request_and_halves_every_second() {
        let penalty = Penalty::new();
        assert_eq!(penalty.load(at(0)), 0);
        for _ in 0..8 {
            penalty.add(at(5_000));
        }
        assert_eq!(penalty.load(at(5_000)), 8);
        assert_eq!(penalty.load(at(6_000)), 4);
        assert_eq!(penalty.load(at(6_500)), 3);
        assert_eq!(penalty.load(at(7_000)), 2);
        assert_eq!(penalty.load(at(8_000)), 1);
        assert_eq!(penalty.load(at(10_000)), 0);
        assert_eq!(penalty.load(at(60_000)), 0);
    }

    #[test]
    fn it_never_grows_with_time_and_is_bounded() {
        let penalty = Penalty::new();
        for _ in 0..100_000 {
            penalty.add(at(1));
        }
        let mut before = penalty.load(at(1));
        assert_eq!(before, 256);
        for now in (1..20_000).step_by(7) {
            let load = penalty.load(at(now));
            assert!(load <= before, "{load} after {before} at {now}");
            before = load;
        }
        assert_eq!(before, 0);
    }

    #[test]
    fn a_penalty_from_the_future_is_not_less_than_it_was() {
        let penalty = Penalty::new();
        penalty.add(at(9_000));
        assert_eq!(penalty.load(at(1)), 1);
    }
}
