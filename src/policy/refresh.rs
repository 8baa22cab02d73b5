//! When a name is looked up again, and what a failed or empty lookup changes.
//!
//! The TTL of an answer decides, within bounds. A failure never changes what is known. An empty answer
//! is used only if it lasts: a name server that loses a zone for a moment must not empty a pool.

use std::time::Duration;

use crate::time::Timestamp;

/// How long answers must have been empty before they are used.
pub const EMPTY_HOLD: Duration = Duration::from_secs(30);
/// The shortest wait after a failure.
const FAILED_MIN: Duration = Duration::from_secs(1);
/// The longest wait after failures, unless the bounds allow more.
const FAILED_MAX: Duration = Duration::from_secs(30);

/// The bounds of the time between two lookups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RefreshBounds {
    /// A shorter TTL is this long.
    pub min: Duration,
    /// A longer TTL is this long.
    pub max: Duration,
}

impl Default for RefreshBounds {
    fn default() -> Self {
        Self { min: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

/// What a lookup has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupOutcome {
    /// Records, valid for this long.
    Found(Duration),
    /// The name does not exist, or has no such records.
    Empty,
    /// No answer.
    Failed,
}

/// What to do with the result of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refreshed {
    /// Whether it replaces what was known.
    pub is_used: bool,
    /// The wait before the next lookup.
    pub pause: Duration,
}

/// The state of one name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refresh {
    failures: u32,
    empty_since: Option<Timestamp>,
}

impl Refresh {
    /// Processes the result of a lookup that ended at `now`. `roll` is a random number from 0 to 1.
    pub fn looked_up(
        &mut self,
        outcome: LookupOutcome,
        bounds: RefreshBounds,
        now: Timestamp,
        roll: f64,
    ) -> Refreshed {
        match outcome {
            LookupOutcome::Found(ttl) => {
                *self = Self::default();
                let whole = ttl.clamp(bounds.min, bounds.max.max(bounds.min));
                // Earlier, never later: many balancers must not ask at once.
                Refreshed { is_used: true, pause: whole.mul_f64(1.0 - 0.1 * roll).max(bounds.min) }
            }
            LookupOutcome::Empty => {
                self.failures = 0;
                let since = *self.empty_since.get_or_insert(now);
                let pause = bounds.min.max(FAILED_MIN);
                Refreshed { is_used: now.since(since) >= EMPTY_HOLD, pause: jittered(pause, roll) }
            }
            LookupOutcome::Failed => {
                let longest = FAILED_MAX.min(bounds.max).max(FAILED_MIN);
                let doubled = FAILED_MIN.saturating_mul(1 << self.failures.min(16)).min(longest);
                self.failures = self.failures.saturating_add(1);
                Refreshed { is_used: false, pause: jittered(doubled, roll) }
            }
        }
    }
}

/// Up to 20 % shorter or longer.
fn jittered(pause: Duration, roll: f64) -> Duration {
    pause.mul_f64(0.8 + 0.4 * roll)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_nanos(5_000_000_000);

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn bounds(min: u64, max: u64) -> RefreshBounds {
        RefreshBounds { min: secs(min), max: secs(max) }
    }

    #[test]
    fn a_ttl_of_zero_does_not_spin_and_a_long_one_is_shortened() {
        let mut refresh = Refresh::default();
        let mut pause =
            |ttl| refresh.looked_up(LookupOutcome::Found(secs(ttl)), bounds(1, 60), NOW, 0.0).pause;
        assert_eq!([pause(0), pause(30), pause(86_400)], [secs(1), secs(30), secs(60)]);
    }

    #[test]
    fn failures_change_nothing_and_are_retried_less_and_less_often() {
        let mut refresh = Refresh::default();
        let mut failed =
            || refresh.looked_up(LookupOutcome::Failed, RefreshBounds::default(), NOW, 0.5);
        let pauses: Vec<u64> = (0..7).map(|_| failed().pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert!(!failed().is_used);
    }

    #[test]
    fn an_empty_answer_is_used_once_it_has_lasted() {
        let mut refresh = Refresh::default();
        let mut empty =
            |now| refresh.looked_up(LookupOutcome::Empty, RefreshBounds::default(), now, 0.5);
        assert!(!empty(NOW).is_used);
        assert!(!empty(NOW + EMPTY_HOLD.saturating_sub(Duration::from_nanos(1))).is_used);
        assert!(empty(NOW + EMPTY_HOLD).is_used);
    }

    #[test]
    fn records_between_two_empty_answers_begin_the_wait_again() {
        let mut refresh = Refresh::default();
        let bounds = RefreshBounds::default();
        assert!(!refresh.looked_up(LookupOutcome::Empty, bounds, NOW, 0.5).is_used);
        refresh.looked_up(LookupOutcome::Found(secs(1)), bounds, NOW, 0.5);
        assert!(!refresh.looked_up(LookupOutcome::Empty, bounds, NOW + EMPTY_HOLD, 0.5).is_used);
    }

    proptest! {
        #[test]
        fn every_pause_is_within_its_bounds(
            ttl in 0_u64..100_000, min in 0_u64..100, more in 0_u64..1000, roll in 0.0_f64..1.0,
            failures in 0_u32..40,
        ) {
            let bounds = bounds(min, min + more);
            let mut refresh = Refresh { failures, ..Refresh::default() };
            let failed = refresh.looked_up(LookupOutcome::Failed, bounds, NOW, roll).pause;
            prop_assert!(failed >= FAILED_MIN.mul_f64(0.8) && failed <= FAILED_MAX.mul_f64(1.2));
            let found = refresh.looked_up(LookupOutcome::Found(secs(ttl)), bounds, NOW, roll).pause;
            prop_assert!(found >= bounds.min && found <= bounds.max);
            let empty = refresh.looked_up(LookupOutcome::Empty, bounds, NOW, roll).pause;
            prop_assert!(empty >= FAILED_MIN.mul_f64(0.8));
        }
    }
}
