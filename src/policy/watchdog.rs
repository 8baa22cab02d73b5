//! When something that should make progress counts as hung.
//!
//! The observer checks at regular intervals. Only time during which it checked counts as silence.
//! After a pause of its own (a stopped process, a suspended machine, no CPU for long) it cannot
//! know whether the other side made progress, so every watched thing gets a new period.

use std::time::Duration;

use crate::time::Timestamp;

/// Watches one thing that reports progress.
#[derive(Debug, Clone, Copy)]
pub struct Watchdog {
    timeout: Duration,
    silent: Duration,
    checked_at: Timestamp,
}

impl Watchdog {
    /// Starts a period of `timeout`.
    #[must_use]
    pub const fn new(timeout: Duration, now: Timestamp) -> Self {
        Self { timeout, silent: Duration::ZERO, checked_at: now }
    }

    /// How often [`Watchdog::is_hung`] must be called for this timeout: often enough that a delay
    /// of the observer differs clearly from its interval.
    #[must_use]
    pub fn interval(timeout: Duration) -> Duration {
        (timeout / 10).clamp(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// Records progress.
    pub const fn progress(&mut self, now: Timestamp) {
        self.silent = Duration::ZERO;
        self.checked_at = now;
    }

    /// Adds the time since the last check to the silence, unless the observer was late itself.
    /// Returns whether the silence has reached the timeout.
    pub fn is_hung(&mut self, now: Timestamp) -> bool {
        let gap = now.since(self.checked_at);
        self.checked_at = now;
        self.silent = if gap >= self.timeout / 2 { Duration::ZERO } else { self.silent + gap };
        self.silent >= self.timeout
    }

    /// How long there was no progress, as of the last check.
    #[must_use]
    pub const fn silent(&self) -> Duration {
        self.silent
    }

    /// Whether there was no progress for half of the timeout.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.silent >= self.timeout / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    /// Checks once a second, from the second after `from` up to `to`; returns when it was found
    /// hung.
    fn look(watchdog: &mut Watchdog, from: u64, to: u64) -> Option<u64> {
        (from + 1..=to).find(|second| watchdog.is_hung(at(second * 1000)))
    }

    #[test]
    fn silence_for_the_whole_timeout_is_a_hang_and_not_before() {
        let mut watchdog = Watchdog::new(TIMEOUT, at(0));
        assert_eq!(look(&mut watchdog, 0, 60), Some(10));
        assert_eq!(watchdog.silent(), TIMEOUT);
    }

    #[test]
    fn progress_begins_a_new_period() {
        let mut watchdog = Watchdog::new(TIMEOUT, at(0));
        assert_eq!(look(&mut watchdog, 0, 9), None);
        watchdog.progress(at(9_500));
        assert_eq!(look(&mut watchdog, 9, 60), Some(20), "ten seconds from 9.5 s on");
    }

    #[test]
    fn a_pause_of_the_observer_begins_a_new_period() {
        let mut watchdog = Watchdog::new(TIMEOUT, at(0));
        assert_eq!(look(&mut watchdog, 0, 9), None);
        assert!(!watchdog.is_hung(at(3_600_000)), "the machine slept for an hour");
        assert_eq!(look(&mut watchdog, 3600, 3700), Some(3610));
    }

    #[test]
    fn an_observer_that_is_always_late_finds_no_hang() {
        let mut watchdog = Watchdog::new(TIMEOUT, at(0));
        assert!((1..1000).all(|turn| !watchdog.is_hung(at(turn * 5_000))));
    }

    #[test]
    fn an_observer_that_is_a_little_late_still_finds_a_hang() {
        let mut watchdog = Watchdog::new(TIMEOUT, at(0));
        let found = (1..100).find(|turn| watchdog.is_hung(at(turn * 4_900)));
        assert_eq!(found, Some(3));
    }

    #[test]
    fn half_of_the_timeout_is_suspicious() {
        let mut watchdog = Watchdog::new(TIMEOUT, at(0));
        assert_eq!(look(&mut watchdog, 0, 4), None);
        assert!(!watchdog.is_suspect());
        assert_eq!(look(&mut watchdog, 4, 5), None);
        assert!(watchdog.is_suspect());
        watchdog.progress(at(5_000));
        assert!(!watchdog.is_suspect());
    }

    #[test]
    fn the_interval_fits_several_times_into_half_of_any_timeout() {
        for seconds in [1, 2, 10, 86_400] {
            let timeout = Duration::from_secs(seconds);
            let interval = Watchdog::interval(timeout);
            assert!(interval * 5 <= timeout && interval <= Duration::from_secs(1));
        }
    }
}
