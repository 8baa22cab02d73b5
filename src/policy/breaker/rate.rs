//! How often backends fail, and when a backend fails more often than chance explains.

/// One, in parts per million.
const ONE: u32 = 1_000_000;
/// Failures without a success are no chance if they are at most this likely, in parts per billion.
const UNLIKELY: u64 = 1_000;
/// At least this rate is assumed for failures among successes: no service is without any failure.
const LEAST: FailureRate = FailureRate(ONE / 200);

/// A share of failures, in parts per million.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailureRate(u32);

impl FailureRate {
    /// No failures.
    pub const ZERO: Self = Self(0);
    /// Nothing but failures.
    pub const ALL: Self = Self(ONE);

    /// This many failures among this many results; `None` without results.
    #[must_use]
    pub fn of(failed: u32, of: u32) -> Option<Self> {
        let share = (u64::from(failed) * u64::from(ONE)).checked_div(u64::from(of))?;
        Some(Self(u32::try_from(share).unwrap_or(ONE).min(ONE)))
    }

    /// In per cent.
    #[must_use]
    pub const fn per_cent(per_cent: u32) -> Self {
        Self(if per_cent < 100 { per_cent * (ONE / 100) } else { ONE })
    }

    /// The median: the middle one, or the mean of the two in the middle. Zero of none.
    #[must_use]
    pub fn median(rates: &mut [Self]) -> Self {
        rates.sort_unstable();
        let Some(last) = rates.len().checked_sub(1) else { return Self::ZERO };
        match (rates.get(last / 2), rates.get(rates.len() / 2)) {
            (Some(low), Some(high)) => Self(u32::midpoint(low.0, high.0)),
            _ => Self::ZERO,
        }
    }

    /// Whether these failures are more than chance explains at this rate.
    #[must_use]
    pub fn rules_out(self, failed: u32, of: u32) -> bool {
        if failed == of {
            self.rules_out_row(of)
        } else {
            self.max(LEAST).rules_out_share(failed, of)
        }
    }

    /// The chance of a row of failures is one in a million or less.
    fn rules_out_row(self, row: u32) -> bool {
        let next = |chance: u64, _| chance * u64::from(self.0) / u64::from(ONE);
        row > 0 && (0..row).fold(u64::from(ONE) * 1_000, next) <= UNLIKELY
    }

    /// The failures exceed those expected by 4.5 standard deviations: `n*p + 4.5*sqrt(n*p*(1-p))`.
    fn rules_out_share(self, failed: u32, of: u32) -> bool {
        let (rate, one, of) = (u128::from(self.0), u128::from(ONE), u128::from(of));
        let Some(excess) = (u128::from(failed) * one).checked_sub(of * rate) else { return false };
        excess > 0 && 4 * excess * excess >= 81 * of * rate * (one - rate)
    }

    /// Whether these failures are more than this many times the rate.
    #[must_use]
    pub fn is_exceeded(self, times: u32, failed: u32, of: u32) -> bool {
        let expected = u64::from(self.0) * u64::from(times) * u64::from(of);
        u64::from(failed) * u64::from(ONE) > expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest number of failures that is no chance.
    fn least_row(rate: FailureRate) -> Option<u32> {
        (1..=63).find(|row| rate.rules_out(*row, *row))
    }

    fn least_of(rate: FailureRate, of: u32) -> Option<u32> {
        (1..of).find(|failed| rate.rules_out(*failed, of))
    }

    #[test]
    fn the_more_the_peers_fail_the_longer_a_row_has_to_be() {
        for (per_mille, row) in [
            (0, Some(1)),
            (5, Some(3)),
            (10, Some(3)),
            (20, Some(4)),
            (50, Some(5)),
            (100, Some(6)),
            (300, Some(12)),
            (500, Some(20)),
            (900, None),
            (1000, None),
        ] {
            assert_eq!(least_row(FailureRate(per_mille * 1000)), row, "{per_mille}/1000");
        }
    }

    #[test]
    fn a_share_has_to_be_far_above_that_of_the_peers() {
        for (per_cent, of_ten, of_twenty) in [
            (0, Some(2), Some(2)),
            (1, Some(2), Some(3)),
            (5, Some(4), Some(6)),
            (10, Some(6), Some(9)),
            (30, None, Some(16)),
            (50, None, None),
            (100, None, None),
        ] {
            let rate = FailureRate::per_cent(per_cent);
            assert_eq!(
                (least_of(rate, 10), least_of(rate, 20)),
                (of_ten, of_twenty),
                "{per_cent} %"
            );
        }
        assert!(!FailureRate::ZERO.rules_out(0, 0) && !FailureRate::ALL.rules_out(63, 63));
    }

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        let median = |rates: &[u32]| {
            FailureRate::median(
                &mut rates.iter().map(|rate| FailureRate::per_cent(*rate)).collect::<Vec<_>>(),
            )
        };
        assert_eq!(median(&[]), FailureRate::ZERO);
        assert_eq!(median(&[7]), FailureRate::per_cent(7));
        assert_eq!(median(&[90, 10]), FailureRate::per_cent(50));
        assert_eq!(median(&[90, 0, 10]), FailureRate::per_cent(10));
        assert_eq!(FailureRate::of(1, 3), Some(FailureRate(333_333)));
        assert_eq!(FailureRate::of(0, 0), None);
    }
}
