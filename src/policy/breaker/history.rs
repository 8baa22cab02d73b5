//! The last results of a backend, in one word.

use super::rate::FailureRate;

/// The last 63 results, the newest in the lowest bit: 1 is a failure. The highest bit that is set
/// only marks how many there are.
///
/// One word, so an atomic can hold it: a success after many successes changes nothing, and costs one
/// read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History(u64);

impl History {
    /// No results yet.
    pub const EMPTY: Self = Self(1);
    /// The maximum number of results.
    pub const LEN_MAX: u32 = 63;

    /// From [`Self::bits`].
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        if bits == 0 { Self::EMPTY } else { Self(bits) }
    }

    /// As one word.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The same with one more result. Beyond the maximum, the oldest is dropped.
    #[must_use]
    pub const fn with(self, failed: bool) -> Self {
        let mark = self.0 & (1 << Self::LEN_MAX);
        let newest = if failed { 1 } else { 0 };
        Self(self.0 << 1 | newest | mark)
    }

    /// The number of results.
    #[must_use]
    pub const fn len(self) -> u32 {
        Self::LEN_MAX - self.0.leading_zeros()
    }

    /// Whether there is no result.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The number of failures among the last `last` results.
    #[must_use]
    pub const fn failures(self, last: u32) -> u32 {
        let last = if last < self.len() { last } else { self.len() };
        (self.0 & ((1 << last) - 1)).count_ones()
    }

    /// The rate of failures among the last `last` results, or among all of them if it is higher: a
    /// few results are no measure of a rate. `None` without results.
    #[must_use]
    pub fn rate(self, last: u32) -> Option<FailureRate> {
        let of = self.len().min(last);
        let all = FailureRate::of(self.failures(self.len()), self.len())?;
        Some(FailureRate::of(self.failures(of), of).unwrap_or_default().max(all))
    }

    /// The number of failures since the last success.
    #[must_use]
    pub const fn in_a_row(self) -> u32 {
        let ones = self.0.trailing_ones();
        if ones < self.len() { ones } else { self.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(results: &[bool]) -> History {
        results.iter().fold(History::EMPTY, |history, failed| history.with(*failed))
    }

    #[test]
    fn it_counts_the_last_results_and_the_failures_in_a_row() {
        let history = of(&[true, false, true, true]);
        assert_eq!((history.len(), history.in_a_row()), (4, 2));
        assert_eq!((history.failures(2), history.failures(3), history.failures(99)), (2, 2, 3));
        assert!(History::EMPTY.is_empty());
        assert_eq!((History::EMPTY.failures(9), History::EMPTY.in_a_row()), (0, 0));
        assert_eq!(of(&[true; 3]).in_a_row(), 3, "the mark is no failure");
    }

    #[test]
    fn it_forgets_the_oldest_and_never_more() {
        let mut history = of(&[true; 100]);
        assert_eq!((history.len(), history.failures(63), history.in_a_row()), (63, 63, 63));
        for successes in 1..=63 {
            history = history.with(false);
            assert_eq!(history.failures(63), 63 - successes);
        }
        assert_eq!(history, history.with(false), "a success after many changes nothing");
    }

    #[test]
    fn the_rate_is_the_higher_one_of_the_last_and_of_all() {
        assert_eq!(History::EMPTY.rate(3), None);
        let failed_before = of(&[true, true, false, false, false]);
        assert_eq!(failed_before.rate(3), Some(FailureRate::per_cent(40)));
        let fails_now = of(&[false, false, false, true, true]);
        assert_eq!(fails_now.rate(2), Some(FailureRate::ALL));
        assert_eq!(fails_now.rate(0), Some(FailureRate::per_cent(40)));
    }

    #[test]
    fn a_word_that_was_never_written_has_no_results() {
        assert_eq!(History::from_bits(0), History::EMPTY);
        let history = of(&[true, false]);
        assert_eq!(History::from_bits(history.bits()), history);
    }
}
