//! How long to wait before a retry: exponential back-off with full jitter.
//!
//! Clients that failed together would all retry together if each waited the same time. "Full
//! jitter" waits a uniformly random share of the exponential bound, which spreads the retries best
//! for the least total work: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
//! March 2015 (`sleep = random(0, min(cap, base · 2^attempt))`).

use std::time::Duration;

use crate::time::nanos;

/// The wait before the `nth` retry (from 0): uniform in `[0, min(max, base · 2^nth)]`.
#[must_use]
pub fn wait(base: Duration, max: Duration, nth: u32, roll: u64) -> Duration {
    // A u64 shifted by at most 64 fits in 128 bits, and 64 doublings exceed any `max`.
    let bound_ns = (u128::from(nanos(base)) << nth.min(64)).min(u128::from(nanos(max)));
    let wait_ns = (u128::from(roll) * (bound_ns + 1)) >> 64;
    Duration::from_nanos(u64::try_from(wait_ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(50);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn the_lowest_roll_does_not_wait() {
        assert_eq!(wait(BASE, MAX, 3, 0), Duration::ZERO);
    }

    #[test]
    fn the_highest_roll_waits_the_whole_bound() {
        assert_eq!(wait(BASE, MAX, 0, u64::MAX), Duration::from_millis(50));
    }

    #[test]
    fn the_bound_doubles_each_time() {
        assert_eq!(wait(BASE, MAX, 1, u64::MAX), Duration::from_millis(100));
        assert_eq!(wait(BASE, MAX, 2, u64::MAX), Duration::from_millis(200));
        assert_eq!(wait(BASE, MAX, 7, u64::MAX), Duration::from_millis(6400));
    }

    #[test]
    fn the_bound_never_passes_the_maximum() {
        assert_eq!(wait(BASE, MAX, 8, u64::MAX), MAX);
        assert_eq!(wait(BASE, MAX, u32::MAX, u64::MAX), MAX);
    }

    #[test]
    fn a_middle_roll_waits_half_the_bound() {
        assert_eq!(wait(BASE, MAX, 0, u64::MAX / 2), Duration::from_millis(25));
    }

    #[test]
    fn without_a_base_there_is_no_wait() {
        assert_eq!(wait(Duration::ZERO, MAX, 9, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        let longest = wait(Duration::MAX, Duration::MAX, u32::MAX, u64::MAX);
        assert_eq!(longest, Duration::from_nanos(u64::MAX));
    }
}
