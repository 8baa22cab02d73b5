//! Time as an argument.
//!
//! No policy reads a clock. `now` is an argument, so tests need no sleeping and can replay a run from a
//! seed. The only clock is `src/clock.rs`.

use std::ops::Add;
use std::time::Duration;

/// Nanoseconds since the start of a monotonic clock. Timestamps of the same clock can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The clock's start.
    pub const ZERO: Self = Self(0);
    /// The last timestamp, about 584 years after the start.
    pub const MAX: Self = Self(u64::MAX);

    /// The timestamp `nanos` nanoseconds after the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time since `earlier`; zero if this is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Nanoseconds of a duration, at most `u64::MAX`.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The duration without its fraction of a millisecond. Printed by `{:?}`, such as `1.234s`, it is short
/// enough for people.
#[must_use]
pub fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_timestamp_is_a_duration_after_an_earlier_one() {
        let start = Timestamp::from_nanos(5);
        let end = start + Duration::from_nanos(7);
        assert_eq!(end.as_nanos(), 12);
        assert_eq!(end.since(start), Duration::from_nanos(7));
    }

    #[test]
    fn what_is_printed_has_whole_milliseconds() {
        let text = |nanos| format!("{:?}", whole_millis(Duration::from_nanos(nanos)));
        assert_eq!(text(1_234_567_891), "1.234s");
        assert_eq!(text(3_600_000_000_001), "3600s");
        assert_eq!(text(999_999), "0ns");
    }

    #[test]
    fn the_time_since_a_later_timestamp_is_zero() {
        assert_eq!(Timestamp::ZERO.since(Timestamp::MAX), Duration::ZERO);
    }

    #[test]
    fn addition_saturates_at_the_last_timestamp() {
        assert_eq!(Timestamp::MAX + Duration::from_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp::ZERO + Duration::MAX, Timestamp::MAX);
    }
}
